"""Test of whether two samples come from one distribution, and their distance.

energy_test(model.sample(500), data[:500]).p_value
wasserstein(model.sample(500), data[:500])          # in the unit of the data
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from generative.assignment import assign
from generative.training.checks import checked
from generative.training.ranges import Count

__all__ = ["TwoSample", "energy_test", "wasserstein"]


class TwoSample(NamedTuple):
    """Result of `energy_test`."""

    distance: float
    """Energy distance, in the unit of the data; 0 for equal distributions, in the limit."""
    p_value: float
    """Share of random relabellings at least as far apart; small means different."""


@checked
def energy_test(x: Tensor, y: Tensor, permutations: Count = 999, seed: int = 0) -> TwoSample:
    """Permutation test of whether two samples come from one distribution.

    The statistic is 2 E|X - Y| - E|X - X'| - E|Y - Y'| over all pairs (Szekely & Rizzo 2013); it
    is zero only for equal distributions. The p-value is exact in the sense that, if they are equal,
    p <= alpha happens with probability at most alpha.

    Args:
        x, y: samples, (N, D) and (M, D); the time grows with permutations * (N + M)^2.
    """
    _check_samples(x, y)
    both = torch.cat([x, y]).double()
    distances = torch.cdist(both, both, compute_mode="donot_use_mm_for_euclid_dist")
    weights = torch.cat(
        [torch.full((len(x),), 1 / len(x)), torch.full((len(y),), -1 / len(y))]
    ).double()
    rng = np.random.default_rng(seed)
    orders = np.argsort(rng.random((permutations, len(both))), axis=1)
    # With weights 1/N and -1/M the three expectations are one quadratic form.
    labels = torch.cat([weights[None], weights[torch.from_numpy(orders)]])
    statistics = -((labels @ distances) * labels).sum(1)
    # Statistics of equal sets of labels differ in the last digits by the order of summation.
    exceeding = (statistics[1:] >= statistics[0] * (1 - 1e-9) - 1e-15).sum()
    return TwoSample(float(statistics[0]), (1 + int(exceeding)) / (1 + permutations))


def wasserstein(x: Tensor, y: Tensor) -> float:
    """Wasserstein-2 distance of two samples: the root of the mean squared distance of the pairs in
    the cheapest pairing.

    Two samples of one distribution also have a distance, which falls as their size grows; compare
    with that of two samples of the data. The time grows as N^3.

    Args:
        x, y: samples of one size, (N, D).
    Raises:
        ValueError: other shapes, or no points.
    """
    _check_samples(x, y)
    if len(x) != len(y) or not len(x):
        raise ValueError(f"got {len(x)} and {len(y)} points; pass as many of both, at least one")
    distances = torch.cdist(x.double(), y.double(), compute_mode="donot_use_mm_for_euclid_dist")
    squared = distances.square().numpy()
    return float(np.sqrt(squared[np.arange(len(x)), assign(squared)].mean()))


def _check_samples(x: Tensor, y: Tensor) -> None:
    if x.dim() != 2 or y.shape[1:] != x.shape[1:]:
        raise ValueError(
            f"got samples of shapes {tuple(x.shape)} and {tuple(y.shape)}; pass (N, D) and (M, D)"
        )
