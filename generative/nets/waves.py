"""Sines and cosines of what a network sees: without them it is slow to learn sharp edges."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Waves"]


class Waves(nn.Module):
    """x (..., D) -> x with sin(w x) and cos(w x) of every number, (..., D (1 + 2 num)).

    A network is slow to learn functions that change over short distances; of the waves it learns
    them as fast as any other (Tancik et al. 2020).

    Args:
        slowest: w of the longest wave; each further one is half as long.
        num: how many waves; with 0, x comes out as it is.
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
