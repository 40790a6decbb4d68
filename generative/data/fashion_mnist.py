"""Fashion-MNIST: 60,000 + 10,000 pieces of clothing of 28x28 pixels (Xiao et al. 2017)."""

from __future__ import annotations

from pathlib import Path

from generative.data.download import Source
from generative.data.idx import load_idx
from generative.data.image_set import ImageSet

__all__ = ["CAPTIONS", "CLASSES", "INSTALLED", "SOURCES", "load_fashion_mnist"]

CLASSES = (
    "T-shirt/top", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag",
    "ankle boot",
)  # fmt: skip

CAPTIONS = (
    "a t-shirt", "trousers", "a pullover", "a dress", "a coat", "a sandal", "a shirt", "a sneaker",
    "a bag", "an ankle boot",
)  # fmt: skip
"""Classes as captions name them; see `generative.data.captioned.caption_classes`."""

INSTALLED = Path("/usr/share/datasets/fashion-mnist")
"""Folder in which Debian's package dataset-fashion-mnist puts the four files."""
URL = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/"
SOURCES = tuple(
    Source(name, URL + name, md5)
    for name, md5 in {
        "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
    }.items()
)


def load_fashion_mnist(folder: Path | str, padding: int = 2, download: bool = False) -> ImageSet:
    """Load the images with their classes: 32x32x1 as in the book, padded by 2 black pixels.

    There is no validation part; the book validates on the test images.

    Args:
        folder: holds the four files, as .gz or unpacked. Where it has none of them, those of
            Debian's package dataset-fashion-mnist are read, if it is installed.
        padding: black pixels on each side of the 28x28.
        download: get files that are missing.
    Raises:
        FileNotFoundError: a file is missing; says which and where to get it.
        DamagedFileError: a file is not what it should be.
    """
    folder = Path(folder)
    names = [name for source in SOURCES for name in (source.name, source.name.removesuffix(".gz"))]
    if not download and INSTALLED.is_dir() and not any((folder / name).exists() for name in names):
        folder = INSTALLED
    return load_idx("fashion-mnist", SOURCES, folder, padding, download)
