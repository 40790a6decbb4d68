"""Data from one Gaussian, of which everything about straight lines is linear and known."""

import torch
from torch import Tensor, nn

MEAN = torch.tensor([0.5, -1.0], dtype=torch.float64)
STD = torch.tensor([0.6, 1.7], dtype=torch.float64)


def width(t: Tensor) -> Tensor:
    """Standard deviations of x_t, (B, 2)."""
    return ((1 - t[:, None]).square() + (t[:, None] * STD).square()).sqrt()


def draw(n: int, seed: int = 0) -> Tensor:
    eps = torch.randn(n, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return MEAN + STD * eps


class GaussianVelocity(nn.Module):
    """E[data - noise | x_t]: data - noise and x_t are jointly normal, axis by axis."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        slope = (t[:, None] * STD.square() - (1 - t[:, None])) / width(t).square()
        return MEAN + slope * (x - t[:, None] * MEAN)


def moved(x: Tensor, t: Tensor, r: Tensor) -> Tensor:
    """x_r: the flow keeps the number of standard deviations from the mean."""
    return r[:, None] * MEAN + width(r) / width(t) * (x - t[:, None] * MEAN)


class GaussianMeanVelocity(nn.Module):
    """(x_r - x_t) / (r - t) in a form that also holds for r = t.

    (width(r) - width(t)) / (r - t) = (width(r)^2 - width(t)^2) / ((r - t) (width(r) + width(t))),
    where the difference of squares is (r - t) ((r + t) (1 + STD^2) - 2).
    """

    def forward(self, x: Tensor, times: Tensor) -> Tensor:
        t, r = times.unbind(1)
        growth = ((r + t)[:, None] * (1 + STD.square()) - 2) / (width(r) + width(t))
        return MEAN + growth / width(t) * (x - t[:, None] * MEAN)
