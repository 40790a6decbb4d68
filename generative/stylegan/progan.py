"""ProGAN's networks, with a way out and a way in for every side that they grow through.

generator(z)                          # at full growth
generator(z, side=16, alpha=0.3)      # 0.3 of 16x16, 0.7 of the doubled image of 8x8
critic(images, alpha=0.3)             # of images of any side on the way
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.nets.equalised import EqualisedConv2d, EqualisedLinear, minibatch_std, pixel_norm
from generative.nets.projected import ProjectedCritic
from generative.stylegan.config import SMALLEST, ProGANConfig
from generative.stylegan.growing import doubled, level_of

__all__ = ["DoublingCritic", "GrownCritic", "GrownGenerator", "faded_image", "grown_critic"]

ROOT2 = math.sqrt(2)
"""Gain of a layer in front of a leaky ReLU."""


def leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2)


class GrownGenerator(nn.Module):
    """Noise (B, latent_dim) -> images (B, C, S, S), about -1 to 1 without a limit.

    23,079,115 parameters at the paper's sizes, all ways out counted.
    """

    def __init__(self, config: ProGANConfig):
        super().__init__()
        self.sides, channels = config.sides, config.channels
        first = channels[0]
        # A smaller gain here, and a bias for each channel behind the reshape, as published.
        self.dense = EqualisedLinear(config.latent_dim, first * SMALLEST**2, ROOT2 / 4, bias=None)
        self.bias = nn.Parameter(torch.zeros(first, 1, 1))
        self.conv = EqualisedConv2d(first, first, 3, ROOT2)
        self.blocks = nn.ModuleList(_Doubling(*pair) for pair in itertools.pairwise(channels))
        self.to_rgb = nn.ModuleList(EqualisedConv2d(c, config.shape[0], 1) for c in channels)

    def forward(self, z: Tensor, side: int | None = None, alpha: float = 1.0) -> Tensor:
        """Images (B, C, side, side).

        Raises:
            ValueError: a side that is not on the way.
        """
        h = self.dense(pixel_norm(z)).unflatten(1, (-1, SMALLEST, SMALLEST)) + self.bias
        h = pixel_norm(leaky(self.conv(pixel_norm(leaky(h)))))
        level = level_of(side or self.sides[-1], self.sides)
        return faded_image(h, list(self.blocks), list(self.to_rgb), level, alpha)


class _Doubling(nn.Module):
    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.first = EqualisedConv2d(in_channels, out_channels, 3, ROOT2)
        self.second = EqualisedConv2d(out_channels, out_channels, 3, ROOT2)

    def forward(self, h: Tensor) -> Tensor:
        h = pixel_norm(leaky(self.first(doubled(h))))
        return pixel_norm(leaky(self.second(h)))


def faded_image(
    h: Tensor,
    blocks: list[Callable[[Tensor], Tensor]],
    to_rgb: list[Callable[[Tensor], Tensor]],
    level: int,
    alpha: float,
) -> Tensor:
    """Image of features at 4x4 after so many doublings.

    The last one is faded in: alpha of it, 1 - alpha of the doubled image without it.
    """
    before = h
    for block in blocks[:level]:
        before, h = h, block(h)
    image = to_rgb[level](h)
    if level and alpha < 1:
        image = torch.lerp(doubled(to_rgb[level - 1](before)), image, alpha)
    return image


class GrownCritic(nn.Module):
    """Images (B, C, side, side) of any side on the way -> heights (B,), higher for real ones.

    23,087,249 parameters at the paper's sizes, all ways in counted.
    """

    def __init__(self, config: ProGANConfig):
        super().__init__()
        self.sides, self.std_group, channels = config.sides, config.std_group, config.channels
        last = channels[0]
        self.from_rgb = nn.ModuleList(
            EqualisedConv2d(config.shape[0], c, 1, ROOT2) for c in channels
        )
        self.blocks = nn.ModuleList(
            _Halving(wide, narrow) for narrow, wide in itertools.pairwise(channels)
        )
        self.conv = EqualisedConv2d(last + bool(config.std_group), last, 3, ROOT2)
        self.whole = EqualisedConv2d(last, last, SMALLEST, ROOT2, padding=0)
        self.head = EqualisedLinear(last, 1)

    def forward(self, x: Tensor, alpha: float = 1.0) -> Tensor:
        """Heights (B,); of the newest layers alpha, of the way in one side lower the rest.

        Raises:
            ValueError: a side that is not on the way, or a batch that groups do not divide.
        """
        level = level_of(x.shape[-1], self.sides)
        h = leaky(self.from_rgb[level](x))
        for i in range(level, 0, -1):
            h = self.blocks[i - 1](h)
            if i == level and alpha < 1:
                old = leaky(self.from_rgb[level - 1](F.avg_pool2d(x, 2)))
                h = torch.lerp(old, h, alpha)
        if self.std_group:
            h = minibatch_std(h, self.std_group)
        return self.head(leaky(self.whole(leaky(self.conv(h)))).flatten(1)).flatten()


class DoublingCritic(nn.Module):
    """A critic of images of the full side, which sees smaller ones with each pixel repeated.

    Args:
        critic: images (B, C, S, S) -> heights (B, heads).
        sides: sides on the way, the last of them S.
    """

    def __init__(self, critic: ProjectedCritic, sides: tuple[int, ...]):
        super().__init__()
        self.critic, self.sides = critic, sides

    @property
    def network(self) -> nn.Module:
        """The network whose features it sees."""
        return self.critic.network

    def forward(self, x: Tensor, alpha: float = 1.0) -> Tensor:
        """Heights (B, heads); a critic without layers that are faded in has no use for alpha.

        Raises:
            ValueError: a side that is not on the way.
        """
        for _ in self.sides[level_of(x.shape[-1], self.sides) + 1 :]:
            x = doubled(x)
        return self.critic(x)


def grown_critic(config: ProGANConfig) -> GrownCritic | DoublingCritic:
    """A critic of images of every side on the way, projected if the settings say so."""
    if config.projected is None:
        return GrownCritic(config)
    return DoublingCritic(config.projected.build(config.shape), config.sides)


class _Halving(nn.Module):
    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.first = EqualisedConv2d(in_channels, in_channels, 3, ROOT2)
        self.second = EqualisedConv2d(in_channels, out_channels, 3, ROOT2)

    def forward(self, h: Tensor) -> Tensor:
        return F.avg_pool2d(leaky(self.second(leaky(self.first(h)))), 2)
