"""Encoders, decoders and critics around a quantiser, and the Transformer that is a prior of codes.

An encoder maps images from 0 to 1 to a grid of vectors (B, D, h, w), a decoder maps these back to
pixels. The layer that gives the pixels is the decoder's `last`, where a VQ-GAN compares gradients.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from generative.codes.config import (
    CodeTransformerConfig,
    PatchCriticConfig,
    ViTConfig,
    VQGANConfig,
    VQVAEConfig,
)
from generative.nets.attention import SpatialAttention
from generative.nets.patches import PatchCritic, patch_grid
from generative.nets.transformer import BlockCache, TransformerBlock, init_weights, make_norm
from generative.nets.vit import PatchDecoder, ViT

__all__ = [
    "CodeTransformer",
    "ConvDecoder",
    "ConvEncoder",
    "ResNetDecoder",
    "ResNetEncoder",
    "ViTDecoder",
    "ViTEncoder",
    "make_critic",
]


# ---------------------------------------------------------------------------------------------
# VQ-VAE
# ---------------------------------------------------------------------------------------------


class PlainBlock(nn.Module):
    """ReLU, 3x3 convolution, ReLU, 1x1 convolution, added to what came in; without biases."""

    def __init__(self, channels: int, hidden: int, kernel: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(channels, hidden, kernel, padding=kernel // 2, bias=False),
            nn.ReLU(),
            nn.Conv2d(hidden, channels, 1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class ConvEncoder(nn.Sequential):
    """4x4 convolutions of stride 2, residual blocks, and a map to the vectors.

    28,512 parameters at the defaults; 372,096 of colour images with channels 64 and 128, 32 inside
    the blocks, and 64 numbers of a code.
    """

    def __init__(self, config: VQVAEConfig):
        (halving, pad), kernel = _kernels(config)
        channels, top = (config.image_shape[0], *config.channels), config.channels[-1]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(channels):
            layers += [nn.Conv2d(before, after, halving, 2, pad), nn.ReLU()]
        layers.append(nn.Conv2d(top, top, kernel, padding=kernel // 2))
        layers += _plain_blocks(config)
        super().__init__(*layers, nn.Conv2d(top, config.quantiser.dim, 1))


class ConvDecoder(nn.Module):
    """The mirror image of `ConvEncoder`; 23,345 and 289,987 parameters at the same sizes."""

    def __init__(self, config: VQVAEConfig):
        super().__init__()
        (doubling, pad), kernel = _kernels(config)
        channels = config.channels[::-1]
        self.first = nn.Conv2d(config.quantiser.dim, channels[0], kernel, padding=kernel // 2)
        self.layers = nn.Sequential(*_plain_blocks(config), nn.ReLU())
        for before, after in itertools.pairwise(channels):
            self.layers.append(nn.ConvTranspose2d(before, after, doubling, 2, pad))
            self.layers.append(nn.ReLU())
        self.last = nn.ConvTranspose2d(channels[-1], config.image_shape[0], doubling, 2, pad)

    def forward(self, z: Tensor) -> Tensor:
        """(B, D, h, w) -> (B, C, H, W)."""
        return self.last(self.layers(self.first(z)))


def _plain_blocks(config: VQVAEConfig) -> list[nn.Module]:
    top, (_, kernel) = config.channels[-1], _kernels(config)
    return [PlainBlock(top, config.residual_dim, kernel) for _ in range(config.num_blocks)]


def _kernels(config: VQVAEConfig) -> tuple[tuple[int, int], int]:
    """Kernel and padding of the layers of stride 2, and kernel of the others."""
    return ((4, 1), 3) if config.overlap else ((2, 0), 1)


# ---------------------------------------------------------------------------------------------
# VQ-GAN
# ---------------------------------------------------------------------------------------------


class NormBlock(nn.Module):
    """Twice group norm, SiLU and 3x3 convolution, added to what came in."""

    def __init__(self, before: int, after: int):
        super().__init__()
        self.layers = nn.Sequential(
            _norm(before), nn.SiLU(), nn.Conv2d(before, after, 3, padding=1),
            _norm(after), nn.SiLU(), nn.Conv2d(after, after, 3, padding=1),
        )  # fmt: skip
        self.shortcut = nn.Identity() if before == after else nn.Conv2d(before, after, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.layers(x)


class ResNetEncoder(nn.Sequential):
    """Residual blocks at falling resolutions, with attention at some (Esser et al. 2021, table 7).

    105,008 parameters at the defaults, with the 1x1 convolution to the vectors 106,064.
    """

    def __init__(self, config: VQGANConfig):
        super().__init__(*self._layers(config))

    @staticmethod
    def _layers(config: VQGANConfig) -> Iterator[nn.Module]:
        widths, dim = [config.width * m for m in config.multipliers], config.quantiser.dim
        yield nn.Conv2d(config.image_shape[0], width := widths[0], 3, padding=1)
        for level, after in enumerate(widths):
            for _ in range(config.num_blocks):
                yield NormBlock(width, after)
                width = after
                if level in config.attention:
                    yield SpatialAttention(width)
            if level < len(widths) - 1:
                yield nn.Conv2d(width, width, 3, stride=2, padding=1)
        yield from _middle(width)
        yield from (_norm(width), nn.SiLU(), nn.Conv2d(width, dim, 3, padding=1))
        yield nn.Conv2d(dim, dim, 1)


class ResNetDecoder(nn.Module):
    """The mirror image of `ResNetEncoder` with one more block at each resolution.

    165,091 parameters at the defaults, with the 1x1 convolution from the vectors 166,147.
    """

    def __init__(self, config: VQGANConfig):
        super().__init__()
        self.layers = nn.Sequential(*self._layers(config))
        self.last = nn.Conv2d(
            config.width * config.multipliers[0], config.image_shape[0], 3, padding=1
        )

    @staticmethod
    def _layers(config: VQGANConfig) -> Iterator[nn.Module]:
        widths, dim = [config.width * m for m in config.multipliers], config.quantiser.dim
        yield nn.Conv2d(dim, dim, 1)
        yield nn.Conv2d(dim, width := widths[-1], 3, padding=1)
        yield from _middle(width)
        for level, after in reversed(list(enumerate(widths))):
            for _ in range(config.num_blocks + 1):
                yield NormBlock(width, after)
                width = after
                if level in config.attention:
                    yield SpatialAttention(width)
            if level:
                yield nn.Upsample(scale_factor=2)
                yield nn.Conv2d(width, width, 3, padding=1)
        yield from (_norm(width), nn.SiLU())

    def forward(self, z: Tensor) -> Tensor:
        """(B, D, h, w) -> (B, C, H, W)."""
        return self.last(self.layers(z))


def _middle(width: int) -> list[nn.Module]:
    return [NormBlock(width, width), SpatialAttention(width), NormBlock(width, width)]


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(max(1, min(32, channels // 4)), channels), channels)


# ---------------------------------------------------------------------------------------------
# ViT VQ-GAN
# ---------------------------------------------------------------------------------------------


class ViTEncoder(nn.Module):
    """Images -> patches -> Transformer -> vectors of few numbers; 113,992 parameters at the
    defaults."""

    def __init__(self, config: ViTConfig, dim: int):
        super().__init__()
        self.vit = ViT(config)
        self.to_vectors = nn.Linear(config.block.dim, dim)

    def forward(self, x: Tensor, maps: list[Tensor] | None = None) -> Tensor:
        """(B, C, H, W) -> (B, D, h, w); `maps` gets the attention of each block appended."""
        vectors = self.to_vectors(self.vit(x, maps))
        return vectors.transpose(1, 2).unflatten(2, self.vit.config.grid)


class ViTDecoder(nn.Module):
    """Vectors -> Transformer -> patches -> images; 114,176 parameters at the defaults."""

    def __init__(self, config: ViTConfig, dim: int):
        super().__init__()
        self.decoder = PatchDecoder(config, dim)

    @property
    def last(self) -> nn.Linear:
        """The layer that gives the pixels."""
        return self.decoder.last

    def forward(self, z: Tensor) -> Tensor:
        """(B, D, h, w) -> (B, C, H, W)."""
        return self.decoder(z.flatten(2).transpose(1, 2))


def make_critic(config: PatchCriticConfig, image_shape: tuple[int, int, int]) -> PatchCritic:
    """A critic of the patches of images (C, H, W).

    Raises:
        ValueError: the images are too small for a patch.
    """
    channels, *sides = image_shape
    patch_grid((sides[0], sides[1]), config.num_levels)
    return PatchCritic(channels, config.width, config.num_levels, config.norm)


# ---------------------------------------------------------------------------------------------
# Prior
# ---------------------------------------------------------------------------------------------


class CodeTransformer(nn.Module):
    """Codes in reading order -> logits of each, from those before it.

    The first code follows a start that all grids share, or that of the class. 112,448 parameters
    at the defaults for 64 codes in a grid of 8x8; 6,908,672 for 8 blocks of 256 with 1,024 codes
    in one of 16x16.

    Args:
        config: see `CodeTransformerConfig`.
        grid: (h, w), rows and columns of codes.
        num_codes: codes there are.
    """

    def __init__(self, config: CodeTransformerConfig, grid: tuple[int, int], num_codes: int):
        super().__init__()
        self.num_codes, dim = num_codes, config.block.dim
        self.embedding = nn.Embedding(num_codes + max(1, config.num_classes), dim)
        self.positions = nn.Embedding(math.prod(grid), dim)
        self.blocks = nn.ModuleList(
            TransformerBlock(config.block, causal=True) for _ in range(config.num_layers)
        )
        self.norm = make_norm(config.block)
        self.head = nn.Linear(dim, num_codes, bias=False)
        self.dropout = nn.Dropout(config.block.dropout)
        init_weights(self, "normal", config.num_layers)

    def start(self, n: int, labels: Tensor | None = None) -> Tensor:
        """Tokens that n grids begin with, int64 (n, 1): that of the class, if there are any."""
        device = self.head.weight.device
        labels = torch.zeros(n, dtype=torch.int64, device=device) if labels is None else labels
        return self.num_codes + labels[:, None]

    def forward(self, codes: Tensor, labels: Tensor | None = None) -> Tensor:
        """Codes (B, T), T at most the places of the grid -> logits of each, (B, T, num_codes)."""
        tokens = torch.cat([self.start(len(codes), labels), codes[:, :-1]], 1)
        return self.read(tokens)

    def read(self, tokens: Tensor, caches: list[BlockCache] | None = None) -> Tensor:
        """Tokens (B, T), a start and then codes -> logits of what follows each, (B, T, num_codes).

        Args:
            caches: from `make_caches`; the tokens then continue those of earlier calls.
        """
        begin = len(caches[0]) if caches else 0
        places = torch.arange(begin, begin + tokens.shape[1], device=tokens.device)
        x = self.dropout(self.embedding(tokens) + self.positions(places))
        for k, block in enumerate(self.blocks):
            x = block(x, cache=caches[k] if caches else None)
        return self.head(self.norm(x))

    def make_caches(self) -> list[BlockCache]:
        """Empty caches of all blocks."""
        return [BlockCache() for _ in self.blocks]
