"""A text-to-image model and the upsamplers behind it, as one.

    cascade = Cascade(base, [upsampler])                    # images of 4x4, and a factor of 2
    cascade.sample(["a red square"] * 8)                    # (8, 3, 8, 8) in [0, 1]
    small, large = cascade.stages(["a red square"] * 8)
    (large,) = cascade.enlarge(small, ["a red square"] * 8)  # small images of any source
    cascade.save_pretrained("runs/cascade")
    cascade = Cascade.from_pretrained("runs/cascade")

What a model draws has faults that the averages of real images do not have, on which upsamplers are
trained. Noise that is put on it hides them, and an upsampler is told how much (noise conditioning
augmentation; Ho et al. 2022, section 4.2; Saharia et al. 2022, section 2.4).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from generative.diffusion.samplers import Generators, normal_noise
from generative.text_to_image.model import Texts, TextToImage
from generative.text_to_image.upsampler import Upsampler
from generative.training.checks import checked
from generative.training.ranges import Count, NonNegative

__all__ = ["Cascade"]

BASE = "base"
UPSAMPLER = "upsampler-{}"
"""Folders of the models in that of a cascade; upsamplers are counted from 1."""


class Cascade(nn.Module):
    """Draws a small image of a text, and enlarges it by one upsampler after the other.

    Args:
        base: draws the smallest images.
        upsamplers: each takes the images of the one before.
    Raises:
        ValueError: there is no upsampler, or one takes images of another shape than it gets.
    """

    def __init__(self, base: TextToImage, upsamplers: Sequence[Upsampler]):
        super().__init__()
        if not upsamplers:
            raise ValueError(
                "a cascade has a base and no upsampler; give at least one, or use the base alone"
            )
        autoencoder = base.autoencoder
        shape = base.diffusion.shape if autoencoder is None else autoencoder.image_shape
        for number, upsampler in enumerate(upsamplers, 1):
            if tuple(upsampler.low_shape) != tuple(shape):
                raise ValueError(
                    f"upsampler {number} takes images {tuple(upsampler.low_shape)}, and what comes "
                    f"before it draws {tuple(shape)}; give one with image_shape = factor times that"
                )
            shape = upsampler.diffusion.shape
        self.base, self.upsamplers = base, nn.ModuleList(upsamplers)
        self.image_shape: tuple[int, ...] = tuple(shape)
        """(C, H, W) of the images."""

    @checked
    @torch.no_grad()
    def stages(
        self,
        texts: Texts,
        generator: Generators = None,
        steps: Count | None = None,
        scale: float | None = None,
        noise: NonNegative = 0.1,
    ) -> list[Tensor]:
        """Images of every stage, each (B, C, H, W) in [0, 1], the smallest first.

        Args:
            texts: captions or a number of images that are told nothing. Tokens are those of the
                base, and only fit upsamplers of the same words.
            steps, scale: of every stage; each model's own if not given.
            noise: standard deviation of the noise on images before they are enlarged, which the
                upsamplers are told; pixels are from 0 to 1.
        Raises:
            ValueError: an upsampler was trained with less noise than this.
        """
        self._check(noise)
        found = [self.base.sample(texts, generator, steps, scale)]
        return found + self.enlarge(found[0], texts, generator, steps, scale, noise)

    @checked
    @torch.no_grad()
    def enlarge(
        self,
        low: Tensor,
        texts: Texts,
        generator: Generators = None,
        steps: Count | None = None,
        scale: float | None = None,
        noise: NonNegative = 0.1,
    ) -> list[Tensor]:
        """Enlarge small images (B, C, h, w) of any source by the upsamplers; see `stages`.

        Returns:
            images of every stage behind the base, the smallest first.
        Raises:
            ValueError: an upsampler was trained with less noise than this, or takes other images.
        """
        self._check(noise)
        found: list[Tensor] = []
        for upsampler in self._upsamplers():
            low = found[-1] if found else low
            eps = normal_noise(low.shape, generator, device=low.device, dtype=low.dtype)
            found.append(
                upsampler.sample(
                    texts, generator, steps, scale, low=low + noise * eps, noise=noise
                )
            )  # fmt: skip
        return found

    @property
    def most_noises(self) -> list[float]:
        """Largest standard deviation of noise that each upsampler was trained with."""
        return [upsampler.most_noise for upsampler in self._upsamplers()]

    def _check(self, noise: float) -> None:
        for most in self.most_noises:
            if noise > most:
                raise ValueError(
                    f"noise is {noise}, and an upsampler was trained with at most {most}; give no "
                    "more"
                )

    def sample(
        self,
        texts: Texts,
        generator: Generators = None,
        steps: int | None = None,
        scale: float | None = None,
        noise: float = 0.1,
    ) -> Tensor:
        """Draw an image for each text, (B, C, H, W) in [0, 1]; see `stages`."""
        return self.stages(texts, generator, steps, scale, noise)[-1]

    def save_pretrained(self, folder: Path | str, dtype: torch.dtype | None = None) -> None:
        """Save every model in a folder of its own, below this one; see `Pretrained`."""
        for name, model in zip(self._names(len(self.upsamplers)), self._models(), strict=True):
            model.save_pretrained(Path(folder) / name, dtype)

    @classmethod
    def from_pretrained(cls, folder: Path | str, device: torch.device | str = "cpu") -> Self:
        """Load what `save_pretrained` wrote.

        Raises:
            FileNotFoundError: the folder has no base or no upsampler.
        """
        folder = Path(folder)
        number = 0
        while (folder / UPSAMPLER.format(number + 1)).is_dir():
            number += 1
        first, *names = cls._names(max(1, number))
        base = TextToImage.from_pretrained(folder / first, device=device)
        return cls(
            base, [Upsampler.from_pretrained(folder / name, device=device) for name in names]
        )

    @staticmethod
    def _names(upsamplers: int) -> list[str]:
        return [BASE, *(UPSAMPLER.format(i + 1) for i in range(upsamplers))]

    def _upsamplers(self) -> list[Upsampler]:
        return [model for model in self.upsamplers if isinstance(model, Upsampler)]

    def _models(self) -> list[TextToImage]:
        return [self.base, *self._upsamplers()]
