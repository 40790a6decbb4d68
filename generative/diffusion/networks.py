"""Networks that estimate noise: the book's U-Net for images, a perceptron for vectors."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.diffusion.config import PointDiffusionConfig, UNetConfig
from generative.diffusion.schedules import MAX_LOG_SNR
from generative.nets.waves import Waves
from generative.training.checks import at_least_float32

__all__ = ["DenoisingMLP", "ResidualBlock", "UNet", "sinusoidal_embedding"]


def sinusoidal_embedding(
    x: Tensor, dim: int = 32, min_frequency: float = 1.0, max_frequency: float = 1000.0
) -> Tensor:
    """Numbers (B,) -> (B, dim): sin(2 pi f x) for dim / 2 frequencies f, then the cosines.

    The frequencies go from the least to the largest by equal ratios (Foster 2023, chapter 8, after
    Vaswani et al. 2017).
    """
    ends = math.log(min_frequency), math.log(max_frequency)
    steps = torch.linspace(*ends, dim // 2, dtype=at_least_float32(x))
    # In bfloat16 an angle of some thousand would be off by whole turns.
    angles = 2 * math.pi * steps.exp().to(x.device) * x.to(steps.dtype)[:, None]
    return torch.cat([angles.sin(), angles.cos()], 1).to(x.dtype)


class DenoisingMLP(nn.Module):
    """x_t (B, D) and log_snr (B,) -> (B, D); every layer is told log_snr."""

    def __init__(self, config: PointDiffusionConfig):
        super().__init__()
        self.embedding_dim = config.embedding_dim
        self.waves = Waves(math.pi / 4, config.num_waves)
        widths = [config.dim * (1 + 2 * config.num_waves), *[config.hidden_dim] * config.num_hidden]
        pairs = list(itertools.pairwise(widths))
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in pairs)
        self.levels = nn.ModuleList(
            nn.Linear(config.embedding_dim, after, bias=False) for _, after in pairs
        )
        self.last = nn.Linear(config.hidden_dim, config.dim)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        # Waves that are slow in log_snr: what is right between two trained levels follows.
        u = (log_snr + MAX_LOG_SNR) / (2 * MAX_LOG_SNR)
        embedding = sinusoidal_embedding(u, self.embedding_dim, 0.25, 8.0)
        # Waves that are shorter than the noise would show nothing else.
        x = self.waves(x, (-log_snr).sigmoid().sqrt())
        for layer, level in zip(self.layers, self.levels, strict=True):
            x = F.silu(layer(x) + level(embedding))
        return self.last(x)


# ---------------------------------------------------------------------------------------------
# The U-Net
# ---------------------------------------------------------------------------------------------


class ResidualBlock(nn.Module):
    """Normalise, convolve, swish, convolve; plus what came in, by a 1x1 convolution if it is wider
    or narrower than what goes out."""

    def __init__(self, in_channels: int, channels: int, config: UNetConfig):
        super().__init__()
        self.shortcut = (
            nn.Identity() if in_channels == channels else nn.Conv2d(in_channels, channels, 1)
        )
        if config.norm == "batch":
            # The book's framework: momentum 0.99 of what was, epsilon 0.001; no scale, no shift.
            self.norm = nn.BatchNorm2d(in_channels, eps=1e-3, momentum=0.01, affine=False)
        else:
            self.norm = nn.GroupNorm(math.gcd(8, in_channels), in_channels)
        self.first = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.level = (
            nn.Linear(config.embedding_dim, channels, bias=False)
            if config.conditioning == "blocks"
            else None
        )
        self.dropout = config.dropout

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(B, C, H, W) and (B, embedding_dim) -> (B, channels, H, W)."""
        h = self.first(self.norm(x))
        if self.level is not None:
            h = h + self.level(embedding)[:, :, None, None]
        h = F.dropout(F.silu(h), self.dropout, self.training)
        return self.second(h) + self.shortcut(x)


class SelfAttention(nn.Module):
    """Every place looks at every other, and adds what it finds to itself; one head."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.GroupNorm(math.gcd(8, channels), channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).flatten(2).transpose(1, 2).chunk(3, 2)
        found = F.scaled_dot_product_attention(q, k, v)
        return x + self.out(found.transpose(1, 2).unflatten(2, x.shape[2:]))


class UNet(nn.Module):
    """Noisy images and their noise variance -> an image of the same shape, at first all zeros.

    Down by average pooling, up by bilinear interpolation; the outputs of all blocks on the way down
    are joined to the inputs of those on the way up, last in, first out.
    """

    def __init__(self, image_channels: int, config: UNetConfig):
        super().__init__()
        self.config = config
        *widths, bottom = config.channels
        self.stem = nn.Conv2d(image_channels, widths[0], 1)
        width, skips = widths[0] + config.embedding_dim, []
        self.down = nn.ModuleList()
        for channels in widths:
            for _ in range(config.depth):
                self.down.append(ResidualBlock(width, channels, config))
                skips.append(width := channels)
        self.bottom = nn.ModuleList()
        for _ in range(2):
            self.bottom.append(ResidualBlock(width, bottom, config))
            width = bottom
        self.attention = SelfAttention(bottom) if config.attention else None
        self.up = nn.ModuleList()
        for channels in reversed(widths):
            for _ in range(config.depth):
                self.up.append(ResidualBlock(width + skips.pop(), channels, config))
                width = channels
        self.last = nn.Conv2d(width, image_channels, 1)
        for layer in self.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                nn.init.xavier_uniform_(layer.weight)  # the book's framework begins so
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        nn.init.zeros_(self.last.weight)

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        """x_t (B, C, H, W) and log_snr (B,) -> (B, C, H, W)."""
        depth, frequency = self.config.depth, self.config.max_frequency
        variance = (-log_snr).sigmoid()
        embedding = sinusoidal_embedding(
            variance, self.config.embedding_dim, max_frequency=frequency
        )
        seen = embedding[:, :, None, None].expand(-1, -1, *x.shape[2:])
        x, skips = torch.cat([self.stem(x), seen], 1), []
        for i, block in enumerate(self.down):
            x = block(x, embedding)
            skips.append(x)
            if (i + 1) % depth == 0:
                x = F.avg_pool2d(x, 2)
        x = self.bottom[0](x, embedding)
        if self.attention is not None:
            x = self.attention(x)
        x = self.bottom[1](x, embedding)
        for i, block in enumerate(self.up):
            if i % depth == 0:
                x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = block(torch.cat([x, skips.pop()], 1), embedding)
        return self.last(x)
