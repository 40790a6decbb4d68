"""Ways from one noise to another."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["slerp"]


def slerp(a: Tensor, b: Tensor, u: Tensor, angle: float | None = None) -> Tensor:
    """Between two noises on the arc from a (u = 0) to b (u = 1) (Shoemake 1985).

    sin((1 - u) w) / sin(w) a + sin(u w) / sin(w) b. Straight lines would pass through noises that
    are too small. Noises of many numbers stand at a right angle to each other, nearly: for
    angle = pi / 2 this is the book's formula, and keeps the variance.

    Args:
        a, b: noises of one shape.
        u: where, (N,).
        angle: w; None for the angle between a and b.
    Returns:
        (N, *a.shape)
    """
    u = u.to(a).view(-1, *[1] * a.dim())
    if angle is None:
        cosine = (a * b).sum() / (a.norm() * b.norm())
        angle = float(torch.arccos(cosine.clamp(-1, 1)))
    if math.sin(angle) < 1e-4:  # the same direction, or opposite ones, between which no arc is told
        return (1 - u) * a + u * b
    return (((1 - u) * angle).sin() * a + (u * angle).sin() * b) / math.sin(angle)
