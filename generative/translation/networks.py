"""Generators of images from images, values from -1 to 1: U-Net of pix2pix, ResNet of CycleGAN."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.nets.init import normal_
from generative.translation.config import Pix2PixConfig

__all__ = ["ResNetGenerator", "UNetGenerator"]


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
        widths = [config.width * min(2**i, 8) for i in range(config.num_levels)]
        self.down = nn.ModuleList(
            [nn.Conv2d(config.source_channels, widths[0], 4, 2, 1, bias=False)]
        )
        for i, (before, after) in enumerate(itertools.pairwise(widths), 1):
            block = nn.Sequential(nn.LeakyReLU(0.2), nn.Conv2d(before, after, 4, 2, 1, bias=False))
            if i < len(widths) - 1:  # at the bottom a map may be a single pixel
                block.append(nn.BatchNorm2d(after))
            self.down.append(block)
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
        skips = []
        for block in self.down:
            x = block(x)
            skips.append(x)
        skips.pop()
        for i, block in enumerate(self.up):
            x = block(x)
            if i < self.num_dropout and self.dropout:
                kept = torch.rand(x.shape, generator=generator, device=x.device, dtype=x.dtype)
                x = x * (kept >= self.dropout) / (1 - self.dropout)
            if skips:
                x = torch.cat([skips.pop(), x], 1)
        return x


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
