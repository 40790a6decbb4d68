"""Scores of pictures against their captions in the micro-world, each with its interval.

found = accuracy(images, captions)                  # of any sampler
found.satisfied, found.rejected                     # shares, each with a Wilson interval
evenness(images, "three red discs").p_value         # do the samples spread over all 84?
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from generative.known.captions import fits, fitting
from generative.known.scenes import read, valid
from generative.training.checks import checked
from generative.training.ranges import CountOrZero, Positive

__all__ = ["Accuracy", "Evenness", "Share", "accuracy", "evenness", "satisfied", "wilson"]

PER_PICTURE = 5
"""Samples of each picture that a chi-squared test needs in the mean."""


class Share(NamedTuple):
    """A share of n trials with an interval."""

    share: float
    low: float
    high: float


class Accuracy(NamedTuple):
    """Result of `accuracy` on n pictures; intervals of 95 %."""

    satisfied: Share
    """Pictures of the micro-world that fit their captions."""
    rejected: Share
    """Pictures that are none of the micro-world, see `generative.known.scenes.valid`."""
    n: int


class Evenness(NamedTuple):
    """Result of `evenness`."""

    chi_squared: float
    degrees: int
    """Degrees of freedom: pictures that fit, less one."""
    p_value: float
    """Probability of a larger chi_squared if all pictures that fit are equally likely."""
    reached: int
    """Pictures that fit and occur among the samples."""
    outside: int
    """Samples that do not fit, which are left out of the test."""


@checked
def wilson(hits: CountOrZero, n: CountOrZero, z: Positive = 1.959964) -> Share:
    """Share of hits among n trials, with the interval of Wilson (1927).

    It holds near 0 and 1 too, where that of the normal distribution has no width.

    Args:
        z: quantile of the normal distribution, 1.96 for 95 %.
    Raises:
        ValueError: there are more hits than trials, or no trial.
    """
    if not 0 <= hits <= n or not n:
        raise ValueError(f"got {hits} hits in {n} trials; give at least one trial")
    share, square = hits / n, z * z / n
    middle = (share + square / 2) / (1 + square)
    half = math.sqrt(square * (share * (1 - share) + square / 4)) / (1 + square)
    return Share(share, max(0.0, middle - half), min(1.0, middle + half))


def satisfied(
    pictures: Tensor, captions: Sequence[str], border: int = 0, letters: bool = True
) -> Tensor:
    """Tell which pictures are of the micro-world and fit their captions, bool (n,).

    Args:
        pictures: (n, 3, 24 + 2 border, 24 + 2 border) in [0, 1].
        captions: one for each.
        border: black pixels around a scene.
        letters: a cell may hold a letter; with False no sign is read.
    Raises:
        ValueError: pictures are of another shape or number, or a text is no caption.
    """
    if len(pictures) != len(captions):
        raise ValueError(
            f"got {len(pictures)} pictures and {len(captions)} captions; give one for each"
        )
    cells = read(pictures, border, letters).cells
    found = valid(pictures, border, letters=letters)
    for caption in dict.fromkeys(captions):
        rows = torch.tensor([text == caption for text in captions], device=cells.device)
        found[rows] &= fits(caption, cells[rows])
    return found


def accuracy(
    pictures: Tensor, captions: Sequence[str], border: int = 0, letters: bool = True
) -> Accuracy:
    """Share of pictures that fit their captions, and of those that are no picture of the world.

    A rejected picture satisfies nothing, whatever its nearest templates are.

    Args:
        pictures, captions, border, letters: as `satisfied` takes them.
    Raises:
        ValueError: there is no picture, or see `satisfied`.
    """
    hits = int(satisfied(pictures, captions, border, letters).sum())
    rejected = int((~valid(pictures, border, letters=letters)).sum())
    n = len(pictures)
    return Accuracy(wilson(hits, n), wilson(rejected, n), n)


def evenness(pictures: Tensor, caption: str, border: int = 0, letters: bool = True) -> Evenness:
    """Chi-squared test (Pearson 1900) of samples over the pictures that fit a caption.

    A model that draws one right picture again and again satisfies its caption and fails here.

    Args:
        pictures: samples for this caption, (n, 3, H, W) in [0, 1], at least five for each picture
            that fits.
        border, letters: as `satisfied` takes them.
    Raises:
        ValueError: there are too few samples that fit.
    """
    known = fitting(caption)
    kept = satisfied(pictures, [caption] * len(pictures), border, letters)
    cells = read(pictures, border, letters).cells[kept].to(known.device)
    if len(cells) < PER_PICTURE * len(known):
        raise ValueError(
            f"{len(cells)} of {len(pictures)} samples fit {caption!r}, which {len(known)} pictures "
            f"do; the test needs at least {PER_PICTURE * len(known)} that fit: draw more"
        )
    counts = torch.stack([(cells == row).all(1).sum() for row in known]).double()
    expected = len(cells) / len(known)
    chi_squared = float(((counts - expected).square() / expected).sum())
    degrees = len(known) - 1
    half = torch.tensor([degrees / 2, chi_squared / 2], dtype=torch.float64)
    # The upper tail of chi-squared is the regularised incomplete gamma function.
    p_value = float(torch.special.gammaincc(half[0], half[1])) if degrees else 1.0
    outside = len(pictures) - len(cells)
    return Evenness(chi_squared, degrees, p_value, int((counts > 0).sum()), outside)
