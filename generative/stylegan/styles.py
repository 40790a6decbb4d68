"""StyleGAN's generator: noise becomes a style w, and w sets the statistics of every layer."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from generative.nets.equalised import EqualisedConv2d, EqualisedLinear, pixel_norm
from generative.stylegan.config import SMALLEST, StyleGANConfig
from generative.stylegan.growing import doubled, level_of
from generative.stylegan.progan import ROOT2, faded_image, leaky

__all__ = ["Mapping", "Noise", "StyleGenerator", "adain", "noise_sides"]

Noise: TypeAlias = Sequence[Tensor | None]
"""A map (B, 1, s, s) for each layer that noise is added to; None for a layer without."""


def adain(x: Tensor, scale: Tensor, shift: Tensor, eps: float = 1e-8) -> Tensor:
    """Give each feature map of each example a deviation and a mean (Huang & Belongie 2017).

    Args:
        x: (B, C, H, W), more than one pixel.
        scale, shift: deviation and mean, (B, C).
    Raises:
        ValueError: maps of one pixel, which have no deviation.
    """
    if x.shape[2] * x.shape[3] < 2:
        raise ValueError(f"got maps {tuple(x.shape)}; a map of one pixel has no deviation")
    centred = x - x.mean((2, 3), keepdim=True)
    normed = centred * (centred.square().mean((2, 3), keepdim=True) + eps).rsqrt()
    return scale[:, :, None, None] * normed + shift[:, :, None, None]


class Mapping(nn.Module):
    """Noise z (B, latent_dim) -> style w (B, style_dim): a network of linear layers that learns
    slowly (`StyleGANConfig.mapping_lr`)."""

    def __init__(self, config: StyleGANConfig):
        super().__init__()
        widths = (config.latent_dim, *[config.style_dim] * config.mapping_layers)
        self.layers = nn.ModuleList(
            EqualisedLinear(before, after, ROOT2, lr_multiplier=config.mapping_lr)
            for before, after in itertools.pairwise(widths)
        )

    def forward(self, z: Tensor) -> Tensor:
        h = pixel_norm(z)
        for layer in self.layers:
            h = leaky(layer(h))
        return h


def noise_sides(sides: tuple[int, ...], first: int) -> list[int]:
    """Side of the noise of each layer: `first` layers at side 4, then two for each side."""
    return [sides[0]] * first + [side for side in sides[1:] for _ in range(2)]


class _StyleLayer(nn.Module):
    """A convolution, noise, a leaky ReLU, and AdaIN by w. Without in_channels, no convolution."""

    def __init__(self, in_channels: int, channels: int, style_dim: int, up: bool = False):
        super().__init__()
        self.conv = EqualisedConv2d(in_channels, channels, 3, ROOT2) if in_channels else None
        self.strength = nn.Parameter(torch.zeros(channels, 1, 1))
        self.affine = EqualisedLinear(style_dim, 2 * channels)
        self.up = up
        assert self.affine.bias is not None
        nn.init.ones_(self.affine.bias[:channels])  # deviation 1, mean 0

    def forward(self, h: Tensor, w: Tensor, noise: Tensor | None) -> Tensor:
        if self.conv is not None:
            h = self.conv(doubled(h) if self.up else h)
        if noise is not None:
            h = h + self.strength * noise
        scale, shift = self.affine(w).chunk(2, 1)
        return adain(leaky(h), scale, shift)


class StyleGenerator(nn.Module):
    """StyleGAN's generator, which grows (Karras et al. 2019); the order of its layers is the
    book's.

    26,211,507 parameters at the paper's sizes with the last way out alone. It begins at 4x4, the
    paper's training at 8x8.
    """

    def __init__(self, config: StyleGANConfig):
        super().__init__()
        self.sides, channels, dim = config.sides, config.channels, config.style_dim
        self.num_layers = 2 * len(channels)
        self.noise_sides = noise_sides(self.sides, first=2)
        self.mapping = Mapping(config)
        self.constant = nn.Parameter(torch.randn(channels[0], SMALLEST, SMALLEST))
        layers = [_StyleLayer(0, channels[0], dim), _StyleLayer(channels[0], channels[0], dim)]
        for before, after in itertools.pairwise(channels):
            layers += [_StyleLayer(before, after, dim, up=True), _StyleLayer(after, after, dim)]
        self.layers = nn.ModuleList(layers)
        self.to_rgb = nn.ModuleList(EqualisedConv2d(c, config.shape[0], 1) for c in channels)

    def forward(self, z: Tensor, side: int | None = None, alpha: float = 1.0) -> Tensor:
        """Images (B, C, side, side) of z (B, latent_dim), with one style and no noise maps."""
        w = self.mapping(z)[:, None].expand(-1, self.num_layers, -1)
        return self.synthesis(w, None, side, alpha)

    def synthesis(
        self, w: Tensor, noise: Noise | None, side: int | None = None, alpha: float = 1.0
    ) -> Tensor:
        """Images (B, C, side, side).

        Args:
            w: a style for each layer, (B, num_layers, style_dim).
            noise: see `Noise`; None adds none.
        """
        maps = noise or [None] * self.num_layers

        def pair(i: int, h: Tensor) -> Tensor:
            for j in (2 * i, 2 * i + 1):
                h = self.layers[j](h, w[:, j], maps[j])
            return h

        level = level_of(side or self.sides[-1], self.sides)
        h = pair(0, self.constant.expand(len(w), -1, -1, -1))
        blocks = [lambda h, i=i: pair(i, h) for i in range(1, level + 1)]
        return faded_image(h, blocks, list(self.to_rgb), level, alpha)
