"""The IDX format of MNIST and of the sets made in its likeness."""

from __future__ import annotations

import gzip
import math
from pathlib import Path

import numpy as np

from generative.data.download import Source, download, missing
from generative.data.image_set import PARTS, ImageSet
from generative.training.files import DamagedFileError, open_file, reading

__all__ = ["load_idx", "read_idx"]

MAX_BYTES = 256 * 2**20
"""Largest size of an unpacked file; five times MNIST."""


def load_idx(
    name: str, sources: tuple[Source, ...], folder: Path, padding: int, fetch: bool
) -> ImageSet:
    """Images and classes of four IDX files; those named t10k are for testing.

    Args:
        name: name of the data set in scripts/download_data.py.
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
    """Read an IDX file of bytes with ndim axes, uint8.

    Raises:
        DamagedFileError: it is not one, or is cut.
    """
    # Two zeros, 8 for unsigned bytes, the number of axes, then each axis in four bytes.
    start = 4 + 4 * ndim
    with open_file(path, MAX_BYTES, links=True) as packed, reading(path, "is not whole"):
        file = gzip.GzipFile(fileobj=packed) if path.suffix == ".gz" else packed
        header = file.read(start)
        if header[:4] != bytes([0, 0, 8, ndim]) or len(header) < start:
            raise DamagedFileError(f"{path}: is not an IDX file of bytes with {ndim} axes")
        shape = tuple(np.frombuffer(header[4:], dtype=">u4").tolist())
        size = math.prod(shape)
        if size > MAX_BYTES:
            raise DamagedFileError(f"{path}: has shape {shape}, at most {MAX_BYTES} bytes are read")
        data = file.read(size + 1)
    if len(data) != size:
        raise DamagedFileError(f"{path}: {shape} need {size} bytes; it has fewer or more")
    return np.frombuffer(data, dtype=np.uint8).reshape(shape)


def _find(folder: Path, stem: str, name: str, sources: tuple[Source, ...]) -> Path:
    for path in (folder / f"{stem}.gz", folder / stem):
        if path.is_file():
            return path
    source = next(source for source in sources if source.name.startswith(stem))
    raise missing(name, f"{folder / stem}.gz", [source], folder)
