"""Vision Transformer: an image is cut into patches, which a Transformer takes as tokens.

    vit = ViT(ViTConfig((3, 32, 32), patch=8, num_layers=2, block=vit_block(64, 2)))
    tokens = vit(x)                                  # (B, 3, 32, 32) -> (B, 16, 64)
    maps = []
    vit(x, maps)                                     # appends attention weights, (B, H, 16, 16)
    PatchDecoder(config, in_dim=64)(tokens)          # (B, 16, 64) -> (B, 3, 32, 32)

With `class_token` the first of the tokens stands for the whole image (Dosovitskiy et al. 2021).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from generative.nets.config import ViTConfig, vit_block
from generative.nets.transformer import TransformerBlock, init_weights, make_norm

__all__ = ["PatchDecoder", "ViT", "ViTConfig", "vit_block"]


class ViT(nn.Module):
    """Patches -> tokens with learned positions -> blocks -> norm.

    Args:
        config: see `ViTConfig`.
    """

    def __init__(self, config: ViTConfig):
        super().__init__()
        self.config = config
        (c, _, _), dim = config.image_shape, config.block.dim
        self.patches = nn.Conv2d(c, dim, config.patch, config.patch, bias=config.patch_bias)
        rows, columns = config.grid
        num_tokens = rows * columns + config.class_token
        self.first = nn.Parameter(torch.randn(dim) * 0.02) if config.class_token else None
        self.positions = nn.Parameter(torch.randn(num_tokens, dim) * 0.02)
        self.norm_first = make_norm(config.block) if config.norm_first else nn.Identity()
        self.blocks = nn.ModuleList(
            TransformerBlock(config.block) for _ in range(config.num_layers)
        )
        self.norm = make_norm(config.block)
        init_weights(self, "normal", config.num_layers)

    def forward(self, x: Tensor, maps: list[Tensor] | None = None) -> Tensor:
        """Images (B, C, H, W) -> tokens (B, T, dim) of the patches row by row.

        With a class token it stands in front of them.

        Args:
            maps: gets the attention weights of each block appended, (B, H, T, T).
        """
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        if self.first is not None:
            tokens = torch.cat([self.first.expand(len(x), 1, -1), tokens], 1)
        tokens = self.norm_first(tokens + self.positions)
        for block in self.blocks:
            tokens = block(tokens, maps=maps)
        return self.norm(tokens)


class PatchDecoder(nn.Module):
    """Vectors of patches -> blocks -> pixels of the patches, put together to an image.

    Args:
        config: see `ViTConfig`; those of class token and first norm are not for a decoder.
        in_dim: numbers of a patch's vector.
    """

    def __init__(self, config: ViTConfig, in_dim: int):
        super().__init__()
        self.config = config
        (c, _, _), dim, (rows, columns) = config.image_shape, config.block.dim, config.grid
        self.tokens = nn.Linear(in_dim, dim)
        self.positions = nn.Parameter(torch.randn(rows * columns, dim) * 0.02)
        self.blocks = nn.ModuleList(
            TransformerBlock(config.block) for _ in range(config.num_layers)
        )
        self.norm = make_norm(config.block)
        self.last = nn.Linear(dim, c * config.patch**2)
        init_weights(self, "normal", config.num_layers)

    def forward(self, vectors: Tensor) -> Tensor:
        """(B, T, in_dim), patches row by row -> images (B, C, H, W)."""
        tokens = self.tokens(vectors) + self.positions
        for block in self.blocks:
            tokens = block(tokens)
        rows, columns = self.config.grid
        pixels = self.last(self.norm(tokens)).unflatten(1, (rows, columns))
        pixels = pixels.unflatten(3, (-1, self.config.patch, self.config.patch))
        return pixels.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)
