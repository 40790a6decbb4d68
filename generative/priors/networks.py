"""Transformers of the priors: one that takes noise away, and one that writes buckets."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from generative.diffusion.schedules import MAX_LOG_SNR
from generative.nets.embeddings import sinusoidal_embedding
from generative.nets.transformer import BlockCache, TransformerBlock, init_weights, make_norm
from generative.priors.config import AutoregressivePriorConfig, DiffusionPriorConfig

__all__ = ["BucketTransformer", "PriorTransformer"]

WAVES = 32
"""Sines and cosines that tell the noise level."""


class PriorTransformer(nn.Module):
    """Encoded tokens, the caption, the noise level, the noisy embedding and a query -> output.

    A causal Transformer reads them in this order, and its output is read at the query, which is
    learned (Ramesh et al. 2022, section 2.2). The blocks of 6 layers of 256 have 4,738,560
    parameters.
    """

    def __init__(self, config: DiffusionPriorConfig):
        super().__init__()
        self.config, dim = config, config.block.dim
        length = 4 + (config.max_len if config.context_dim else 0)
        self.context = nn.Linear(config.context_dim, dim) if config.context_dim else None
        self.text = nn.Linear(config.text_dim, dim)
        self.level = nn.Sequential(nn.Linear(WAVES, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.image = nn.Linear(config.embed_dim, dim)
        self.query = nn.Parameter(0.02 * torch.randn(dim))
        self.positions = nn.Parameter(0.02 * torch.randn(length, dim))
        self.blocks = nn.ModuleList(
            TransformerBlock(config.block, causal=True) for _ in range(config.num_layers)
        )
        self.norm = make_norm(config.block)
        self.out = nn.Linear(dim, config.embed_dim)
        init_weights(self, "normal", config.num_layers)

    def forward(
        self,
        x: Tensor,
        log_snr: Tensor,
        text: Tensor,
        context: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Noisy embeddings x (B, D) at log_snr (B,), given captions (B, D') -> (B, D).

        Args:
            context: encoded tokens (B, L, C), where the network has them.
            mask: bool (B, L), True where a token is no padding.
        """
        waves = sinusoidal_embedding(log_snr / (2 * MAX_LOG_SNR) + 0.5, WAVES, max_frequency=100.0)
        parts = [self.text(text), self.level(waves.to(x.dtype)), self.image(x)]
        parts = [part[:, None] for part in (*parts, self.query.expand(len(x), -1))]
        seen = torch.ones(len(x), 4, dtype=torch.bool, device=x.device)
        if self.context is not None and context is not None:
            parts = [self.context(context), *parts]
            there = context.new_ones(context.shape[:2]).bool() if mask is None else mask
            seen = torch.cat([there, seen], 1)
        tokens = torch.cat(parts, 1)
        # Positions are counted from the end, so that the last four are the same in every row.
        tokens = tokens + self.positions[-tokens.shape[1] :]
        allowed = seen[:, None, None] | torch.eye(
            tokens.shape[1], dtype=torch.bool, device=x.device
        )
        for block in self.blocks:
            tokens = block(tokens, mask=allowed)
        return self.out(self.norm(tokens[:, -1]))


class BucketTransformer(nn.Module):
    """Captions -> encoder; buckets so far -> decoder -> logits of the next component's bucket.

    The blocks of 3 and 6 layers of 256 have 8,689,920 parameters.
    """

    def __init__(self, config: AutoregressivePriorConfig):
        super().__init__()
        self.config, block, dim = config, config.block, config.block.dim
        self.text = nn.Linear(config.text_dim, config.text_tokens * dim)
        self.context = nn.Linear(config.context_dim, dim) if config.context_dim else None
        length = config.text_tokens + (config.max_len if config.context_dim else 0)
        self.places = nn.Parameter(0.02 * torch.randn(length, dim))
        self.encoder = nn.ModuleList(TransformerBlock(block) for _ in range(config.encoder_layers))
        self.encoder_norm = make_norm(block)
        # Bucket i of a component is another word than bucket i of the next; the last starts a row.
        self.words = nn.Embedding(config.components * config.buckets + 1, dim)
        self.positions = nn.Parameter(0.02 * torch.randn(config.components, dim))
        self.decoder = nn.ModuleList(
            TransformerBlock(block, causal=True, cross=True) for _ in range(config.decoder_layers)
        )
        self.decoder_norm = make_norm(block)
        self.heads = nn.Parameter(0.02 * torch.randn(config.components, dim, config.buckets))
        self.bias = nn.Parameter(torch.zeros(config.components, config.buckets))
        init_weights(self, "normal", config.encoder_layers + config.decoder_layers)

    def encode(
        self, text: Tensor, context: Tensor | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Captions (B, D'), and encoded tokens (B, L, C) if any -> memory and its mask."""
        memory = self.text(text).unflatten(1, (self.config.text_tokens, -1))
        seen = torch.ones(memory.shape[:2], dtype=torch.bool, device=text.device)
        if self.context is not None and context is not None:
            memory = torch.cat([memory, self.context(context)], 1)
            there = context.new_ones(context.shape[:2]).bool() if mask is None else mask
            seen = torch.cat([seen, there], 1)
        memory, allowed = memory + self.places[: memory.shape[1]], seen[:, None, None]
        for block in self.encoder:
            memory = block(memory, mask=allowed)
        return self.encoder_norm(memory), allowed

    def decode(
        self,
        codes: Tensor,
        memory: tuple[Tensor, Tensor],
        caches: list[BlockCache] | None = None,
    ) -> Tensor:
        """Buckets before the wanted ones -> logits of these.

        Args:
            codes: int64 (B, T), the first T components; with caches those after earlier calls.
            memory: from `encode`.
            caches: one for each block of the decoder.
        Returns:
            (B, T + 1, buckets) without caches, of components 0 to T (at most the last); with them
            (B, 1, buckets) of the next.
        """
        config, begin = self.config, len(caches[0]) if caches else 0
        word = config.components * config.buckets
        start = torch.full((len(codes), 1), word, dtype=torch.int64, device=codes.device)
        if caches is None:
            offsets = torch.arange(codes.shape[1], device=codes.device) * config.buckets
            words = torch.cat([start, codes + offsets], 1)[:, : config.components]
        else:
            words = codes[:, -1:] + (begin - 1) * config.buckets if begin else start
        end = begin + words.shape[1]
        x = self.words(words) + self.positions[begin:end]
        context, allowed = memory
        for k, block in enumerate(self.decoder):
            cache = caches[k] if caches else None
            x = block(x, context, context_mask=allowed, cache=cache)
        x = self.decoder_norm(x)
        return torch.einsum("btd,tdk->btk", x, self.heads[begin:end]) + self.bias[begin:end]
