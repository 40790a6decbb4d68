"""U-Net that is told a text: tokens that every attention looks at, a vector, an image to look at.

    network = ConditionalUNet(3, ConditionalUNetConfig())
    told = Condition(tokens=text, mask=mask)             # (B, S, 64), bool (B, S)
    network(x_t, log_snr, told)                          # (B, 3, H, W), (B,) -> (B, 3, H, W)

Every residual branch and the network itself end in zeros, so that a new network gives zeros and a
loss of the noise begins at its mean square, 1 (Dhariwal & Nichol 2021).

`encode` is the way down with the middle, and `decode` the way up: another network can add to what
goes from one to the other (`generative.text_to_image.control`).
"""

from __future__ import annotations

import math
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.nets.attention import MultiHeadAttention
from generative.nets.config import ConditionalUNetConfig
from generative.nets.embeddings import sinusoidal_embedding
from generative.nets.init import zero_

__all__ = ["Condition", "ConditionalUNet", "ConditionalUNetConfig", "Encoded", "LevelEmbedding"]

REACH = 14.0
"""Log signal-to-noise ratios are embedded from minus this to this."""


class Condition(NamedTuple):
    """Condition of a network beside the noise level, for B examples; None for each absent part."""

    tokens: Tensor | None = None
    """Sequence to look at, (B, S, context_dim)."""
    mask: Tensor | None = None
    """bool (B, S), True at tokens; the others have no influence. None: all are tokens."""
    vector: Tensor | None = None
    """Vector told to every block, (B, vector_dim)."""
    image: Tensor | None = None
    """Image to look at, joined to the noisy one as further channels, (B, C, H, W)."""
    level: Tensor | None = None
    """Noise level of that image, a log_snr (B,)."""


class Encoded(NamedTuple):
    """Result of the way down: what the way up joins to its own, and where it begins."""

    middle: Tensor
    """(B, C, h, w) at the lowest resolution."""
    skips: list[Tensor]
    """Outputs on the way down, in their order."""


class LevelEmbedding(nn.Module):
    """log_snr (B,) -> (B, 4 width): sines and cosines, and two linear maps with SiLU between."""

    def __init__(self, width: int):
        super().__init__()
        self.width = width
        self.maps = nn.Sequential(
            nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, 4 * width)
        )

    def forward(self, log_snr: Tensor) -> Tensor:
        """(B,) -> (B, 4 width)."""
        # Waves that are slow in log_snr: what is right between two trained levels follows.
        u = (log_snr + REACH) / (2 * REACH)
        return self.maps(sinusoidal_embedding(u, self.width, 0.25, 16.0))


class ResidualBlock(nn.Module):
    """Norm, SiLU, convolution, twice; plus what came in, by a 1x1 convolution if it is wider or
    narrower than what goes out. The second convolution begins as zeros."""

    def __init__(self, in_channels: int, channels: int, config: ConditionalUNetConfig):
        super().__init__()
        self.scale_shift = config.scale_shift
        self.norm = group_norm(in_channels)
        self.first = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.level = nn.Linear(4 * config.width, channels * (2 if config.scale_shift else 1))
        self.second_norm = group_norm(channels)
        self.dropout = nn.Dropout(config.dropout)
        self.second = zero_(nn.Conv2d(channels, channels, 3, padding=1))
        self.shortcut = (
            nn.Identity() if in_channels == channels else nn.Conv2d(in_channels, channels, 1)
        )

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(B, C, H, W) and (B, 4 width) -> (B, channels, H, W)."""
        h = self.first(F.silu(self.norm(x)))
        level = self.level(F.silu(embedding))[:, :, None, None]
        if self.scale_shift:
            scale, shift = level.chunk(2, 1)
            h = self.second_norm(h) * (1 + scale) + shift
        else:
            h = self.second_norm(h + level)
        return self.second(self.dropout(F.silu(h))) + self.shortcut(x)


class PlaceAttention(nn.Module):
    """Self-attention between places, then attention to tokens, each added to its input; both begin
    by adding zeros."""

    def __init__(self, channels: int, config: ConditionalUNetConfig):
        super().__init__()
        self.norm = group_norm(channels)
        self.own = _attention(channels, config)
        self.cross_norm = group_norm(channels) if config.context_dim else None
        self.cross = (
            _attention(channels, config, config.context_dim) if config.context_dim else None
        )

    def forward(self, x: Tensor, told: Condition, maps: list[Tensor] | None = None) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        x = x + _as_image(self.own(_as_places(self.norm(x))), x)
        if self.cross is None or self.cross_norm is None:
            return x
        seen = look(self.cross, _as_places(self.cross_norm(x)), told, maps)
        return x + _as_image(seen, x)


class TransformerAttention(nn.Module):
    """Transformer block over places between two 1x1 convolutions (Rombach et al. 2022): self-
    attention, attention to tokens, a gated feed-forward network; the last convolution begins as
    zeros."""

    def __init__(self, channels: int, config: ConditionalUNetConfig):
        super().__init__()
        self.norm = nn.GroupNorm(_groups(channels), channels, eps=1e-6)
        self.first = nn.Conv2d(channels, channels, 1)
        self.own_norm = nn.LayerNorm(channels)
        self.own = _attention(channels, config, bias=False, zero=False)
        dim = config.context_dim
        self.cross_norm = nn.LayerNorm(channels) if dim else None
        self.cross = _attention(channels, config, dim, bias=False, zero=False) if dim else None
        self.inner_norm = nn.LayerNorm(channels)
        self.inner = nn.Linear(channels, 8 * channels)
        self.outer = nn.Linear(4 * channels, channels)
        self.last = zero_(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor, told: Condition, maps: list[Tensor] | None = None) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        h = _as_places(self.first(self.norm(x)))
        h = h + self.own(self.own_norm(h))
        if self.cross is not None and self.cross_norm is not None:
            h = h + look(self.cross, self.cross_norm(h), told, maps)
        value, gate = self.inner(self.inner_norm(h)).chunk(2, 2)
        h = h + self.outer(value * F.gelu(gate))
        return x + self.last(_as_image(h, x))


class Stage(nn.Module):
    """A residual block, and the attention behind it if there is one."""

    takes_muon: ClassVar[bool] = True
    """Its matrices and convolutions stand between others, so that Muon may move them."""

    def __init__(self, in_channels: int, channels: int, config: ConditionalUNetConfig, sees: bool):
        super().__init__()
        self.block = ResidualBlock(in_channels, channels, config)
        kind = TransformerAttention if config.transformer else PlaceAttention
        self.attention = kind(channels, config) if sees else None

    def forward(
        self, x: Tensor, embedding: Tensor, told: Condition, maps: list[Tensor] | None = None
    ) -> Tensor:
        """(B, C, H, W) -> (B, channels, H, W)."""
        x = self.block(x, embedding)
        return x if self.attention is None else self.attention(x, told, maps)


class Level(nn.Module):
    """Stages of one resolution, and the convolution that changes the sides, if they change."""

    def __init__(self, stages: list[nn.Module], resample: nn.Conv2d | None):
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.resample: nn.Conv2d | None = resample


class ConditionalUNet(nn.Module):
    """Noisy images, their noise level and a `Condition` -> images, at first all zeros.

    Args:
        in_channels: of x, with those of an image to look at.
        config: see `ConditionalUNetConfig`.
        out_channels: of the result; in_channels if not given.
    """

    def __init__(
        self, in_channels: int, config: ConditionalUNetConfig, out_channels: int | None = None
    ):
        super().__init__()
        self.config = config
        widths = [config.width * multiplier for multiplier in config.multipliers]
        last, wide, pixels = len(widths) - 1, 4 * config.width, config.patch**2
        self.level = LevelEmbedding(config.width)
        self.image_level = LevelEmbedding(config.width) if config.told_level else None
        self.vector = nn.Linear(config.vector_dim, wide) if config.vector_dim else None
        self.in_channels = in_channels
        self.stem = nn.Conv2d(in_channels * pixels, config.width, 3, padding=1)
        self.skip_channels = [config.width]
        """Channels of each of `Encoded.skips`."""

        width, self.down = config.width, nn.ModuleList()
        for i, channels in enumerate(widths):
            halve = nn.Conv2d(width, width, 3, 2, 1) if config.efficient else None
            stages: list[nn.Module] = []
            for _ in range(config.blocks[i]):
                stages.append(Stage(width, channels, config, i in config.attention))
                self.skip_channels.append(width := channels)
            if not config.efficient and i < last:
                halve = nn.Conv2d(width, width, 3, 2, 1)
                self.skip_channels.append(width)
            self.down.append(Level(stages, halve))
        self.middle = nn.ModuleList(
            [Stage(width, width, config, True), Stage(width, width, config, False)]
        )
        self.middle_channels = width

        left, self.up = list(self.skip_channels), nn.ModuleList()
        for i, channels in reversed(list(enumerate(widths))):
            stages = []
            for _ in range(config.blocks[i] + (not config.efficient)):
                stages.append(Stage(width + left.pop(), channels, config, i in config.attention))
                width = channels
            double = None
            if config.efficient or i:
                # Behind the blocks of the Efficient U-Net comes the width of the next ones.
                after = widths[max(0, i - 1)] if config.efficient else width
                double = nn.Conv2d(width, after, 3, padding=1)
                width = after
            self.up.append(Level(stages, double))
        # No block of the Efficient U-Net has seen the whole image; its first convolution has.
        width += left.pop() if config.efficient else 0
        self.last_norm = group_norm(width)
        last_channels = (out_channels or in_channels) * pixels
        self.last = zero_(nn.Conv2d(width, last_channels, 3, padding=1))

    def forward(
        self,
        x: Tensor,
        log_snr: Tensor,
        condition: Condition | None = None,
        maps: list[Tensor] | None = None,
    ) -> Tensor:
        """x_t (B, in_channels, H, W) and log_snr (B,) -> (B, out_channels, H, W).

        Args:
            condition: see `Condition`; its image is joined to x.
            maps: gets the weights of every attention to tokens appended, (B, heads, H' W', S).
        Raises:
            ValueError: a part of the condition is missing, one too many, or of another shape.
        """
        told = condition or Condition()
        embedding = self.embed(log_snr, told)
        encoded = self.encode(self.start(x, told), embedding, told, maps)
        return self.decode(encoded, embedding, told, maps)

    def embed(self, log_snr: Tensor, told: Condition) -> Tensor:
        """Embedding of the noise level, the vector and the level of an image, (B, 4 width).

        Raises:
            ValueError: see `forward`.
        """
        self._check(told, len(log_snr))
        embedding = self.level(log_snr)
        if self.vector is not None and told.vector is not None:
            embedding = embedding + self.vector(told.vector)
        if self.image_level is not None and told.level is not None:
            embedding = embedding + self.image_level(told.level)
        return embedding

    def start(self, x: Tensor, told: Condition) -> Tensor:
        """First feature maps of x_t (B, C, H, W) with the image to look at, (B, width, H, W).

        Raises:
            ValueError: channels in all are not in_channels, or the sides cannot be halved.
        """
        if told.image is not None:
            x = torch.cat([x, told.image], 1)
        if x.shape[1] != self.in_channels:
            raise ValueError(
                f"got x_t with {x.shape[1]} channels, those of an image to look at included; this "
                f"U-Net takes {self.in_channels}"
            )
        if any(side % self.config.fold for side in x.shape[2:]):
            raise ValueError(
                f"got x_t of {x.shape[2]}x{x.shape[3]} pixels; this U-Net needs sides that "
                f"{self.config.fold} divides"
            )
        return self.stem(_to_patches(x, self.config.patch))

    def encode(
        self, x: Tensor, embedding: Tensor, told: Condition, maps: list[Tensor] | None = None
    ) -> Encoded:
        """The way down and the middle, from the output of `start`."""
        skips, efficient = [x], self.config.efficient
        for level in self.down:
            assert isinstance(level, Level)
            if efficient and level.resample is not None:
                x = level.resample(x)
            for stage in level.stages:
                x = stage(x, embedding, told, maps)
                skips.append(x)
            if not efficient and level.resample is not None:
                x = level.resample(x)
                skips.append(x)
        for stage in self.middle:
            x = stage(x, embedding, told, maps)
        return Encoded(x, skips)

    def decode(
        self,
        encoded: Encoded,
        embedding: Tensor,
        told: Condition,
        maps: list[Tensor] | None = None,
    ) -> Tensor:
        """The way up, from the output of `encode` -> (B, out_channels, H, W)."""
        scale = math.sqrt(0.5) if self.config.scale_skips else 1.0
        x, skips = encoded.middle, list(encoded.skips)
        for level in self.up:
            assert isinstance(level, Level)
            for stage in level.stages:
                x = stage(torch.cat([x, scale * skips.pop()], 1), embedding, told, maps)
            if level.resample is not None:
                x = level.resample(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        if skips:
            x = torch.cat([x, scale * skips.pop()], 1)
        return _from_patches(self.last(F.silu(self.last_norm(x))), self.config.patch)

    def _check(self, told: Condition, n: int) -> None:
        config = self.config
        parts = (
            ("tokens", told.tokens, config.context_dim, f"(B, S, {config.context_dim})", 3),
            ("a vector", told.vector, config.vector_dim, f"(B, {config.vector_dim})", 2),
        )
        for what, got, dim, wanted, num_dims in parts:
            if (got is None) != (dim == 0) or (
                got is not None and (got.dim() != num_dims or (len(got), got.shape[-1]) != (n, dim))
            ):
                shape = "none" if got is None else str(tuple(got.shape))
                needed = wanted if dim else "none"
                raise ValueError(
                    f"got {what} in the condition: {shape}; this U-Net needs {needed}, B = {n}"
                )
        mask = told.mask
        if mask is not None and (
            told.tokens is None or mask.dtype != torch.bool or mask.shape != told.tokens.shape[:2]
        ):
            raise ValueError(
                f"got a mask {tuple(mask.shape)} of {mask.dtype}; it has to be bool (B, S), True "
                "at the tokens of the condition"
            )
        if (told.level is None) != (self.image_level is None):
            what = "no noise level" if told.level is None else "a noise level"
            raise ValueError(f"got {what} of an image; told_level of this U-Net says otherwise")


def look(
    attention: MultiHeadAttention, x: Tensor, told: Condition, maps: list[Tensor] | None = None
) -> Tensor:
    """Attend from places (B, P, C) to the tokens of a condition; rows without a token get 0."""
    if told.mask is None:
        return attention(x, told.tokens, maps=maps)
    some = told.mask.any(1)
    # A softmax over nothing is not a number, so rows without tokens look at all and forget it.
    mask = (told.mask | ~some[:, None])[:, None, None]
    return attention(x, told.tokens, mask=mask, maps=maps) * some[:, None, None].to(x)


def group_norm(channels: int) -> nn.GroupNorm:
    """Group norm in groups of 4 channels, at most 32 groups."""
    return nn.GroupNorm(_groups(channels), channels)


def _groups(channels: int) -> int:
    """At most 32 and a quarter of the channels, the most that divide them."""
    most = min(32, max(1, channels // 4))
    return next(groups for groups in range(most, 0, -1) if channels % groups == 0)


def _attention(
    channels: int,
    config: ConditionalUNetConfig,
    context_dim: int = 0,
    bias: bool = True,
    zero: bool = True,
) -> MultiHeadAttention:
    heads = config.num_heads or channels // config.head_dim
    attention = MultiHeadAttention(
        channels, heads, context_dim=context_dim or None, bias=bias, out_bias=True
    )
    if zero:
        zero_(attention.out)
    return attention


def _as_places(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H W, C)."""
    return x.flatten(2).transpose(1, 2)


def _as_image(x: Tensor, like: Tensor) -> Tensor:
    """(B, H W, C) -> (B, C, H, W)."""
    return x.transpose(1, 2).unflatten(2, like.shape[2:])


def _to_patches(x: Tensor, patch: int) -> Tensor:
    """(B, C, H, W) -> (B, C patch^2, H / patch, W / patch)."""
    if len(x):
        return F.pixel_unshuffle(x, patch)
    # torch returns an empty batch with the shape that it had.
    channels, height, width = x.shape[1:]
    return x.reshape(0, channels * patch**2, height // patch, width // patch)


def _from_patches(x: Tensor, patch: int) -> Tensor:
    """(B, C patch^2, H, W) -> (B, C, H patch, W patch)."""
    if len(x):
        return F.pixel_shuffle(x, patch)
    channels, height, width = x.shape[1:]
    return x.reshape(0, channels // patch**2, height * patch, width * patch)
