"""Residual blocks of generators and critics, which double or halve the sides of feature maps.

The blocks of SAGAN and BigGAN (Zhang et al. 2019; Brock et al. 2019, figures 15 and 16).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.nets.attention import PooledAttention
from generative.nets.init import orthogonal_
from generative.nets.norms import ConditionalBatchNorm2d

__all__ = ["CriticBlock", "GeneratorBlock", "ResidualGenerator"]


class GeneratorBlock(nn.Module):
    """Two 3x3 convolutions behind conditional norms, between which the sides are doubled.

    (B, in, H, W) -> (B, out, 2H, 2W); beside them a 1x1 convolution, whose result is doubled: it
    commutes with repeated pixels and costs a quarter before them.

    Args:
        in_channels, out_channels: before and after.
        given_dim: width of the condition of both norms; 0 for none.
    """

    def __init__(self, in_channels: int, out_channels: int, given_dim: int = 0):
        super().__init__()
        self.norm1 = ConditionalBatchNorm2d(in_channels, given_dim)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = ConditionalBatchNorm2d(out_channels, given_dim)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.skip = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, given: Tensor | None = None) -> Tensor:
        h = F.interpolate(F.relu(self.norm1(x, given)), scale_factor=2)
        h = self.conv2(F.relu(self.norm2(self.conv1(h), given)))
        return h + F.interpolate(self.skip(x), scale_factor=2)


class CriticBlock(nn.Module):
    """Two 3x3 convolutions, then means of 2x2 places, without a norm.

    (B, in, H, W) -> (B, out, H/2, W/2); beside them a 1x1 convolution, or nothing where neither
    channels nor sides change.

    Args:
        in_channels, out_channels: before and after.
        halve: whether the sides are halved.
        first: the block sees an image, which has no activation before the first convolution.
    """

    def __init__(
        self, in_channels: int, out_channels: int, halve: bool = True, first: bool = False
    ):
        super().__init__()
        self.halve, self.first = halve, first
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        changes = halve or in_channels != out_channels
        self.skip = nn.Conv2d(in_channels, out_channels, 1) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv2(F.relu(self.conv1(x if self.first else F.relu(x))))
        if not self.halve:
            return h + self.skip(x)
        # A 1x1 convolution commutes with means of places, and costs a quarter behind them.
        return F.avg_pool2d(h, 2) + self.skip(F.avg_pool2d(x, 2))


class ResidualGenerator(nn.Module):
    """Noise (B, latent_dim), and labels (B,) if there are classes -> images (B, C, H, W), -1 to 1.

    Args:
        shape: of an image, (C, H, W).
        latent_dim: numbers of the noise.
        widths: feature maps of the blocks in reverse, each of which doubles the sides; the first
            maps are as wide as the last of these.
        num_classes: labels count from 0 to num_classes - 1; 0 for no labels.
        shared_dim: width of an embedding of the class that all norms share; 0 gives each norm a
            table of its own.
        split_z: give the first layer and each block a part of the noise, in place of all to the
            first.
        between: makes a layer between two blocks, such as attention; none if not given.
        blocks_before: blocks before that layer.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        latent_dim: int,
        widths: tuple[int, ...],
        num_classes: int = 0,
        shared_dim: int = 0,
        split_z: bool = False,
        between: Callable[[], nn.Module] = nn.Identity,
        blocks_before: int = 0,
    ):
        super().__init__()
        channels, *sides = shape
        outer = (widths[-1], *widths[::-1])
        self.num_classes, self.blocks_before = num_classes, blocks_before
        parts = len(widths) + 1 if split_z else 1
        self.part_dim = latent_dim // parts
        embedded = num_classes and shared_dim
        self.shared = nn.Embedding(num_classes, embedded) if embedded else None
        given_dim = (embedded or num_classes) + (self.part_dim if split_z else 0)
        self.small = (outer[0], *(side >> len(widths) for side in sides))
        self.first = nn.Linear(self.part_dim, self.small[0] * self.small[1] * self.small[2])
        self.blocks = nn.ModuleList(
            GeneratorBlock(*pair, given_dim) for pair in itertools.pairwise(outer)
        )
        self.attention = between()
        self.norm = ConditionalBatchNorm2d(outer[-1])
        self.last = nn.Conv2d(outer[-1], channels, 3, padding=1)
        orthogonal_(self)

    def forward(
        self, z: Tensor, labels: Tensor | None = None, maps: list[Tensor] | None = None
    ) -> Tensor:
        """Make images; `maps` gets the weights of attention appended, see `PooledAttention`."""
        return self.decode(z, None if labels is None else self.embed(labels), maps)

    def embed(self, labels: Tensor) -> Tensor:
        """Form in which the norms are given labels (B,): shared embeddings, or one-hot, (B, E)."""
        if self.shared is not None:
            return self.shared(labels)
        return F.one_hot(labels, self.num_classes).to(self.first.bias)

    def decode(
        self, z: Tensor, embedded: Tensor | None = None, maps: list[Tensor] | None = None
    ) -> Tensor:
        """Images of noise and of embedded labels, which may lie between those of two classes."""
        part, *parts = z.split(self.part_dim, 1)
        x = self.first(part).unflatten(1, self.small)
        for i, block in enumerate(self.blocks):
            if i == self.blocks_before:
                pooled = isinstance(self.attention, PooledAttention)
                x = self.attention(x, maps) if pooled else self.attention(x)
            given = [*([] if embedded is None else [embedded]), *parts[i : i + 1]]
            x = block(x, torch.cat(given, 1) if given else None)
        return self.last(F.relu(self.norm(x))).tanh()
