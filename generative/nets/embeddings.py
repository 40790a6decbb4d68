"""Sines and cosines of numbers: of a position, of a noise level, of a network's input."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from generative.training.checks import at_least_float32

__all__ = ["Waves", "plane_positions", "sine_positions", "sinusoidal_embedding"]


class Waves(nn.Module):
    """x (..., D) -> x with sin(w x) and cos(w x) of every number, (..., D (1 + 2 num)).

    A network is slow to learn functions that change over short distances; of the waves it learns
    them as fast as any other (Tancik et al. 2020).

    Args:
        slowest: w of the longest wave; each further one is half as long.
        num: number of waves; with 0, x comes out as it is.
    """

    frequencies: Tensor

    def __init__(self, slowest: float, num: int):
        super().__init__()
        # Buffers that the config gives are not saved with the weights.
        waves = torch.arange(num, dtype=torch.get_default_dtype())
        self.register_buffer("frequencies", slowest * 2.0**waves, persistent=False)

    def forward(self, x: Tensor, blur: Tensor | None = None) -> Tensor:
        """x (B, D), with waves.

        Args:
            blur: standard deviation of a blur of each example, (B,), that fades short waves as it
                would: by exp(-(w blur)^2 / 2). In noise they tell nothing but the noise.
        """
        if not len(self.frequencies):
            return x
        phases = x[..., None] * self.frequencies
        waves = torch.stack([phases.sin(), phases.cos()])
        if blur is not None:
            waves = waves * (-0.5 * (blur[:, None, None] * self.frequencies).square()).exp()
        return torch.cat([x, *waves.flatten(-2)], -1)

    def along(self, x: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, D) with waves, and the derivative along directions (K, B, D), with K as well."""
        if not len(self.frequencies):
            return x, directions
        phases = (x[..., None] * self.frequencies).flatten(-2)
        turns = (directions[..., None] * self.frequencies).flatten(-2)
        sin, cos = phases.sin(), phases.cos()
        slopes = torch.cat([directions, turns * cos, -turns * sin], -1)
        return torch.cat([x, sin, cos], -1), slopes


def sinusoidal_embedding(
    x: Tensor, dim: int = 32, min_frequency: float = 1.0, max_frequency: float = 1000.0
) -> Tensor:
    """Numbers (B,) -> (B, dim): sin(2 pi f x) for dim / 2 frequencies f, then the cosines.

    The frequencies go from the least to the largest by equal ratios (Foster 2023, chapter 8, after
    Vaswani et al. 2017).
    """
    ends = math.log(min_frequency), math.log(max_frequency)
    steps = torch.linspace(*ends, dim // 2, dtype=at_least_float32(x))
    # In bfloat16 an angle of some thousand would be off by whole turns.
    angles = 2 * math.pi * steps.exp().to(x.device) * x.to(steps.dtype)[:, None]
    return torch.cat([angles.sin(), angles.cos()], 1).to(x.dtype)


def sine_positions(
    length: int,
    dim: int,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Sines and cosines of the position at wavelengths from 2 pi to 20,000 pi, (length, dim).

    Channels 2i and 2i + 1 are the sine and the cosine of position / 10000^(2i / dim) (Vaswani et
    al. 2017, 3.5). Every position has a vector, also beyond those of training.
    """
    i = torch.arange(0, dim, 2, device=device, dtype=dtype)
    angle = torch.arange(length, device=device)[:, None] / 10_000 ** (i / dim)
    return torch.stack([angle.sin(), angle.cos()], 2).flatten(1)[:, :dim]


def plane_positions(rows: int, columns: int, dim: int) -> Tensor:
    """Sines and cosines of the places of a grid, (rows * columns, dim), row by row.

    The first half of the channels tells the row, the second the column, each as `sine_positions`
    has it, the sines of a half before its cosines (He et al. 2022; Peebles & Xie 2023).

    Args:
        dim: a multiple of 4.
    """
    axes = [sine_positions(size, dim // 2) for size in (rows, columns)]
    ordered = [torch.cat([axis[:, 0::2], axis[:, 1::2]], 1) for axis in axes]
    row, column = (part.unflatten(0, shape) for part, shape in
                   zip(ordered, ((rows, 1), (1, columns)), strict=True))  # fmt: skip
    both = torch.cat([part.expand(rows, columns, -1) for part in (row, column)], 2)
    return both.flatten(0, 1)
