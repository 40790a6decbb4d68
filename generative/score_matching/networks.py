"""Networks that estimate scores: a perceptron on points, residual convolutions at three sizes."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["ScoreConvolutions", "ScorePerceptron"]


class ScorePerceptron(nn.Module):
    """x (B, D) and log sigma (B,) -> (B, D)."""

    def __init__(self, dim: int, width: int, num_hidden: int):
        super().__init__()
        layers: list[nn.Module] = [nn.Linear(dim + 1, width), nn.SiLU()]
        for _ in range(num_hidden - 1):
            layers += [nn.Linear(width, width), nn.SiLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(width, dim))

    def forward(self, x: Tensor, log_sigma: Tensor) -> Tensor:
        return self.layers(torch.cat([x, log_sigma[:, None]], 1))


class ScoreBlock(nn.Module):
    """Two convolutions beside a shortcut; the noise level scales and shifts the hidden features."""

    def __init__(self, width: int):
        super().__init__()
        self.first, self.second = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.level = nn.Linear(width, 2 * width)
        self.norm = nn.GroupNorm(min(8, math.gcd(8, width)), width)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        scale, shift = self.level(level)[:, :, None, None].chunk(2, 1)
        h = self.norm(self.first(F.silu(x))) * (1 + scale) + shift
        return x + self.second(F.silu(h))


class ScoreConvolutions(nn.Module):
    """x (B, C, H, W) and log sigma (B,) -> (B, C, H, W), by way of a quarter of the size.

    Skips are added, and levels scale and shift the normalised features: its weights are not those
    of a `UNet` of `generative.nets`.
    """

    def __init__(self, channels: int, width: int, num_blocks: int):
        super().__init__()
        self.level = nn.Sequential(nn.Linear(1, width), nn.SiLU(), nn.Linear(width, width))
        self.enter = nn.Conv2d(channels, width, 3, padding=1)
        self.down = nn.ModuleList(
            nn.ModuleList(ScoreBlock(width) for _ in range(num_blocks)) for _ in range(3)
        )
        self.up = nn.ModuleList(
            nn.ModuleList(ScoreBlock(width) for _ in range(num_blocks)) for _ in range(2)
        )
        self.leave = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, x: Tensor, log_sigma: Tensor) -> Tensor:
        level, h = self.level(log_sigma[:, None]), self.enter(x)
        kept = []
        for i, blocks in enumerate(self.down):
            if i:
                kept.append(h)
                h = F.avg_pool2d(h, 2)
            for block in cast("nn.ModuleList", blocks):
                h = block(h, level)
        for blocks in self.up:
            h = F.interpolate(h, scale_factor=2.0, mode="nearest") + kept.pop()
            for block in cast("nn.ModuleList", blocks):
                h = block(h, level)
        return self.leave(F.silu(h))
