"""Steps through an ordinary differential equation, of order 1, 2 and 4."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from generative.training.checks import checked
from generative.training.ranges import Count

__all__ = [
    "SOLVERS",
    "Velocity",
    "equal_steps",
    "euler",
    "heun",
    "probes",
    "rk4",
    "shifted_steps",
    "with_divergence",
]

Velocity = Callable[[float, Tensor], tuple[Tensor, Tensor]]
"""(t, z (B, ...)) -> dz/dt (B, ...), and rates that are summed up along the path."""


def euler(velocity: Velocity, z: Tensor, times: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Euler's method, of order 1: the velocity at the beginning of a step stands for all of it.

    Arguments and results are those of `rk4`; a step asks for the velocity once.
    """
    total: Tensor | float = 0.0
    for t, after in itertools.pairwise(times):
        k, r = velocity(t, z)
        z = z + (after - t) * k
        total = total + (after - t) * r
    assert isinstance(total, Tensor)
    return z, total


def heun(velocity: Velocity, z: Tensor, times: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Heun's method, of order 2: the mean of the velocities at both ends of Euler's step.

    Arguments and results are those of `rk4`; a step asks for the velocity twice.
    """
    total: Tensor | float = 0.0
    for t, after in itertools.pairwise(times):
        h = after - t
        k1, r1 = velocity(t, z)
        k2, r2 = velocity(after, z + h * k1)
        z = z + h / 2 * (k1 + k2)
        total = total + h / 2 * (r1 + r2)
    assert isinstance(total, Tensor)
    return z, total


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


SOLVERS: dict[str, Callable[[Velocity, Tensor, Sequence[float]], tuple[Tensor, Tensor]]] = {
    "euler": euler,
    "heun": heun,
    "rk4": rk4,
}
"""Solvers by name."""


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


def probes(x: Tensor, trace: str = "exact", generator: torch.Generator | None = None) -> Tensor:
    """Directions (K, B, ...) or (K, 1, ...) along which `with_divergence` differentiates.

    Args:
        x: (B, ...).
        trace: "exact" gives every axis of an example; "hutchinson" one random direction of signs,
            whose estimate has the exact trace as its mean (Hutchinson 1990).
    Raises:
        ValueError: another trace.
    """
    if trace not in ("exact", "hutchinson"):
        raise ValueError(f"trace is {trace!r}; give 'exact' or 'hutchinson'")
    if trace == "exact":
        size = math.prod(x.shape[1:])
        return torch.eye(size, dtype=x.dtype, device=x.device).view(size, 1, *x.shape[1:])
    signs = torch.randint(0, 2, x.shape, generator=generator, device=x.device)
    return (2 * signs - 1).to(x.dtype)[None]


def with_divergence(field: Callable[[float, Tensor], Tensor], directions: Tensor) -> Velocity:
    """A velocity with its divergence as the rate that is summed up, (B,).

    One backward pass for each direction. A graph for gradients is kept where they are on.

    Args:
        field: (t, z (B, ...)) -> dz/dt.
        directions: see `probes`.
    """

    def velocity(t: float, z: Tensor) -> tuple[Tensor, Tensor]:
        keep = torch.is_grad_enabled()
        with torch.enable_grad():
            z = z if z.requires_grad else z.detach().requires_grad_()
            rate = field(t, z)
            divergence = z.new_zeros(len(z))
            for i, direction in enumerate(directions):
                (product,) = torch.autograd.grad(
                    (rate * direction).sum(), z,
                    create_graph=keep, retain_graph=keep or i + 1 < len(directions),
                )  # fmt: skip
                divergence = divergence + (product * direction).flatten(1).sum(1)
        return (rate, divergence) if keep else (rate.detach(), divergence.detach())

    return velocity
