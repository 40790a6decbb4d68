"""Any folder of images, by Pillow. Folders in it, if there are any, are the classes."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from generative.data.folders import find_files
from generative.data.image_set import ImageSet, evenly, random_split
from generative.training.files import read_file, reading
from generative.training.progress import progress

__all__ = ["SUFFIXES", "find_images", "load_images", "natural_order", "read_image", "read_images"]

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif"}
FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF")
MAX_FILE_BYTES = 256 * 2**20
MAX_PIXELS = 2**24
"""Pixels that any image may have; a large file may have 256 per byte. Headers can claim more."""


def load_images(
    folder: Path | str,
    side: int = 64,
    colour: bool = True,
    seed: int = 0,
    max_images: int | None = None,
) -> ImageSet:
    """Load all images below a folder, cropped to the middle square and resized to side x side.

    A tenth each is kept for validation and test (at least one image each). Hidden files and folders
    are left out; files of other formats are counted on stderr.

    Args:
        folder: images in it belong to class 0; if it holds folders only, each of them is a class,
            in alphabetical order.
        side: in pixels.
        colour: three channels; otherwise one, grey.
        seed: seed of the split.
        max_images: largest number of images to read, evenly spaced; None reads all.
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


def find_images(folder: Path, besides: str = "") -> list[Path]:
    """Every image file below folder, in alphabetical order; see `find_files`.

    Args:
        besides: what is needed besides images, for the error.
    Raises:
        FileNotFoundError: there are fewer than three, or there is no such folder.
    """
    files = find_files(folder, SUFFIXES)
    if len(files) < 3:
        got = f" holds {len(files)} images" if folder.is_dir() else ": no such folder"
        raise FileNotFoundError(
            f"{folder}{got}; at least 3 images are needed, as {', '.join(sorted(SUFFIXES))}"
            f"{besides}"
        )
    return files


def natural_order(name: str) -> list[tuple[int, str]]:
    """Key that sorts 2 before 10."""
    return [(int(part or 0), "") if part.isdigit() else (0, part) for part in _DIGITS.split(name)]


def read_images(files: list[Path], side: int, colour: bool, stretch: bool = False) -> np.ndarray:
    """Images of one size, uint8 (N, side, side, 3 or 1), one file in memory at a time."""
    named = ((str(path), read_file(path, MAX_FILE_BYTES, links=True)) for path in files)
    return read_each(named, len(files), side, colour, stretch)


def read_each(
    named: Iterable[tuple[str, bytes]], n: int, side: int, colour: bool, stretch: bool
) -> np.ndarray:
    """As `read_images`, for n pairs (name, bytes of the file) from an iterable that may be lazy."""
    pixels = np.empty((n, side, side, 3 if colour else 1), dtype=np.uint8)
    for i, (name, data) in enumerate(progress(named, "reading images", total=n)):
        pixels[i] = read_image(data, name, side, colour, stretch)
    return pixels


def read_image(
    data: bytes, name: str, side: int, colour: bool = True, stretch: bool = False
) -> np.ndarray:
    """Decode one image to uint8 (side, side, 3 or 1), turned as its EXIF orientation says.

    16 bits of grey become 8. Transparent pixels are laid over white. An animation gives its first
    picture.

    Args:
        data: bytes of the file, in one of the formats of `SUFFIXES`, whatever its name.
        name: name of the file, for errors.
        stretch: resize the whole image to the square, as the book's loader does; otherwise crop
            its middle square.
    Raises:
        DamagedFileError: the file is no image, is cut, or has too many pixels; names it.
    """
    from PIL import Image, ImageOps

    mode = "RGB" if colour else "L"
    most = max(MAX_PIXELS, 256 * len(data))
    with reading(name, "cannot be read as an image"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of many pixels, where `most` is stricter, and of EXIF
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > most:
                raise ValueError(f"{image.width} x {image.height} pixels in {len(data)} bytes")
            image.draft(mode, (2 * side, 2 * side))  # a large JPEG need not be decoded in full
            with contextlib.suppress(Exception):  # an EXIF that is not whole turns nothing
                image = ImageOps.exif_transpose(image)
            if image.mode.startswith("I"):  # 16 bits, which convert would cut off at 255
                values = np.asarray(image).clip(0, 65_535)
                image = Image.fromarray((values / 257).round().astype(np.uint8))
            elif image.has_transparency_data:
                image = image.convert("RGBA")
                white = Image.new("RGBA", image.size, "white")
                image = Image.alpha_composite(white, image)
            image = image.convert(mode)
    if not stretch:
        edge = min(image.size)
        left, top = (image.width - edge) // 2, (image.height - edge) // 2
        image = image.crop((left, top, left + edge, top + edge))
    image = image.resize((side, side), Image.Resampling.LANCZOS)
    return np.asarray(image).reshape(side, side, -1)


_DIGITS = re.compile(r"(\d+)")
