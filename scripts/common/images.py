"""Any image data set in the form a model takes, and its batches.

images = load_images("sprites", Path("data"), image_shape=(3, 32, 32))
batch = Batches(images.part("train"), run, batch_size=64)
batch(step)                          # float (64, 3, 32, 32) in [0, 1]
batch.labels(step)                   # int64 (64, 5): shape, colour, x, y, size of the same images
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from generative.data.image_set import PARTS, ImageSet, evenly, fit_images, random_split
from generative.known.sprites import COLOURS
from scripts.common.missing import folder_of

if TYPE_CHECKING:
    from torch import Tensor

    from generative.training.run import Run

__all__ = ["Batches", "ImageData", "classes_of", "load_images"]

ImageData = Literal[
    "fashion-mnist", "mnist", "digits", "sprites", "scenes", "equal-objects", "frames", "folder",
    "cifar-10", "celeba", "bricks", "flowers", "emoji", "scenes-and-letters",
]  # fmt: skip
"""Names of the data sets. `frames` are recorded episodes, `folder` is any folder of images, and
`scenes-and-letters` what an autoencoder of scenes with signs has to know."""


@folder_of("--data-dir")
def load_images(
    name: ImageData,
    data_dir: Path,
    image_shape: tuple[int, int, int],
    levels: int | None = None,
    max_images: int | None = None,
) -> ImageSet:
    """A data set brought to the shape and the grey levels that a model takes.

    Args:
        name: which.
        data_dir: where its files are: data_dir/NAME if there is such a folder, else data_dir.
            Sprites and scenes are drawn, emoji come with this package and digits with scikit-learn;
            they need none.
        image_shape: (C, H, W); C is 1 or 3.
        levels: values a pixel can have; None keeps those of the data.
        max_images: at most this many images, at even distances; None takes all. Of sets with a file
            for each image no others are read.
    Raises:
        FileNotFoundError: something is missing; says what, and where to put it.
        DamagedFileError: a file is not what it should be.
    """
    own = data_dir / name
    images = _LOADERS[name](own if own.is_dir() else data_dir, image_shape, max_images)
    return fit_images(images.thin(max_images), image_shape, levels)


Loader = Callable[[Path, tuple[int, int, int], int | None], ImageSet]


def _fashion_mnist(folder: Path, image_shape: tuple[int, int, int], most: int | None) -> ImageSet:
    from generative.data.fashion_mnist import load_fashion_mnist

    return load_fashion_mnist(folder, padding=0)


def _mnist(folder: Path, image_shape: tuple[int, int, int], most: int | None) -> ImageSet:
    from generative.data.mnist import load_mnist

    return load_mnist(folder, padding=0)


def _cifar10(folder: Path, image_shape: tuple[int, int, int], most: int | None) -> ImageSet:
    from generative.data.cifar10 import load_cifar10

    return load_cifar10(folder)


def _digits(folder: Path, image_shape: tuple[int, int, int], most: int | None) -> ImageSet:
    from generative.data.digits import load_digits

    return load_digits()


def _sprites(folder: Path, image_shape: tuple[int, int, int], most: int | None) -> ImageSet:
    from generative.known.sprites import sprites

    return sprites()


def _equal_objects(folder: Path, image_shape: tuple[int, int, int], most: int | None) -> ImageSet:
    """Scenes of two, three and four equal objects, 24x24; a tenth of them for testing."""
    from generative.known.scenes import EMPTY, draw, equal_objects

    cells = equal_objects((2, 3, 4))
    objects, count = cells.amin(1), (cells != EMPTY).sum(1)
    factors = np.stack([count - 2, objects // len(COLOURS), objects % len(COLOURS)], 1)
    pixels = draw(cells).mul(255).round().byte().movedim(1, -1).numpy()
    split = random_split(len(cells), 0, len(cells) // 10)
    return ImageSet(pixels, factors, split, factor_names=("count", "shape", "colour"))


def _scenes(folder: Path, image_shape: tuple[int, int, int], most: int | None) -> ImageSet:
    """All scenes of two objects, 24x24; their factors are the nine cells."""
    from generative.known.scenes import pairs

    cells = pairs()
    rows = evenly(len(cells), most)
    split = random_split(len(cells), len(cells) // 10, len(cells) // 10)[rows]
    return _of_cells(cells[rows], split)


def _scenes_and_letters(
    folder: Path, image_shape: tuple[int, int, int], most: int | None
) -> ImageSet:
    """All scenes of two objects, and half as many of letters, in a quarter of their cells."""
    import torch

    from generative.known.scenes import CELLS, CONTENTS, EMPTY, LETTER, pairs

    objects = pairs()
    generator = torch.Generator().manual_seed(0)
    letters = torch.randint(LETTER, CONTENTS, (len(objects) // 2, CELLS), generator=generator)
    letters[torch.rand(letters.shape, generator=generator) < 0.75] = EMPTY
    # One of letters after every two of objects.
    cells = torch.cat([objects.unflatten(0, (-1, 2)), letters[:, None]], 1).flatten(0, 1)
    rows = evenly(len(cells), most)
    split = random_split(len(cells), len(cells) // 10, len(cells) // 10)[rows]
    return _of_cells(cells[rows], split)


def _of_cells(cells: Tensor, split: np.ndarray) -> ImageSet:
    from generative.known.scenes import CELLS, draw

    pixels = draw(cells).mul(255).round().byte().movedim(1, -1).numpy()
    names = tuple(f"cell-{i}" for i in range(CELLS))
    return ImageSet(pixels, cells.numpy(), split, factor_names=names)


def _emoji(folder: Path, image_shape: tuple[int, int, int], most: int | None) -> ImageSet:
    from generative.data.emoji import load_emoji

    return load_emoji().images


def _folder(folder: Path, image_shape: tuple[int, int, int], most: int | None) -> ImageSet:
    from generative.data.images import load_images as load_folder

    return load_folder(folder, image_shape[1], colour=image_shape[0] == 3, max_images=most)


def _celeba(folder: Path, image_shape: tuple[int, int, int], most: int | None) -> ImageSet:
    from generative.data.celeba import load_celeba

    return load_celeba(folder, image_shape[1], colour=image_shape[0] == 3, max_images=most)


def _bricks(folder: Path, image_shape: tuple[int, int, int], most: int | None) -> ImageSet:
    from generative.data.bricks import load_bricks

    return load_bricks(folder, image_shape[1], colour=image_shape[0] == 3, max_images=most)


def _flowers(folder: Path, image_shape: tuple[int, int, int], most: int | None) -> ImageSet:
    from generative.data.flowers import load_flowers

    return load_flowers(folder, image_shape[1], colour=image_shape[0] == 3, max_images=most)


def _frames(folder: Path, image_shape: tuple[int, int, int], most: int | None) -> ImageSet:
    """Recorded episodes; of the last ones, whole, about a tenth of the frames is for testing, so
    that no frame of a test was near one that is trained on."""
    from worldmodels.rollouts import RolloutStore, load_frames

    store = RolloutStore(folder)
    frames = load_frames(store)
    starts = np.cumsum([record.steps + 1 for record in store.records])[:-1]
    if not len(starts):
        raise ValueError(f"{folder} holds one episode; training and testing need at least two")
    split = np.zeros(len(frames), dtype=np.uint8)
    split[starts[np.abs(starts - 0.9 * len(frames)).argmin()] :] = PARTS.index("test")
    return ImageSet(frames, np.zeros((len(frames), 1), dtype=np.int64), split)


_LOADERS: dict[str, Loader] = {
    "fashion-mnist": _fashion_mnist,
    "mnist": _mnist,
    "digits": _digits,
    "sprites": _sprites,
    "scenes": _scenes,
    "scenes-and-letters": _scenes_and_letters,
    "frames": _frames,
    "folder": _folder,
    "cifar-10": _cifar10,
    "celeba": _celeba,
    "bricks": _bricks,
    "flowers": _flowers,
    "equal-objects": _equal_objects,
    "emoji": _emoji,
}


class Batches:
    """Images of a step, from the run's seed and the step alone, so a killed run goes on alike.

    Args:
        images: to draw from.
        run: whose seed and device are used.
        batch_size: images of a step.
    """

    def __init__(self, images: ImageSet, run: Run, batch_size: int):
        self.images, self.run, self.batch_size = images, run, batch_size

    def rows(self, step: int) -> np.ndarray:
        """Indices of the images of a step, (batch_size,)."""
        return self.run.rng("batch", step).integers(len(self.images), size=self.batch_size)

    def __call__(self, step: int) -> Tensor:
        """float (batch_size, C, H, W) in [0, 1] on the run's device."""
        return self.images.as_tensor(self.rows(step), self.run.device)

    def labels(self, step: int) -> Tensor:
        """Factors of the same images, int64 (batch_size, F)."""
        import torch

        return torch.from_numpy(self.images.factors[self.rows(step)]).to(self.run.device)


def classes_of(
    images: ImageSet, label: tuple[str, ...], num_classes: int, of: str = "model"
) -> np.ndarray:
    """Class of each image, (N,), by the factors of these names; each combination is a class.

    Args:
        of: settings that hold `num_classes`, for a message.
    Raises:
        ValueError: there is no such factor, or there are more classes than the model knows.
    """
    unknown = set(label) - set(images.factor_names)
    if unknown or not label:
        raise ValueError(
            f"there is no label {', '.join(sorted(unknown))!r}; these images have "
            f"{', '.join(images.factor_names)}"
        )
    factors = images.factors[:, [images.factor_names.index(name) for name in label]]
    sizes = tuple(int(most) + 1 for most in factors.max(0))
    if math.prod(sizes) > num_classes:
        raise ValueError(
            f"label {' and '.join(label)} has {math.prod(sizes)} values and the model "
            f"{num_classes} classes; give --{of}.num-classes {math.prod(sizes)}"
        )
    return np.asarray(np.ravel_multi_index(tuple(factors.T), sizes))
