"""Fashion-MNIST and MNIST from their four IDX files, which the user has downloaded.

train-images-idx3-ubyte.gz  train-labels-idx1-ubyte.gz
t10k-images-idx3-ubyte.gz   t10k-labels-idx1-ubyte.gz
"""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np

from generative.data.image_set import PARTS, ImageSet
from generative.training.files import DamagedFileError

__all__ = ["CLASSES", "load_fashion_mnist", "read_idx"]

CLASSES = (
    "T-shirt/top", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag",
    "ankle boot",
)  # fmt: skip


def load_fashion_mnist(folder: Path | str, padding: int = 2) -> ImageSet:
    """The images with their classes; the book's 32x32x1 with its padding of 2 black pixels.

    There is no validation part; the book validates on the test images.

    Args:
        folder: holds the four files, as .gz or unpacked. MNIST's have the same names.
        padding: black pixels on each side of the 28x28.
    Raises:
        FileNotFoundError: a file is missing; says which and where to get it.
        DamagedFileError: a file is not what it should be.
    """
    folder = Path(folder)
    images, labels, split = [], [], []
    for part, prefix in (("train", "train"), ("test", "t10k")):
        pixels = read_idx(_find(folder, f"{prefix}-images-idx3-ubyte"), 3)
        classes = read_idx(_find(folder, f"{prefix}-labels-idx1-ubyte"), 1)
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
        except (OSError, EOFError) as error:
            raise DamagedFileError(f"{path}: is not whole ({error})") from error
    # Two zeros, 8 for unsigned bytes, the number of axes, then each axis in four bytes.
    header = 4 + 4 * ndim
    if data[:4] != bytes([0, 0, 8, ndim]) or len(data) < header:
        raise DamagedFileError(f"{path}: is not an IDX file of bytes with {ndim} axes")
    shape = tuple(np.frombuffer(data[4:header], dtype=">u4").tolist())
    if len(data) != header + int(np.prod(shape)):
        raise DamagedFileError(f"{path}: has {len(data)} bytes, {shape} need more or fewer")
    return np.frombuffer(data, dtype=np.uint8, offset=header).reshape(shape)


def _find(folder: Path, name: str) -> Path:
    for path in (folder / f"{name}.gz", folder / name):
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"{folder / name}.gz is missing; get the four files of Fashion-MNIST from "
        "https://github.com/zalandoresearch/fashion-mnist and pass their folder"
    )
