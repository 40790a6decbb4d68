"""Any folder of images, by Pillow. Folders in it, if there are any, are the classes."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import IO

import numpy as np

from generative.data.image_set import ImageSet, evenly, random_split
from generative.training.files import DamagedFileError
from generative.training.progress import progress

__all__ = ["SUFFIXES", "find_images", "load_images", "natural_order", "read_image", "read_images"]

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif"}
DAMAGE = (OSError, SyntaxError, ValueError, EOFError, zlib.error, zipfile.BadZipFile)
"""What Pillow says to a damaged image depends on its format, and on the archive it comes from."""


def load_images(
    folder: Path | str,
    side: int = 64,
    colour: bool = True,
    seed: int = 0,
    max_images: int | None = None,
) -> ImageSet:
    """All images below a folder, cut to their middle square and brought to side x side pixels.

    A tenth each is kept for validation and test (at least one image each).

    Args:
        folder: images in it belong to class 0; if it holds folders only, each of them is a class,
            in alphabetical order.
        side: in pixels.
        colour: three channels; else one, grey.
        seed: of the split.
        max_images: read at most so many, at even distances; None reads all.
    Raises:
        FileNotFoundError: there are fewer than three images.
        DamagedFileError: one of them cannot be read; it is named.
    """
    folder = Path(folder)
    files = find_images(folder)
    names = sorted({p.relative_to(folder).parts[0] for p in files if p.parent != folder})
    files = [files[i] for i in evenly(len(files), max_images)]
    labels = np.zeros((len(files), 1), dtype=np.int64)
    for i, path in enumerate(files):
        if path.parent != folder:
            labels[i] = names.index(path.relative_to(folder).parts[0])
    kept = max(1, len(files) // 10)
    pixels = read_images(files, side, colour)
    return ImageSet(pixels, labels, random_split(len(files), kept, kept, seed))


def find_images(folder: Path) -> list[Path]:
    """Every image file below folder, in alphabetical order.

    Raises:
        FileNotFoundError: there are fewer than three.
    """
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    if len(files) < 3:
        raise FileNotFoundError(
            f"{folder} holds {len(files)} images; at least 3 are needed, as "
            f"{', '.join(sorted(SUFFIXES))}"
        )
    return files


def natural_order(name: str) -> list[tuple[int, str]]:
    """Key that sorts 2 before 10."""
    return [(int(part or 0), "") if part.isdigit() else (0, part) for part in _DIGITS.split(name)]


def read_images(files: list[Path], side: int, colour: bool, stretch: bool = False) -> np.ndarray:
    """Images of one size, uint8 (N, side, side, 3 or 1), one file in memory at a time."""
    return read_each([(str(path), path) for path in files], len(files), side, colour, stretch)


def read_each(
    named: Iterable[tuple[str, Path | IO[bytes]]], n: int, side: int, colour: bool, stretch: bool
) -> np.ndarray:
    """`read_images` of n (name, file) pairs, which may be opened as they are asked for."""
    pixels = np.empty((n, side, side, 3 if colour else 1), dtype=np.uint8)
    for i, (name, file) in enumerate(progress(named, "reading images", total=n)):
        pixels[i] = read_image(file, name, side, colour, stretch)
    return pixels


def read_image(
    file: Path | IO[bytes], name: str, side: int, colour: bool = True, stretch: bool = False
) -> np.ndarray:
    """One image as uint8 (side, side, 3 or 1).

    Args:
        file: to read.
        name: of the file, for errors.
        stretch: squeeze all of the image into the square, as the book's loader does; else its
            middle square is taken.
    Raises:
        DamagedFileError: it is no image, or is cut; it is named.
    """
    from PIL import Image

    mode = "RGB" if colour else "L"
    try:
        with Image.open(file) as image:
            image.draft(mode, (2 * side, 2 * side))  # a large JPEG need not be decoded in full
            image = image.convert(mode)
    except DAMAGE as error:
        raise DamagedFileError(f"{name}: cannot be read as an image ({error})") from error
    if not stretch:
        edge = min(image.size)
        left, top = (image.width - edge) // 2, (image.height - edge) // 2
        image = image.crop((left, top, left + edge, top + edge))
    image = image.resize((side, side), Image.Resampling.LANCZOS)
    return np.asarray(image).reshape(side, side, -1)


_DIGITS = re.compile(r"(\d+)")
