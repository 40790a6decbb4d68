"""LEGO bricks: 40,000 rendered images of 50 bricks (Kaggle, joosthazelzet/lego-brick-images)."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from generative.data.image_set import ImageSet, evenly, random_split
from generative.data.images import SUFFIXES, find_images, read_images

__all__ = ["PAGE", "load_bricks"]

PAGE = "https://www.kaggle.com/datasets/joosthazelzet/lego-brick-images"


def load_bricks(
    folder: Path | str,
    side: int = 64,
    colour: bool = False,
    max_images: int | None = None,
    stretch: bool = False,
    seed: int = 0,
) -> ImageSet:
    """Load the images; the kind of brick in a file's name (3001 brick 2x4 000L) is the class.

    The classes are in alphabetical order. A tenth each is kept for validation and test.

    Args:
        folder: the images, or the folder `dataset` with them.
        side: in pixels.
        colour: three channels; otherwise one, grey, as in the book.
        max_images: largest number of images to read, evenly spaced.
        stretch: resize other shapes to a square, as the book does; otherwise crop the middle.
        seed: seed of the split.
    Raises:
        FileNotFoundError: there are no images; says where to get them.
        DamagedFileError: one of them cannot be read; it is named.
    """
    folder = Path(folder)
    place = folder / "dataset" if (folder / "dataset").is_dir() else folder
    if not any(path.suffix.lower() in SUFFIXES for path in place.rglob("*")):
        raise FileNotFoundError(
            f"{folder / 'dataset'} is missing; download it by hand from {PAGE} and unpack it into "
            f"{folder}"
        )
    files = find_images(place)
    kinds = [re.sub(r"[ _-]*\d+[LR]?$", "", path.stem) for path in files]
    classes = {kind: i for i, kind in enumerate(sorted(set(kinds)))}
    rows = evenly(len(files), max_images)
    factors = np.array([[classes[kinds[i]]] for i in rows], dtype=np.int64)
    kept = max(1, len(rows) // 10)
    pixels = read_images([files[i] for i in rows], side, colour, stretch)
    return ImageSet(pixels, factors, random_split(len(rows), kept, kept, seed))
