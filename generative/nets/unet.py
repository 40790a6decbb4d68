"""U-Net: images at falling and then rising resolutions, with a noise level and a context.

    network = UNet(3, UNetConfig(channels=(32, 64, 96), attention=(2,)))
    network(x_t, log_snr)                        # (B, 3, H, W), (B,) -> (B, 3, H, W)

A network of next frames sees the frames before as further channels of x and the action as context:

    network = UNet(3 * 5, config, out_channels=3, context_dim=16)
    network(torch.cat([x_t, earlier], 1), log_snr, embedded_action)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.nets.attention import SpatialAttention
from generative.nets.config import UNetConfig
from generative.nets.embeddings import sinusoidal_embedding
from generative.nets.init import glorot_

__all__ = ["ResidualBlock", "UNet", "UNetConfig"]


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


class UNet(nn.Module):
    """Noisy images, their noise level and a context -> images, at first all zeros.

    Down by average pooling, up by bilinear interpolation; the outputs of all blocks on the way down
    are joined to the inputs of those on the way up, last in, first out.

    Args:
        in_channels: of x; more than out_channels where images to look at are joined to it.
        config: see `UNetConfig`.
        out_channels: of the result; in_channels if not given.
        context_dim: width of the context; 0 for none.
    """

    def __init__(
        self,
        in_channels: int,
        config: UNetConfig,
        out_channels: int | None = None,
        context_dim: int = 0,
    ):
        super().__init__()
        self.config, self.context_dim = config, context_dim
        *widths, bottom = config.channels
        self.stem = nn.Conv2d(in_channels, widths[0], 1)
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
        levels = range(len(widths))
        self.attention = self._attention(bottom, len(widths))
        self.up = nn.ModuleList()
        for channels in reversed(widths):
            for _ in range(config.depth):
                self.up.append(ResidualBlock(width + skips.pop(), channels, config))
                width = channels
        self.last = nn.Conv2d(width, out_channels or in_channels, 1)
        # Behind the last block of a resolution, on either way.
        self.down_attention = nn.ModuleDict(
            {str(i): part for i in levels if (part := self._attention(widths[i], i))}
        )
        self.up_attention = nn.ModuleDict(
            {str(i): part for i in levels if (part := self._attention(widths[i], i))}
        )
        self.told = nn.Linear(context_dim, config.embedding_dim) if context_dim else None
        glorot_(self)
        nn.init.zeros_(self.last.weight)

    def forward(self, x: Tensor, log_snr: Tensor, context: Tensor | None = None) -> Tensor:
        """x_t (B, in_channels, H, W) and log_snr (B,) -> (B, out_channels, H, W).

        Args:
            context: (B, context_dim), joined to the noise level; or a sequence (B, S, context_dim)
                whose mean is, and which the places of the resolutions with attention look at.
        Raises:
            ValueError: a context of another width, none where one is needed, or one too many.
        """
        self._check(context)
        depth, frequency = self.config.depth, self.config.max_frequency
        variance = (-log_snr).sigmoid()
        embedding = sinusoidal_embedding(
            variance, self.config.embedding_dim, max_frequency=frequency
        )
        sequence = None
        if self.told is not None and context is not None:
            sequence = context if context.dim() == 3 else context[:, None]
            embedding = embedding + self.told(sequence.mean(1))
        seen = embedding[:, :, None, None].expand(-1, -1, *x.shape[2:])
        x, skips = torch.cat([self.stem(x), seen], 1), []
        for i, block in enumerate(self.down):
            x = block(x, embedding)
            level, is_last = i // depth, (i + 1) % depth == 0
            if is_last and str(level) in self.down_attention:
                x = self.down_attention[str(level)](x, sequence)
            skips.append(x)
            if is_last:
                x = F.avg_pool2d(x, 2)
        x = self.bottom[0](x, embedding)
        if self.attention is not None:
            x = self.attention(x, sequence)
        x = self.bottom[1](x, embedding)
        for i, block in enumerate(self.up):
            if i % depth == 0:
                x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = block(torch.cat([x, skips.pop()], 1), embedding)
            level = len(self.config.channels) - 2 - i // depth
            if (i + 1) % depth == 0 and str(level) in self.up_attention:
                x = self.up_attention[str(level)](x, sequence)
        return self.last(x)

    def _attention(self, channels: int, level: int) -> SpatialAttention | None:
        if level not in self.config.attention:
            return None
        return SpatialAttention(channels, self.context_dim)

    def _check(self, context: Tensor | None) -> None:
        if (context is None) != (self.context_dim == 0):
            got = "no context" if context is None else f"a context {tuple(context.shape)}"
            raise ValueError(f"got {got}; this U-Net was made with context_dim {self.context_dim}")
        if context is not None and (
            context.dim() not in (2, 3) or context.shape[-1] != self.context_dim
        ):
            raise ValueError(
                f"got a context {tuple(context.shape)}; needed is (B, {self.context_dim}) or (B, "
                f"S, {self.context_dim})"
            )
