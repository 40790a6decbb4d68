"""Generator and critic of residual blocks with self-attention at one resolution, with a class.

For them images have values from -1 to 1. The layout is that of BigGAN (Brock et al. 2019, figures
15 and 16, table 4), of which SAGAN (Zhang et al. 2019) is the narrower form without a shared
embedding.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.attention_gan.config import AttentionGANConfig
from generative.nets.attention import PooledAttention
from generative.nets.init import orthogonal_
from generative.nets.norms import ConditionalBatchNorm2d
from generative.nets.residual import CriticBlock, GeneratorBlock

__all__ = ["AttentionCritic", "AttentionGenerator", "PlacewiseBlock"]


class AttentionGenerator(nn.Module):
    """Noise (B, latent_dim), and labels (B,) if there are classes -> images (B, C, H, W), -1 to 1.

    Args:
        config: see `AttentionGANConfig`.
    """

    def __init__(self, config: AttentionGANConfig):
        super().__init__()
        channels, *sides = config.shape
        widths = (config.widths[-1], *config.widths[::-1])
        self.num_classes = config.num_classes
        parts = len(config.widths) + 1 if config.split_z else 1
        self.part_dim = config.latent_dim // parts
        embedded = config.num_classes and config.shared_dim
        self.shared = nn.Embedding(config.num_classes, embedded) if embedded else None
        given_dim = (embedded or config.num_classes) + (self.part_dim if config.split_z else 0)
        self.small = (widths[0], *(side >> len(config.widths) for side in sides))
        self.first = nn.Linear(self.part_dim, self.small[0] * self.small[1] * self.small[2])
        self.blocks = nn.ModuleList(
            GeneratorBlock(*pair, given_dim) for pair in itertools.pairwise(widths)
        )
        self.blocks_before = len(self.blocks) - config.attention_level
        self.attention = _attention(config, widths[self.blocks_before])
        self.norm = ConditionalBatchNorm2d(widths[-1])
        self.last = nn.Conv2d(widths[-1], channels, 3, padding=1)
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


class AttentionCritic(nn.Module):
    """Images (B, C, H, W), -1 to 1, and labels (B,) if there are classes -> heights (B,).

    height(x, label) = head(features(x)) + <vector of the label, features(x)>, where features are
    sums over all places (Miyato & Koyama 2018).

    Args:
        config: see `AttentionGANConfig`.
    """

    def __init__(self, config: AttentionGANConfig):
        super().__init__()
        channels = (config.shape[0], *config.widths)
        blocks = [
            CriticBlock(before, after, first=not i)
            for i, (before, after) in enumerate(itertools.pairwise(channels))
        ]
        width = channels[-1]
        blocks.append(CriticBlock(width, width, halve=False))
        level = config.attention_level
        attention = _attention(config, channels[level])
        self.blocks = nn.Sequential(*blocks[:level], attention, *blocks[level:])
        self.head = nn.Linear(width, 1)
        self.vectors = nn.Embedding(config.num_classes, width) if config.num_classes else None
        orthogonal_(self)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        features = F.relu(self.blocks(x)).sum((2, 3))
        heights = self.head(features)[:, 0]
        if self.vectors is None or labels is None:
            return heights
        return heights + (self.vectors(labels) * features).sum(1)


class PlacewiseBlock(nn.Module):
    """Residual block that sees each place alone, with as many weights as `PooledAttention`.

    y = x + gamma * out(relu(inner(x))), 1x1 convolutions by way of 5/8 of the channels.

    Args:
        channels: of the feature maps.
    """

    def __init__(self, channels: int):
        super().__init__()
        inner = max(5 * channels // 8, 1)
        self.inner = nn.Conv2d(channels, inner, 1, bias=False)
        self.out = nn.Conv2d(inner, channels, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.gamma * self.out(F.relu(self.inner(x)))


def _attention(config: AttentionGANConfig, channels: int) -> nn.Module:
    kinds = {"pooled": PooledAttention, "residual": PlacewiseBlock, "none": lambda _: nn.Identity()}
    return kinds[config.attention](channels)
