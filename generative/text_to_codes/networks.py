"""Decoders of codes that look at a caption, and what they look at."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from generative.nets.text_encoder import PAD, TextEncoder
from generative.nets.transformer import BlockCache, TransformerBlock, init_weights, make_norm
from generative.text_to_codes.config import PartiConfig

__all__ = ["CaptionMemory", "CodeDecoder"]


class CaptionMemory(nn.Module):
    """Encoded tokens of a caption behind a learned vector, which is all that an empty one has."""

    def __init__(self, config: PartiConfig):
        super().__init__()
        self.encoder = TextEncoder(config.text)
        self.empty = nn.Parameter(0.02 * torch.randn(config.block.dim))

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Captions (B, L) -> memory (B, 1 + L, dim), and where it is seen, (B, 1, 1, 1 + L)."""
        outputs = self.encoder(tokens).outputs
        memory = torch.cat([self.empty.expand(len(tokens), 1, -1), outputs], 1)
        seen = nn.functional.pad(tokens != PAD, (1, 0), value=True)
        return memory, seen[:, None, None]


class CodeDecoder(nn.Module):
    """Codes -> logits, looking at a caption; code `num_codes` starts a row, or is hidden.

    Args:
        config: see `PartiConfig`.
        causal: a place sees itself and those before it.
    """

    def __init__(self, config: PartiConfig, causal: bool):
        super().__init__()
        dim = config.block.dim
        self.embedding = nn.Embedding(config.num_codes + 1, dim)
        self.positions = nn.Embedding(math.prod(config.grid), dim)
        self.blocks = nn.ModuleList(
            TransformerBlock(config.block, causal, cross=True) for _ in range(config.num_layers)
        )
        self.norm = make_norm(config.block)
        self.head = nn.Linear(dim, config.num_codes)
        init_weights(self, "normal", config.num_layers)

    def forward(
        self,
        codes: Tensor,
        memory: tuple[Tensor, Tensor],
        caches: list[BlockCache] | None = None,
    ) -> Tensor:
        """Codes (B, T) -> logits (B, T, num_codes).

        Args:
            memory: from `CaptionMemory`.
            caches: one for each block; the codes then continue those of earlier calls.
        """
        begin = len(caches[0]) if caches else 0
        places = torch.arange(begin, begin + codes.shape[1], device=codes.device)
        x = self.embedding(codes) + self.positions(places)
        for k, block in enumerate(self.blocks):
            cache = caches[k] if caches else None
            x = block(x, memory[0], context_mask=memory[1], cache=cache)
        return self.head(self.norm(x))

    def make_caches(self) -> list[BlockCache]:
        """Empty caches of all blocks."""
        return [BlockCache() for _ in self.blocks]
