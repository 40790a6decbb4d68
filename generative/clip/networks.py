"""Encoders of CLIP with their projections: images or captions -> vectors of one space.

They are not yet of length 1; `CLIP` divides by it.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from generative.clip.config import ConvImageConfig, TextEncoderConfig, ViTConfig
from generative.nets.attention import MultiHeadAttention
from generative.nets.text_encoder import TextEncoder
from generative.nets.vit import ViT

__all__ = ["ConvImageEncoder", "TextTower", "ViTImageEncoder"]


class ViTImageEncoder(nn.Module):
    """Patches -> Transformer -> projection of the class token, or of the mean without one.

    117,760 parameters at the defaults for 32x32 pixels.
    """

    def __init__(self, config: ViTConfig, embed_dim: int):
        super().__init__()
        self.vit = ViT(config)
        self.projection = make_projection(config.block.dim, embed_dim)

    def forward(self, x: Tensor, maps: list[Tensor] | None = None) -> Tensor:
        """Images (B, C, H, W) -> (B, embed_dim); `maps` gets the attention of each block."""
        tokens = self.vit(x, maps)
        return self.projection(tokens[:, 0] if self.vit.config.class_token else tokens.mean(1))


class ConvImageEncoder(nn.Module):
    """Convolutions of stride 2, then attention of the mean over all places, then a projection.

    The attention takes the place of a mean, which would forget where things are (Radford et al.
    2021, section 2.4).
    """

    def __init__(self, config: ConvImageConfig, embed_dim: int):
        super().__init__()
        widths = (config.image_shape[0], *config.channels)
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers += [nn.Conv2d(before, after, 4, 2, 1), nn.GroupNorm(8, after), nn.GELU()]
        self.layers = nn.Sequential(*layers)
        (rows, columns), dim = config.grid, widths[-1]
        self.positions = nn.Parameter(torch.randn(1 + rows * columns, dim) * dim**-0.5)
        self.attention = MultiHeadAttention(dim, config.num_heads)
        self.projection = make_projection(dim, embed_dim)

    def forward(self, x: Tensor, maps: list[Tensor] | None = None) -> Tensor:
        """Images (B, C, H, W) -> (B, embed_dim).

        Args:
            maps: gets the weights of the attention appended, (B, H, 1, 1 + places).
        """
        places = self.layers(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([places.mean(1, keepdim=True), places], 1) + self.positions
        return self.projection(self.attention(tokens[:, :1], tokens, maps=maps)[:, 0])


class TextTower(nn.Module):
    """Text encoder -> projection of the vector at [EOS]; 113,920 parameters at the defaults.

    `encoder` alone is what text-to-image models take over, frozen.
    """

    def __init__(self, config: TextEncoderConfig, embed_dim: int):
        super().__init__()
        self.encoder = TextEncoder(config)
        self.projection = make_projection(config.block.dim, embed_dim)

    def forward(self, tokens: Tensor, maps: list[Tensor] | None = None) -> Tensor:
        """Captions, int64 (B, L) -> (B, embed_dim); `maps` gets the attention of each block."""
        return self.projection(self.encoder(tokens, maps).vector)


def make_projection(dim: int, embed_dim: int) -> nn.Linear:
    """A linear map without bias; deviation dim^-1/2 at first, as in CLIP's program."""
    projection = nn.Linear(dim, embed_dim, bias=False)
    nn.init.normal_(projection.weight, 0, dim**-0.5)
    return projection
