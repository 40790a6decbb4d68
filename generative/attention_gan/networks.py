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
from generative.nets.residual import CriticBlock, ResidualGenerator

__all__ = ["AttentionCritic", "AttentionGenerator", "PlacewiseBlock"]


class AttentionGenerator(ResidualGenerator):
    """Noise (B, latent_dim), and labels (B,) if there are classes -> images (B, C, H, W), -1 to 1.

    Args:
        config: see `AttentionGANConfig`.
    """

    def __init__(self, config: AttentionGANConfig):
        before = len(config.widths) - config.attention_level
        width = (config.widths[-1], *config.widths[::-1])[before]
        super().__init__(
            config.shape, config.latent_dim, config.widths, config.num_classes, config.shared_dim,
            config.split_z, between=lambda: _attention(config, width), blocks_before=before,
        )  # fmt: skip


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
