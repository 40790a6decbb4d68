"""scikit-learn's handwritten digits: 1,797 images of 8x8 pixels with 17 grey levels.

Only the file is read, so neither scikit-learn nor SciPy is loaded. `make install` brings it.
"""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path

import numpy as np

from generative.data.image_set import ImageSet, random_split
from generative.training.extras import how_to_install
from generative.training.files import DamagedFileError, open_file, reading

__all__ = ["find_digits", "load_digits"]

COUNT, SIDE, LEVELS = 1797, 8, 17
MAX_BYTES = 2**20
"""Largest size of the unpacked file; twice the actual size."""


def find_digits() -> Path:
    """Return the path of the images in the installed scikit-learn.

    Raises:
        FileNotFoundError: it is not installed; says what to install.
    """
    spec = importlib.util.find_spec("sklearn")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        file = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if file.is_file():
            return file
    raise FileNotFoundError(f"the digits come with scikit-learn; {how_to_install('sklearn')}")


def load_digits(file: Path | None = None, seed: int = 0) -> ImageSet:
    """Load all digits: 1,257 to train on, 180 for validation, 360 for testing.

    Args:
        file: digits.csv.gz; by default the file of the installed scikit-learn.
        seed: seed of the split.
    Raises:
        FileNotFoundError: scikit-learn is not installed; says what to install.
        DamagedFileError: the file does not hold the digits.
    """
    path = find_digits() if file is None else Path(file)
    with open_file(path, MAX_BYTES, links=True) as packed, reading(path, "is no table of numbers"):
        text = gzip.GzipFile(fileobj=packed).read(MAX_BYTES).decode()
        table = np.loadtxt(text.splitlines(), delimiter=",")
    good = table.shape == (COUNT, SIDE * SIDE + 1) and table.min() >= 0 and table.max() < LEVELS
    if not good:
        raise DamagedFileError(
            f"{path}: holds {table.shape} numbers up to {table.max():.4g}; the digits are "
            f"({COUNT}, {SIDE * SIDE + 1}) numbers below {LEVELS}"
        )
    images = table[:, :-1].astype(np.uint8).reshape(COUNT, SIDE, SIDE, 1)
    labels = table[:, -1:].astype(np.int64)
    return ImageSet(images, labels, random_split(COUNT, 180, 360, seed), levels=LEVELS)
