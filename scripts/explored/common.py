"""Input of every explorer: a trained model, the settings of its run, a folder for pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

from generative.known.points import PointData, load_density
from scripts.common.images import ImageData, load_images

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

    from generative.data.image_set import ImageSet
    from generative.known.densities import Standardised

__all__ = ["Subject", "scale_to"]


@dataclass(frozen=True)
class Subject:
    """A trained model, the settings of its run, and a folder for pictures."""

    model: Any
    folder: Path
    """Folder of the model."""
    run: Path | None
    """Folder of the run that made it; None where the model stands alone."""
    settings: dict[str, Any]
    """Settings in that run's config.json; empty without a run."""
    data: str
    """Name of the training data; "" if it is not known."""
    data_dir: Path
    pictures: Path
    device: str
    seed: int

    def setting(self, name: str, default: Any) -> Any:
        """One of the run's settings."""
        return self.settings.get(name, default)

    def images(
        self,
        shape: tuple[int, ...],
        levels: int | None = None,
        max_images: int | None = None,
    ) -> ImageSet:
        """Training images of the model, in its shape; see `load_images`.

        Raises:
            ValueError: the data are not known, or are not images.
            FileNotFoundError: its files are missing.
        """
        known = get_args(ImageData)
        if self.data not in known:
            raise ValueError(self._wrong_data("images", known))
        data = cast("ImageData", self.data)
        shape = cast("tuple[int, int, int]", tuple(shape))
        return load_images(data, self.data_dir, shape, levels, max_images)

    def images_if_there(self, shape: tuple[int, ...], **limits: Any) -> ImageSet | None:
        """The same; None if the training data are not known, or their files are gone."""
        if self.data not in get_args(ImageData):
            return None
        try:
            return self.images(shape, **limits)
        except FileNotFoundError:
            return None

    def density(self) -> Standardised:
        """The density that the model's points were drawn from.

        Raises:
            ValueError: nothing tells which that was, or its data are no points.
        """
        known = get_args(PointData)
        if self.data not in known:
            raise ValueError(self._wrong_data("points", known))
        return load_density(self.data)

    def density_if_there(self) -> Standardised | None:
        """The same; None if it is not known."""
        return self.density() if self.data in get_args(PointData) else None

    def _wrong_data(self, what: str, known: tuple[str, ...]) -> str:
        got = f"data is {self.data!r}" if self.data else "no run tells its data"
        return (
            f"{self.folder} holds a model of {what} and {got}; pass what it was trained on: "
            f"--data {known[0]}, {', '.join(known[1:])}"
        )

    def save(self, name: str, picture: np.ndarray) -> None:
        """Write uint8 (H, W, 3) to NAME.png."""
        from PIL import Image

        self.pictures.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(self.pictures / f"{name}.png")

    def save_figure(self, name: str, figure: Figure, dpi: int = 80) -> None:
        """Write a figure to NAME.png."""
        self.pictures.mkdir(parents=True, exist_ok=True)
        figure.savefig(self.pictures / f"{name}.png", dpi=dpi)

    def generator(self) -> Any:
        """A generator of torch on the device, from the seed."""
        import torch

        return torch.Generator(self.device).manual_seed(self.seed)


def scale_to(pixels: int, shape: tuple[int, ...]) -> int:
    """Factor that enlarges an image (C, H, W) to about `pixels` in height, at least 1."""
    return max(1, pixels // shape[1])
