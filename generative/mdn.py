"""Mixture density networks: a head that turns features into one Gaussian mixture per dimension.

Bishop (1994), "Mixture Density Networks"; with one mixture per output dimension and a sampling
temperature as in Ha & Schmidhuber (2018), appendix A.2. Needs torch only and nothing else of
this project:

    head = MixtureDensityHead(in_dim=64, out_dim=2, num_mixtures=5)
    mixture = head(features)                       # features (..., 64)
    loss = -mixture.log_prob(target).mean()        # target (..., 2)
    y = mixture.sample(temperature=1.15)           # (..., 2)
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["Mixture", "MixtureDensityHead", "mdn_nll"]

LOG_STD_MIN, LOG_STD_MAX = -7.0, 5.0
HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class Mixture(NamedTuple):
    """One K-component Gaussian mixture per dimension; every field is (..., D, K)."""

    log_pi: Tensor
    """Log weights, normalised over K."""
    mu: Tensor
    log_std: Tensor

    def log_prob(self, x: Tensor) -> Tensor:
        """Log density of x (..., D) under its dimension's mixture, (..., D), in nats."""
        return -mdn_nll(x, *self)

    def mean(self) -> Tensor:
        """Expectation, (..., D)."""
        return (self.log_pi.exp() * self.mu).sum(-1)

    def variance(self) -> Tensor:
        """Variance by the law of total variance, (..., D)."""
        spread = (self.mu - self.mean().unsqueeze(-1)).square()
        return (self.log_pi.exp() * ((2 * self.log_std).exp() + spread)).sum(-1)

    def sample(self, temperature: float = 1.0, generator: torch.Generator | None = None) -> Tensor:
        """One draw (..., D), differentiable in mu and log_std of the drawn component.

        Temperature tau divides the log weights before the softmax and multiplies the drawn
        component's standard deviation by sqrt(tau). As tau goes to 0 the draw becomes the mean
        of the heaviest component.

        Raises:
            ValueError: temperature is negative, or not finite.
        """
        if not 0 <= temperature < math.inf:
            raise ValueError(f"temperature is {temperature}; it must be 0 or more, and finite")
        kind = {"generator": generator, "device": self.mu.device, "dtype": self.mu.dtype}
        uniform = torch.rand(self.mu.shape, **kind).clamp_min(torch.finfo(self.mu.dtype).tiny)
        eps = torch.randn(self.mu.shape[:-1], **kind)
        return self.draw(-(-uniform.log()).log(), eps, temperature)

    def draw(self, gumbel: Tensor, eps: Tensor, temperature: float = 1.0) -> Tensor:
        """`sample` from given noise: standard Gumbel (..., D, K) and standard normal (..., D)."""
        # Gumbel-max: argmax(log_pi / tau + g) is a draw from softmax(log_pi / tau). Multiplied by
        # tau, which keeps the order, it holds at 0 too.
        component = (self.log_pi + temperature * gumbel).argmax(-1, keepdim=True)
        mu = self.mu.gather(-1, component).squeeze(-1)
        std = self.log_std.gather(-1, component).squeeze(-1).exp()
        return mu + math.sqrt(temperature) * std * eps


def mdn_nll(x: Tensor, log_pi: Tensor, mu: Tensor, log_std: Tensor) -> Tensor:
    """Negative log-likelihood of x under one Gaussian mixture per dimension.

    -log sum_k pi_k N(x | mu_k, std_k), by logsumexp (Bishop 1994, equation 23 in logarithms).

    Args:
        x: targets, (..., D).
        log_pi, mu, log_std: (..., D, K); log_pi is normalised over K.
    Returns:
        (..., D) in nats. The caller takes the mean.
    """
    standardised = (x.unsqueeze(-1) - mu) * (-log_std).exp()
    log_normal = -0.5 * standardised.square() - log_std - HALF_LOG_2PI
    return -torch.logsumexp(log_pi + log_normal, dim=-1)


class MixtureDensityHead(nn.Module):
    """Linear layer from features (..., in_dim) to a `Mixture` over out_dim dimensions.

    3 * num_mixtures * out_dim outputs: log weights, means, log standard deviations. The latter
    are clamped to [-7, 5], so that no component can collapse onto a data point.
    """

    def __init__(self, in_dim: int, out_dim: int, num_mixtures: int = 5):
        super().__init__()
        self.out_dim, self.num_mixtures = out_dim, num_mixtures
        self.linear = nn.Linear(in_dim, 3 * num_mixtures * out_dim)

    def forward(self, features: Tensor) -> Mixture:
        # Under autocast the product is in bfloat16; the exponentials that follow need the weights'
        # own type.
        out = self.linear(features).to(self.linear.weight.dtype)
        log_pi, mu, log_std = out.unflatten(-1, (3, self.out_dim, self.num_mixtures)).unbind(-3)
        return Mixture(log_pi.log_softmax(-1), mu, log_std.clamp(LOG_STD_MIN, LOG_STD_MAX))
