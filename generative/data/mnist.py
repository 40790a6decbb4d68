"""MNIST: 60,000 + 10,000 handwritten digits of 28x28 pixels (LeCun et al. 1998)."""

from __future__ import annotations

from pathlib import Path

from generative.data.download import Source
from generative.data.idx import load_idx
from generative.data.image_set import ImageSet

__all__ = ["SOURCES", "load_mnist"]

URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
"""The mirror that torchvision uses; the authors' own server no longer gives the files out."""
SOURCES = tuple(
    Source(name, URL + name, md5)
    for name, md5 in {
        "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    }.items()
)


def load_mnist(folder: Path | str, padding: int = 2, download: bool = False) -> ImageSet:
    """Load the images with their digits: 32x32x1, padded by 2 black pixels.

    Args:
        folder: holds the four files, as .gz or unpacked.
        padding: black pixels on each side of the 28x28.
        download: get files that are missing.
    Raises:
        FileNotFoundError: a file is missing; says which and where to get it.
        DamagedFileError: a file is not what it should be.
    """
    return load_idx("mnist", SOURCES, Path(folder), padding, download)
