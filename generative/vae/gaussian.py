"""Gaussian codes of VAEs, and bounds of log p(x) from draws of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from generative.training.checks import checked
from generative.training.ranges import Count

__all__ = [
    "VAELosses",
    "gaussian_kl",
    "gaussian_log_prob",
    "importance_bound",
    "mean_or_draw",
    "sample_gaussian",
]

MAX_ROWS = 2**14
"""Codes that are decoded at once, at most, unless there are more images."""


class VAELosses(NamedTuple):
    """Means over the batch."""

    loss: Tensor
    recon: Tensor
    """Reconstruction term; its unit depends on the loss."""
    kl: Tensor
    """KL(q(z|x) || p(z)) in nats, the information in the code."""


def sample_gaussian(mu: Tensor, logvar: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """z = mu + exp(logvar / 2) * eps, eps ~ N(0, I) (Kingma & Welling 2014, section 2.4)."""
    eps = torch.randn(mu.shape, generator=generator, device=mu.device, dtype=mu.dtype)
    return mu + (0.5 * logvar).exp() * eps


def mean_or_draw(
    mu: Tensor, logvar: Tensor, sample: bool, generator: torch.Generator | None = None
) -> Tensor:
    """mu, or with `sample` one draw of N(mu, exp(logvar)).

    Raises:
        ValueError: a generator is given and no draw asked for.
    """
    if sample:
        return sample_gaussian(mu, logvar, generator)
    if generator is not None:
        raise ValueError("a generator is given, but encode draws only with sample=True: pass that")
    return mu


def gaussian_kl(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mu, exp(logvar)) || N(0, 1)) per element, in nats (same shape as mu)."""
    return 0.5 * (mu.square() + logvar.exp() - 1.0 - logvar)


def gaussian_log_prob(x: Tensor, mu: Tensor | float, logvar: Tensor | float) -> Tensor:
    """log N(x; mu, exp(logvar)) per element, in nats."""
    logvar = torch.as_tensor(logvar, dtype=x.dtype, device=x.device)
    return -0.5 * ((x - mu).square() * (-logvar).exp() + logvar + math.log(2 * math.pi))


@checked
def importance_bound(log_weights: Callable[[int], Tensor], num_draws: Count, batch: int) -> Tensor:
    """log (1/K) sum_k p(x, z_k) / q(z_k | x) with z_k ~ q(z | x), (B,), nats.

    A lower bound of log p(x) on average; K = 1 is the ELBO, more draws never make it worse, and
    the limit is log p(x) itself (Burda, Grosse & Salakhutdinov 2016, theorem 1).

    Args:
        log_weights: n -> log p(x, z) - log q(z | x) of n fresh draws for each image, (n, B).
        num_draws: K.
        batch: B. Draws are made a few at a time, so that K can be large.
    Raises:
        ValueError: num_draws is below 1.
    """
    at_once = max(1, MAX_ROWS // max(1, batch))
    parts = [log_weights(min(at_once, num_draws - done)) for done in range(0, num_draws, at_once)]
    return torch.cat(parts).logsumexp(0) - math.log(num_draws)
