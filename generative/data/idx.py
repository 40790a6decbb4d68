"""The IDX format of MNIST and of the sets made in its likeness."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from generative.data.download import Source, download, missing
from generative.data.image_set import PARTS, ImageSet
from generative.training.files import DamagedFileError

__all__ = ["load_idx", "read_idx"]


def load_idx(
    name: str, sources: tuple[Source, ...], folder: Path, padding: int, fetch: bool
) -> ImageSet:
    """Images and classes of four IDX files; those named t10k are for testing.

    Args:
        name: of the data set, as scripts/download_data.py has it.
        sources: the four files.
        folder: holds them, as .gz or unpacked.
        padding: black pixels added on each side.
        fetch: download them first.
    Raises:
        FileNotFoundError: a file is missing; says which and where to get it.
        DamagedFileError: a file is not what it should be.
    """
    if fetch:
        download(sources, folder)
    images, labels, split = [], [], []
    for part, prefix in (("train", "train"), ("test", "t10k")):
        pixels = read_idx(_find(folder, f"{prefix}-images-idx3-ubyte", name, sources), 3)
        classes = read_idx(_find(folder, f"{prefix}-labels-idx1-ubyte", name, sources), 1)
        if len(pixels) != len(classes):
            raise DamagedFileError(
                f"{folder}: {len(pixels)} {part} images, but {len(classes)} labels"
            )
        images.append(pixels)
        labels.append(classes)
        split.append(np.full(len(pixels), PARTS.index(part), dtype=np.uint8))
    border = ((0, 0), (padding, padding), (padding, padding))
    padded = np.pad(np.concatenate(images), border)[..., None]
    return ImageSet(padded, np.concatenate(labels).astype(np.int64)[:, None], np.concatenate(split))


def read_idx(path: Path, ndim: int) -> np.ndarray:
    """An IDX file of bytes with so many axes, uint8.

    Raises:
        DamagedFileError: it is not one, or is cut.
    """
    data = path.read_bytes()
    if path.suffix == ".gz":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise DamagedFileError(f"{path}: is not whole ({error})") from error
    # Two zeros, 8 for unsigned bytes, the number of axes, then each axis in four bytes.
    header = 4 + 4 * ndim
    if data[:4] != bytes([0, 0, 8, ndim]) or len(data) < header:
        raise DamagedFileError(f"{path}: is not an IDX file of bytes with {ndim} axes")
    shape = tuple(np.frombuffer(data[4:header], dtype=">u4").tolist())
    if len(data) != header + math.prod(shape):
        raise DamagedFileError(f"{path}: has {len(data)} bytes, {shape} need more or fewer")
    return np.frombuffer(data, dtype=np.uint8, offset=header).reshape(shape)


def _find(folder: Path, stem: str, name: str, sources: tuple[Source, ...]) -> Path:
    for path in (folder / f"{stem}.gz", folder / stem):
        if path.is_file():
            return path
    source = next(source for source in sources if source.name.startswith(stem))
    raise missing(name, f"{folder / stem}.gz", [source], folder)
