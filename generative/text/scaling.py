"""Loss by the size of a model and the tokens it has seen: fit, and the best size for a budget.

Above the entropy of the texts a loss falls as

    L(N, D) - E = a N^-alpha + b D^-beta,

with N weights and D tokens (Hoffmann et al. 2022, Chinchilla, section 3.3). For texts whose entropy
E is known nothing has to be assumed about it; the paper fits E with the rest.

    law = fit_scaling(weights, tokens, excess)         # float64 (n,) each
    law.excess(weights, tokens)                        # nats a token above the entropy
    law.best_size(1e15)                                # weights for that many operations
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["ScalingLaw", "fit_scaling"]

OPERATIONS = 6
"""Operations of a training step for each weight and token: C = 6 N D."""


class ScalingLaw(NamedTuple):
    """Excess loss a N^-alpha + b D^-beta."""

    a: float
    alpha: float
    b: float
    beta: float

    def excess(self, weights: Tensor, tokens: Tensor) -> Tensor:
        """Nats a token above the entropy, float64."""
        return self.a * weights.double() ** -self.alpha + self.b * tokens.double() ** -self.beta

    def best_size(self, operations: float) -> float:
        """Weights of the model with the least loss among those with C = 6 N D operations.

        N = (alpha a / (beta b))^(1 / (alpha + beta)) (C / 6)^(beta / (alpha + beta)), equation 4 of
        the paper.
        """
        both = self.alpha + self.beta
        scale = (self.alpha * self.a / (self.beta * self.b)) ** (1 / both)
        return scale * (operations / OPERATIONS) ** (self.beta / both)


def fit_scaling(weights: Tensor, tokens: Tensor, excess: Tensor, delta: float = 0.05) -> ScalingLaw:
    """Fit a scaling law to measured losses, by Huber's loss of the logarithm of the excess.

    Args:
        weights, tokens, excess: (n,) each, positive; excess is the loss less the entropy.
        delta: differences of logarithms above it count linearly, so that a run that failed does not
            decide. The paper has 0.001.
    Raises:
        ValueError: fewer than four runs, shapes that differ, or numbers that are not positive.
    """
    data = [x.double() for x in (weights, tokens, excess)]
    if any(x.shape != data[0].shape or x.dim() != 1 for x in data) or len(data[0]) < 4:
        shapes = ", ".join(str(tuple(x.shape)) for x in data)
        raise ValueError(f"weights, tokens and excess are {shapes}; give (n,) each, n at least 4")
    if not all(bool((x > 0).all() and x.isfinite().all()) for x in data):
        raise ValueError(
            "weights, tokens and excess have to be positive; a loss below the entropy is chance: "
            "measure it on more texts"
        )
    logs = [x.log() for x in data]
    # Around their means the four numbers hardly depend on each other.
    n, d = logs[0] - logs[0].mean(), logs[1] - logs[1].mean()
    height = logs[2].mean()
    starts = itertools.product((0.2, 0.7), repeat=2)
    fits = [_descend(n, d, logs[2] - height, alpha, beta, delta) for alpha, beta in starts]
    best = min(fits, key=lambda fit: fit[1])[0]
    alpha, beta = float(best[1].exp()), float(best[3].exp())
    return ScalingLaw(
        a=float((best[0] + height + alpha * logs[0].mean()).exp()),
        alpha=alpha,
        b=float((best[2] + height + beta * logs[1].mean()).exp()),
        beta=beta,
    )


def _descend(
    n: Tensor, d: Tensor, target: Tensor, alpha: float, beta: float, delta: float
) -> tuple[Tensor, float]:
    """Least Huber loss of log(e^(x0 - alpha n) + e^(x2 - beta d)) - target, with x1, x3 = log
    alpha, log beta, by Levenberg's damped steps of Gauss and Newton; x and the loss.
    """
    x = torch.tensor([0.5, alpha, 0.5, beta], dtype=torch.float64).log()

    def residual(x: Tensor) -> tuple[Tensor, Tensor]:
        """Difference to the target, and its slope along x, (n, 4)."""
        size, tokens = x[0] - x[1].exp() * n, x[2] - x[3].exp() * d
        share = (size - tokens).sigmoid()
        slope = [share, -share * x[1].exp() * n, 1 - share, -(1 - share) * x[3].exp() * d]
        return torch.logaddexp(size, tokens) - target, torch.stack(slope, 1)

    def loss(difference: Tensor) -> float:
        return float(F.huber_loss(difference, torch.zeros_like(difference), delta=delta))

    damping = 1e-2
    difference, slope = residual(x)
    for _ in range(300):
        weight = delta / difference.abs().clamp_min(delta)
        normal = slope.T @ (weight[:, None] * slope)
        step = torch.linalg.solve(
            normal + damping * torch.eye(4, dtype=torch.float64), slope.T @ (weight * difference)
        )
        tried = x - step
        after = residual(tried)
        if loss(after[0]) <= loss(difference):
            x, (difference, slope), damping = tried, after, max(damping / 5, 1e-12)
            if float(step.abs().max()) < 1e-11:
                break
        else:
            damping *= 5
            if damping > 1e12:
                break
    return x, loss(difference)
