"""Runge-Kutta steps through an ordinary differential equation."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from torch import Tensor

from generative.training.checks import checked
from generative.training.ranges import Count

__all__ = ["Velocity", "equal_steps", "rk4", "shifted_steps"]

Velocity = Callable[[float, Tensor], tuple[Tensor, Tensor]]
"""(t, z (B, ...)) -> dz/dt (B, ...), and rates that are summed up along the path."""


def rk4(velocity: Velocity, z: Tensor, times: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Classical Runge-Kutta of order 4.

    Args:
        velocity: dz/dt and further rates, none of which it may depend on.
        z: at the first of the times, of any shape.
        times: from each to the next is one step, which asks for the velocity four times; they may
            fall.
    Returns:
        z at the last time, and the integrals of the rates, by Simpson's rule on the path.
    """
    total: Tensor | float = 0.0
    for t, after in itertools.pairwise(times):
        h = after - t
        k1, r1 = velocity(t, z)
        k2, r2 = velocity(t + h / 2, z + h / 2 * k1)
        k3, r3 = velocity(t + h / 2, z + h / 2 * k2)
        k4, r4 = velocity(t + h, z + h * k3)
        z = z + h / 6 * (k1 + 2 * (k2 + k3) + k4)
        total = total + h / 6 * (r1 + 2 * (r2 + r3) + r4)
    assert isinstance(total, Tensor)
    return z, total


@checked
def equal_steps(t0: float, t1: float, num_steps: Count) -> list[float]:
    """num_steps + 1 times from t0 to t1."""
    return [t0 + (t1 - t0) * i / num_steps for i in range(num_steps + 1)]


def shifted_steps(t0: float, t1: float, num_steps: int, shift: float) -> list[float]:
    """The same moved on by a share of a step, with the rest of one at either end.

    A flow that always meets the same times learns to be rough between them, where nobody looks,
    and so to gain density from nowhere. With a random shift in (0, 1) every time is met, and the
    errors of the log-determinant mostly cancel over the steps of a training.
    """
    inner = [t0 + (t1 - t0) * (i + shift) / num_steps for i in range(num_steps)]
    return [t0, *inner, t1]
