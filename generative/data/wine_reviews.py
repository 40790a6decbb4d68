"""Wine reviews: about 130,000 (Kaggle, zynicide/wine-reviews)."""

from __future__ import annotations

from pathlib import Path

from generative.data.text import read_records

__all__ = ["FIELDS", "NAME", "PAGE", "load_wine_reviews"]

PAGE = "https://www.kaggle.com/datasets/zynicide/wine-reviews"
NAME = "winemag-data-130k-v2.json"
FIELDS = ("country", "province", "variety", "description")
"""Fields of a record that make up a text, in order."""


def load_wine_reviews(folder: Path | str) -> list[str]:
    """Load texts "wine review : COUNTRY : PROVINCE : VARIETY : DESCRIPTION" of complete records.

    Raises:
        FileNotFoundError: says where to get the file and where to put it.
        DamagedFileError: it is not a list of records.
    """
    records = read_records(Path(folder) / NAME, PAGE)
    return [
        " : ".join(["wine review", *(review[name] for name in FIELDS)])
        for review in records
        if all(review.get(name) is not None for name in FIELDS)
    ]
