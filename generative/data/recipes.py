"""Recipes: more than 20,000 from Epicurious (Kaggle, hugodarwood/epirecipes)."""

from __future__ import annotations

from pathlib import Path

from generative.data.text import read_records

__all__ = ["NAME", "PAGE", "load_recipes"]

PAGE = "https://www.kaggle.com/datasets/hugodarwood/epirecipes"
NAME = "full_format_recipes.json"


def load_recipes(folder: Path | str) -> list[str]:
    """Load the texts "Recipe for TITLE | DIRECTIONS" of all recipes that have both.

    Raises:
        FileNotFoundError: says where to get the file and where to put it.
        DamagedFileError: it is not a list of records.
    """
    records = read_records(Path(folder) / NAME, PAGE)
    return [
        f"Recipe for {recipe['title']} | {' '.join(recipe['directions'])}"
        for recipe in records
        if recipe.get("title") is not None and recipe.get("directions") is not None
    ]
