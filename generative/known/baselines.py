"""Simplest models of images, which a trained one must beat: independent pixels, one Gaussian, a
mixture of Bernoullis."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from generative.known.densities import Gaussian
from generative.training.checks import checked
from generative.training.ranges import Count

__all__ = ["bernoulli_mixture", "gaussian_bits", "independent_pixels"]

ROWS = 500
"""Images at a time."""


@checked
def independent_pixels(train: np.ndarray, test: np.ndarray, levels: Count) -> float:
    """Bits per number of test images if every number had a distribution of its own.

    The distributions are the frequencies of the levels in the training images, with one added to
    each count.

    Args:
        train, test: levels 0 .. levels - 1, (N, ...) and (M, ...).
        levels: values that a number can have.
    Raises:
        ValueError: the images have different shapes, or there are none.
    """
    if train.shape[1:] != test.shape[1:] or not test.size:
        raise ValueError(
            f"got images {train.shape} to count and {test.shape} to test; pass some, of one shape"
        )
    highest = max(train.max(initial=0), test.max())
    if highest >= levels or min(train.min(initial=0), test.min()) < 0:
        raise ValueError(f"got level {highest} of {levels}; levels count from 0 to {levels - 1}")
    dim = math.prod(test.shape[1:])
    place = np.arange(dim) * levels
    count = np.ones(dim * levels, np.int64)
    for first in range(0, len(train), ROWS):
        rows = train[first : first + ROWS].reshape(-1, dim)
        count += np.bincount((place + rows).ravel(), minlength=dim * levels)
    bits = -np.log2(count / (len(train) + levels))
    parts = (test[first : first + ROWS].reshape(-1, dim) for first in range(0, len(test), ROWS))
    return float(sum(bits[place + rows].sum() for rows in parts)) / test.size


def gaussian_bits(train: np.ndarray, test: np.ndarray, generator: torch.Generator) -> float:
    """Bits per number of test images under the likeliest Gaussian of the training images.

    Both get uniform noise in [0, 1) on their levels, as a flow does; see
    `generative.flow.Dequantiser`. Time grows as the cube of the numbers in an image.

    Args:
        train, test: levels as integers, (N, ...) and (M, ...).
        generator: of the noise.
    """
    rows = [torch.from_numpy(x).flatten(1).double() for x in (train, test)]
    seen, unseen = (x + torch.rand(x.shape, generator=generator, dtype=torch.float64) for x in rows)
    nats = -float(Gaussian.fit(seen).log_prob(unseen).mean())
    return nats / seen.shape[1] / math.log(2)


@checked
def bernoulli_mixture(train: Tensor, test: Tensor, k: Count, seed: int) -> float:
    """Mean log probability of test rows under k products of Bernoullis, fitted by EM, nats.

    Args:
        train, test: zeros and ones, float (N, D) and (M, D).
        k: products in the mixture.
        seed: of the first memberships.
    """
    generator = torch.Generator().manual_seed(seed)
    belongs = torch.eye(k)[torch.randint(k, (len(train),), generator=generator)]
    log_test = torch.empty(0)
    for _ in range(100):
        size = belongs.sum(0)
        log_weight = ((size + 1) / (size + 1).sum()).log()
        # Half a white and half a black pixel are added to each, so that no image is impossible.
        p = (belongs.T @ train + 0.5) / (size[:, None] + 1)
        log_train, log_test = (
            x @ p.log().T + (1 - x) @ (1 - p).log().T + log_weight for x in (train, test)
        )
        belongs = log_train.softmax(1)
    return float(log_test.logsumexp(1).mean())
