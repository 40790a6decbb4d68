"""StyleGAN2's networks: weights modulated by w, an image added up of all sides, a critic with
residuals."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn

from generative.nets.equalised import (
    EqualisedConv2d,
    EqualisedLinear,
    ModulatedConv2d,
    downsample,
    minibatch_std,
    upsample,
)
from generative.stylegan.config import SMALLEST, StyleGAN2Config
from generative.stylegan.progan import ROOT2, leaky
from generative.stylegan.styles import Mapping, Noise, noise_sides

__all__ = ["ResidualCritic", "SkipGenerator", "contributions"]


class _ModulatedLayer(nn.Module):
    """A modulated convolution, noise, bias, and a leaky ReLU that keeps the second moment."""

    def __init__(self, in_channels: int, channels: int, style_dim: int, up: bool = False):
        super().__init__()
        self.conv = ModulatedConv2d(in_channels, channels, 3, style_dim, up=up)
        self.strength = nn.Parameter(torch.zeros(1))
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, h: Tensor, w: Tensor, noise: Tensor | None) -> Tensor:
        h = self.conv(h, w)
        if noise is not None:
            h = h + self.strength * noise
        return ROOT2 * leaky(h + self.bias)


class _ToRGB(nn.Module):
    """A modulated convolution of one pixel that keeps the size of the style, and a bias."""

    def __init__(self, in_channels: int, channels: int, style_dim: int):
        super().__init__()
        self.conv = ModulatedConv2d(in_channels, channels, 1, style_dim, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, h: Tensor, w: Tensor) -> Tensor:
        return self.conv(h, w) + self.bias


class SkipGenerator(nn.Module):
    """StyleGAN2's generator (Karras et al. 2020): every side adds to the doubled image so far.

    30,370,060 parameters at the paper's sizes. The style of a way out is also that of the next
    convolution.
    """

    def __init__(self, config: StyleGAN2Config):
        super().__init__()
        self.sides, channels, dim = config.sides, config.channels, config.style_dim
        self.num_layers = 2 * len(channels)
        self.noise_sides = noise_sides(self.sides, first=1)
        self.mapping = Mapping(config)
        self.constant = nn.Parameter(torch.randn(channels[0], SMALLEST, SMALLEST))
        layers = [_ModulatedLayer(channels[0], channels[0], dim)]
        for before, after in itertools.pairwise(channels):
            layers += [_ModulatedLayer(before, after, dim, up=True)]
            layers += [_ModulatedLayer(after, after, dim)]
        self.layers = nn.ModuleList(layers)
        self.to_rgb = nn.ModuleList(_ToRGB(c, config.shape[0], dim) for c in channels)

    def forward(self, z: Tensor) -> Tensor:
        """Images (B, C, S, S) of noise z (B, latent_dim), with one style and no noise maps."""
        w = self.mapping(z)[:, None].expand(-1, self.num_layers, -1)
        return self.synthesis(w, None)

    def synthesis(self, w: Tensor, noise: Noise | None) -> Tensor:
        """Images (B, C, S, S); arguments as of `StyleGenerator.synthesis`."""
        image, *parts = self.parts(w, noise)
        for part in parts:
            image = upsample(image) + part
        return image

    def parts(self, w: Tensor, noise: Noise | None) -> list[Tensor]:
        """Contribution of each side to the image, (B, C, 4, 4), (B, C, 8, 8), ..."""
        maps = noise or [None] * len(self.layers)
        h, parts = self.constant.expand(len(w), -1, -1, -1), []
        for i, (layer, each) in enumerate(zip(self.layers, maps, strict=True)):
            h = layer(h, w[:, i], each)
            if i % 2 == 0:
                parts.append(self.to_rgb[i // 2](h, w[:, i + 1]))
        return parts


@torch.no_grad()
def contributions(generator: SkipGenerator, w: Tensor, noise: Noise | None) -> Tensor:
    """Deviation of what each side adds to the image, by that of the whole image, (num_sides,).

    At first it is the small sides that make the image (Karras et al. 2020, figure 8; Foster 2023,
    figure 10-13).

    Args:
        w, noise: as of `SkipGenerator.synthesis`.
    """
    parts = generator.parts(w, noise)
    for i in range(len(parts) - 1):
        for _ in range(len(parts) - 1 - i):
            parts[i] = upsample(parts[i])
    return torch.stack([part.std() for part in parts]) / torch.stack(parts).sum(0).std()


class ResidualCritic(nn.Module):
    """StyleGAN2's critic (Karras et al. 2020): images (B, C, S, S) -> heights (B,).

    29,012,513 parameters at the paper's sizes.
    """

    def __init__(self, config: StyleGAN2Config):
        super().__init__()
        channels, self.std_group = config.channels, config.std_group
        last = channels[0]
        self.from_rgb = EqualisedConv2d(config.shape[0], channels[-1], 1, ROOT2)
        self.blocks = nn.ModuleList(
            _Residual(before, after) for before, after in itertools.pairwise(channels[::-1])
        )
        self.conv = EqualisedConv2d(last + bool(config.std_group), last, 3, ROOT2)
        self.dense = EqualisedLinear(last * SMALLEST**2, last, ROOT2)
        self.head = EqualisedLinear(last, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Heights (B,).

        Raises:
            ValueError: a batch that groups do not divide.
        """
        h = leaky(self.from_rgb(x))
        for block in self.blocks:
            h = block(h)
        if self.std_group:
            h = minibatch_std(h, self.std_group)
        return self.head(leaky(self.dense(leaky(self.conv(h)).flatten(1)))).flatten()


class _Residual(nn.Module):
    """Two convolutions beside one of a single pixel, sides halved; the sum over sqrt(2)."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.first = EqualisedConv2d(in_channels, in_channels, 3, ROOT2)
        self.second = EqualisedConv2d(in_channels, out_channels, 3, ROOT2, down=True)
        self.skip = EqualisedConv2d(in_channels, out_channels, 1, bias=False)

    def forward(self, h: Tensor) -> Tensor:
        through = leaky(self.second(leaky(self.first(h))))
        return (through + self.skip(downsample(h))) / math.sqrt(2)
