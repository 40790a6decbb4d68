"""Generators of images from images, values from -1 to 1: U-Net of pix2pix, ResNet of CycleGAN."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.nets.init import normal_
from generative.nets.norms import ConditionalBatchNorm2d
from generative.translation.config import Pix2PixConfig

__all__ = ["NoiseUNetGenerator", "ResNetGenerator", "UNetGenerator"]

NOISE_WIDTH = 64
"""Width of the layers that read the noise."""


class UNetGenerator(nn.Module):
    """Source (B, C', H, W) -> image (B, C, H, W), both from -1 to 1.

    On the way up every block sees the map of its size from the way down, so that edges need not
    pass the narrow middle (Isola et al. 2017, section 3.2.1). 54,413,955 parameters at the
    published sizes.

    Args:
        config: see `Pix2PixConfig`.
    """

    def __init__(self, config: Pix2PixConfig):
        super().__init__()
        self.dropout, self.num_dropout = config.dropout, config.num_dropout
        widths = _widths(config)
        self.down = _way_down(config.source_channels, widths)
        self.up, below = nn.ModuleList(), widths[-1]
        for after in widths[-2::-1]:
            convolution = nn.ConvTranspose2d(below, after, 4, 2, 1, bias=False)
            self.up.append(nn.Sequential(nn.ReLU(), convolution, nn.BatchNorm2d(after)))
            below = 2 * after
        last = nn.ConvTranspose2d(below, config.shape[0], 4, 2, 1)
        self.up.append(nn.Sequential(nn.ReLU(), last, nn.Tanh()))
        normal_(self)

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Translate x; `generator` draws which features are left out, in training or not."""
        x, skips = _go_down(self.down, x)
        for i, block in enumerate(self.up):
            x = block(x)
            if i < self.num_dropout and self.dropout:
                kept = torch.rand(x.shape, generator=generator, device=x.device, dtype=x.dtype)
                x = x * (kept >= self.dropout) / (1 - self.dropout)
            if skips:
                x = torch.cat([skips.pop(), x], 1)
        return x


class NoiseUNetGenerator(nn.Module):
    """The same whose norms on the way up are told noise, and which sees the source at its end.

    Dropout of a U-Net hardly changes what it makes (Isola et al. 2017, section 3.2.1). Scales and
    shifts of whole maps do, and they are the same at all places, as the colour of a thing is. Of
    numbers that are -1 or 1 there is nothing between two draws, where an image would be between
    two images.

    Args:
        config: see `Pix2PixConfig`; noise_dim is not 0.
    """

    def __init__(self, config: Pix2PixConfig):
        super().__init__()
        self.noise_dim, widths = config.noise_dim, _widths(config)
        self.down = _way_down(config.source_channels, widths)
        self.up, self.norms, below = nn.ModuleList(), nn.ModuleList(), widths[-1]
        for after in widths[-2::-1]:
            self.up.append(nn.ConvTranspose2d(below, after, 4, 2, 1, bias=False))
            self.norms.append(ConditionalBatchNorm2d(after, NOISE_WIDTH))
            below = 2 * after
        width = widths[0]
        self.up.append(nn.ConvTranspose2d(below, width, 4, 2, 1, bias=False))
        self.mix = nn.Conv2d(width + config.source_channels, width, 3, padding=1, bias=False)
        self.norms.extend(ConditionalBatchNorm2d(width, NOISE_WIDTH) for _ in range(2))
        self.last = nn.Conv2d(width, config.shape[0], 3, padding=1)
        normal_(self)
        # What the noise is told by begins as wide as in other networks: from 0.02 it hardly moves.
        self.read = nn.Sequential(
            nn.Linear(self.noise_dim, NOISE_WIDTH),
            nn.LeakyReLU(0.2),
            nn.Linear(NOISE_WIDTH, NOISE_WIDTH),
            nn.LeakyReLU(0.2),
        )
        for layer in self.norms.modules():
            if isinstance(layer, nn.Linear):
                layer.reset_parameters()

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Translate x; `generator` draws the noise, in training or not."""
        drawn = torch.rand(len(x), self.noise_dim, generator=generator, device=x.device)
        told = self.read(torch.where(drawn < 0.5, -1.0, 1.0).to(x.dtype))
        source = x
        x, skips = _go_down(self.down, x)
        for block, norm in zip(self.up, self.norms[:-1], strict=True):
            x = norm(block(F.relu(x)), told)
            if skips:
                x = torch.cat([skips.pop(), x], 1)
        x = self.mix(torch.cat([source, F.relu(x)], 1))
        return torch.tanh(self.last(F.relu(self.norms[-1](x, told))))


def _widths(config: Pix2PixConfig) -> list[int]:
    return [config.width * min(2**i, 8) for i in range(config.num_levels)]


def _way_down(channels: int, widths: list[int]) -> nn.ModuleList:
    """Convolutions that halve the sides, behind activations, with norms but at both ends."""
    down = nn.ModuleList([nn.Conv2d(channels, widths[0], 4, 2, 1, bias=False)])
    for i, (before, after) in enumerate(itertools.pairwise(widths), 1):
        block = nn.Sequential(nn.LeakyReLU(0.2), nn.Conv2d(before, after, 4, 2, 1, bias=False))
        if i < len(widths) - 1:  # at the bottom a map may be a single pixel
            block.append(nn.BatchNorm2d(after))
        down.append(block)
    return down


def _go_down(down: nn.ModuleList, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The lowest map, and those above it from the largest on."""
    maps = []
    for block in down:
        x = block(x)
        maps.append(x)
    return x, maps[:-1]


class ResNetGenerator(nn.Module):
    """Images (B, C, H, W) -> images of the other set, both from -1 to 1.

    Instance norm without weights, so that an image is translated by itself (Johnson et al. 2016;
    Zhu et al. 2017). 11,378,179 parameters at the published sizes.

    Args:
        channels: of both images.
        width: feature maps of the first convolution.
        num_blocks: residual blocks.
    """

    def __init__(self, channels: int = 3, width: int = 64, num_blocks: int = 9):
        super().__init__()
        self.layers = nn.Sequential(nn.ReflectionPad2d(3), nn.Conv2d(channels, width, 7))
        self._normalised(width)
        for before, after in ((width, 2 * width), (2 * width, 4 * width)):
            self.layers.append(nn.Conv2d(before, after, 3, 2, 1))
            self._normalised(after)
        for _ in range(num_blocks):
            self.layers.append(_ResidualBlock(4 * width))
        for before, after in ((4 * width, 2 * width), (2 * width, width)):
            self.layers.append(nn.ConvTranspose2d(before, after, 3, 2, 1, output_padding=1))
            self._normalised(after)
        self.layers.extend([nn.ReflectionPad2d(3), nn.Conv2d(width, channels, 7), nn.Tanh()])
        normal_(self)

    def _normalised(self, width: int) -> None:
        self.layers.extend([nn.InstanceNorm2d(width), nn.ReLU()])

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class _ResidualBlock(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.first, self.second = nn.Conv2d(width, width, 3), nn.Conv2d(width, width, 3)
        self.norm = nn.InstanceNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm(self.first(F.pad(x, (1, 1, 1, 1), "reflect"))))
        return x + self.norm(self.second(F.pad(y, (1, 1, 1, 1), "reflect")))
