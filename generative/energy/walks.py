"""Walks on any energy: Langevin dynamics as the book has it, and the Metropolis-adjusted one.

langevin(my_energy, x, steps=100, step_size=0.01)   # any function (B, ...) -> (B,)
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from typing import TypeAlias

import torch
from torch import Tensor

from generative.training.checks import checked
from generative.training.ranges import Count, NonNegative, Positive

__all__ = ["Energy", "energy_gradient", "langevin", "langevin_path", "mala"]

Energy: TypeAlias = Callable[[Tensor], Tensor]
"""Examples (B, ...) -> energies (B,)."""


def energy_gradient(energy: Energy, x: Tensor) -> tuple[Tensor, Tensor]:
    """Energies (B,) and their gradients with respect to x, of the shape of x; no graph is kept.

    Weights of the energy get no gradient.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        values = energy(x)
        (gradient,) = torch.autograd.grad(values.sum(), x)
    return values.detach(), gradient


@checked
def langevin_path(
    energy: Energy,
    x: Tensor,
    steps: Count,
    step_size: Positive,
    noise: NonNegative | None = None,
    clip: NonNegative = 0.0,
    box: tuple[float, float] | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[Tensor]:
    """The state after each step of `langevin`, which explains the arguments."""
    noise = math.sqrt(2 * step_size) if noise is None else noise
    for _ in range(steps):
        x = x + noise * _normal(x.shape, x, generator)
        x = x if box is None else x.clamp(*box)
        _, gradient = energy_gradient(energy, x)
        gradient = gradient.clamp(-clip, clip) if clip else gradient
        x = x - step_size * gradient
        x = x if box is None else x.clamp(*box)
        yield x


def langevin(
    energy: Energy,
    x: Tensor,
    steps: int,
    step_size: float,
    noise: float | None = None,
    clip: float = 0.0,
    box: tuple[float, float] | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Langevin dynamics: x <- y - step_size * grad E(y) with y = x + noise * N(0, I).

    In the book's order: noise first, so that what comes out has just been cleaned. With
    noise = sqrt(2 step_size) and small steps it samples exp(-E); with less it samples
    exp(-E / T), T = noise^2 / (2 step_size), which is a search for low energy when T is tiny, as in
    the book. On E = x^2 / (2 s^2), with a = step_size / s^2 < 2, the variance settles at
    noise^2 (1 - a)^2 / (a (2 - a)), not quite s^2; `mala` has no such bias.

    Args:
        energy: (B, ...) -> (B,).
        x: where the walks begin, (B, ...).
        noise: standard deviation; None for sqrt(2 step_size).
        clip: largest entry of the gradient; 0 for no limit.
        box: smallest and largest number of an example, held after noise and after the gradient.
    Returns:
        where they end.
    Raises:
        ValueError: less than one step, or another number out of its range.
    """
    path = langevin_path(energy, x, steps, step_size, noise, clip, box, generator)
    return deque(path, maxlen=1).pop()


@checked
def mala(
    energy: Energy,
    x: Tensor,
    steps: Count,
    step_size: Positive | Tensor,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Metropolis-adjusted Langevin: the same steps, each accepted or not, so exp(-E) is left exact.

    Proposes x' ~ N(x - step_size grad E(x), 2 step_size I) and accepts it with probability
    min(1, exp(E(x) - E(x')) q(x | x') / q(x' | x)) (Roberts & Tweedie 1996).

    Args:
        energy: (B, D) -> (B,).
        x: where the walks begin, (B, D).
    Returns:
        where they end, and the share of proposals that were accepted, a scalar.
    """
    step_size = torch.as_tensor(step_size, dtype=x.dtype, device=x.device)
    values, gradient = energy_gradient(energy, x)
    accepted = x.new_zeros(())
    for _ in range(steps):
        noise = _normal(x.shape, x, generator)
        there = x - step_size * gradient + (2 * step_size).sqrt() * noise
        new_values, new_gradient = energy_gradient(energy, there)
        # The noise that would lead back, whose size against that of the way there is log q.
        back = (x - there + step_size * new_gradient) / (2 * step_size).sqrt()
        log_q = (noise.square() - back.square()).flatten(1).sum(1) / 2
        u = torch.rand(len(x), generator=generator, device=x.device, dtype=x.dtype)
        take = u.log() < values - new_values + log_q
        wide = take.view(-1, *[1] * (x.dim() - 1))
        x, gradient = torch.where(wide, there, x), torch.where(wide, new_gradient, gradient)
        values = torch.where(take, new_values, values)
        accepted = accepted + take.to(x.dtype).mean() / steps
    return x, accepted


def _normal(shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.randn(shape, generator=generator, device=like.device, dtype=like.dtype)
