"""Requirements of data sets and environments, for help texts."""

from __future__ import annotations

__all__ = ["NEEDS", "what_is_needed"]

DOWNLOADED = "a download (download_data)"
BY_HAND = "files given out by hand (download_data)"
NEEDS: dict[str, str] = {
    # Made by a formula, drawn, or installed with scikit-learn and music21.
    **dict.fromkeys(
        (
            "two-moons", "eight-gaussians", "grid-25", "checkerboard", "ring", "bars-and-stripes",
            "sprites", "scenes", "scenes-and-letters", "equal-objects", "digits", "markov",
            "hidden-markov", "reviews", "tunes", "chorales", "dialogues", "rules", "one-rule",
            "emoji",
        ),
        "",
    ),
    **dict.fromkeys(("mnist", "fashion-mnist", "cifar-10", "flowers"), DOWNLOADED),
    **dict.fromkeys(("celeba", "bricks"), BY_HAND),
    **dict.fromkeys(("recipes", "wine-reviews"), "a file from Kaggle"),
    "jsb": "a file of the JSB chorales",
    "cello-suites": "MIDI files of the cello suites",
    "text": "a text file of yours",
    "folder": "a folder of your images",
    "WorldModels/TakeCover64-v0": "vizdoom (the extra doom)",
    "frames": "recorded episodes (collect_rollouts)",
}  # fmt: skip
"""Requirement by the name of the data set or environment."""


def what_is_needed(name: str) -> str:
    """Requirement of a data set or an environment, in words; "" if it needs nothing more."""
    return NEEDS.get(name, "")
