"""Distances of generated examples from real ones, without the critic."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from generative.training.checks import at_least_float32

if TYPE_CHECKING:
    from generative.data.image_set import ImageSet

__all__ = ["Coverage", "EnergyCoefficient", "coverage", "energy_coefficient", "nearest_images"]


class EnergyCoefficient(NamedTuple):
    """Distance of generated examples from real ones, and their spread, without the critic."""

    energy: Tensor
    """1 - (E|X - X'| + E|Y - Y'|) / (2 E|X - Y|): 0 for equal distributions, at most 1."""
    spread: Tensor
    """E|Y - Y'| / E|X - X'|: 1 for equal distributions, 0 if all generated examples are alike."""


def energy_coefficient(real: Tensor, fake: Tensor, most: int = 64) -> EnergyCoefficient:
    """Energy distance of two samples in a form without unit (Szekely & Rizzo 2013, section 2).

    A GAN's losses do not tell how good it is, as the opponent changes too; this does, and a spread
    that falls is mode collapse. Averages are over pairs of different examples, so that small
    samples of equal distributions give 0 on average, and now and then less.

    Args:
        real, fake: examples, (N, ...) and (M, ...).
        most: at most this many examples of each are compared.
    """
    x, y = (part[:most].flatten(1).to(at_least_float32(part)) for part in (real, fake))

    def within(a: Tensor) -> Tensor:
        return torch.cdist(a, a).sum() / max(len(a) * (len(a) - 1), 1)

    across = torch.cdist(x, y).mean().clamp_min(1e-12)
    x_spread, y_spread = within(x), within(y)
    return EnergyCoefficient(
        1 - (x_spread + y_spread) / (2 * across), y_spread / x_spread.clamp_min(1e-12)
    )


def nearest_images(images: Tensor, known: ImageSet, rows: int = 256) -> tuple[Tensor, Tensor]:
    """For each image the known one that is closest, by the mean absolute difference of pixels.

    The book's check that a GAN does not copy what it was trained on (chapter 4).

    Args:
        images: (N, C, H, W) in [0, 1].
        known: all that was trained on, of the same shape.
        rows: number of them compared at a time.
    Returns:
        index (N,) into known, and the difference (N,), from 0 to 1.
    """
    if tuple(images.shape[1:]) != known.image_shape:
        raise ValueError(
            f"got images {tuple(images.shape)}; the known ones are {known.image_shape}"
        )
    x = images.float().flatten(1)
    index = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    least = x.new_full((len(x),), math.inf)
    for start in range(0, len(known), rows):
        part = known.as_tensor(slice(start, start + rows), x.device).flatten(1)
        distance, row = torch.cdist(x, part, p=1).min(1)
        index = torch.where(distance < least, start + row, index)
        least = torch.minimum(distance, least)
    return index, least / x.shape[1]


class Coverage(NamedTuple):
    """Result of `coverage`."""

    precision: float
    """Share of the images that are one of the known ones."""
    recall: float
    """Share of the known ones that were generated."""
    index: Tensor
    """Index of the known image that each one is, (N,); -1 for none."""
    nearest: Tensor
    """Index of the known image that is closest to each one, however far, (N,)."""


def coverage(images: Tensor, known: ImageSet, within: float = 39.0) -> Coverage:
    """Exact precision and recall of images, where all that can be right are known.

    Args:
        images: (N, C, H, W) in [0, 1].
        known: e.g. `generative.known.sprites.sprites()`.
        within: largest mean squared difference, of pixels from 0 to 255, to be the same image. Two
            sprites are 157 apart or more, so that an image within 39 (half the way) of one is
            further from every other.
    """
    from generative.known.sprites import nearest

    pixels = images.mul(255).round().byte().movedim(1, -1).cpu().numpy()
    index, error = nearest(known, pixels)
    closest = torch.from_numpy(index)
    found = closest.masked_fill(torch.from_numpy(error > within), -1)
    right = found[found >= 0]
    return Coverage(len(right) / len(found), len(right.unique()) / len(known), found, closest)
