"""T5: an encoder reads a text, a decoder writes another. Network, loss, sampler.

Every task is text in, text out: filling in spans that were cut out, and then any task given as
pairs of texts (Raffel et al. 2020; Foster 2023, chapter 9). Positions enter only as distances, by a
number for each head and distance that is added to the attention scores.

    model = T5.from_pretrained("runs/t5/model")
    source, target = corrupt_spans(tokens, model.first_sentinel)
    model.loss(source, target)
    model.generate(source, 20)                     # the most probable tokens, (B, 20)
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.nets.attention import padding_mask
from generative.nets.transformer import BlockCache, TransformerBlock, make_norm
from generative.text.config import BlockConfig, T5Config, TextLossConfig, t5_block
from generative.text.corruption import corrupt_spans
from generative.text.tokens import (
    END,
    TextLearner,
    TextLosses,
    generate,
    next_token_losses,
    text_log_prob,
)
from generative.training.checks import check_dtype, check_some, check_tokens, checked
from generative.training.pretrained import Pretrained
from generative.training.ranges import CountOrZero, NonNegative

__all__ = [
    "T5",
    "BlockConfig",
    "RelativeBias",
    "T5Config",
    "TextLearner",
    "TextLossConfig",
    "corrupt_spans",
    "relative_buckets",
    "t5_block",
]


class T5(Pretrained, nn.Module):
    """Encoder and decoder over one set of token vectors, which the output layer shares."""

    config_class = T5Config

    def __init__(self, config: T5Config | None = None):
        super().__init__()
        self.config = config = config or T5Config()
        block, layers = config.block, range(config.num_layers)
        self.embedding = nn.Embedding(config.vocab_size + config.num_sentinels, block.dim)
        self.encoder = nn.ModuleList(TransformerBlock(block) for _ in layers)
        self.encoder_bias = RelativeBias(config, both_sides=True)
        self.encoder_norm = make_norm(block)
        self.decoder = nn.ModuleList(
            TransformerBlock(block, causal=True, cross=True) for _ in layers
        )
        self.decoder_bias = RelativeBias(config, both_sides=False)
        self.decoder_norm = make_norm(block)
        self.dropout = nn.Dropout(block.dropout)
        self._start()

    @property
    def first_sentinel(self) -> int:
        """Sentinel of the first cut-out span; the others follow."""
        return self.config.vocab_size

    def encode(self, source: Tensor, maps: list[Tensor] | None = None) -> Tensor:
        """Source texts (B, S) -> memory that the decoder attends to, (B, S, dim).

        Args:
            maps: gets the attention weights of each block appended, (B, H, S, S).
        Raises:
            ValueError: not int64 (B, S) in the vocabulary, or longer than max_len.
        """
        total = self.config.vocab_size + self.config.num_sentinels
        check_tokens(source, total, self.config.max_len, self)
        x, seen = self.dropout(self.embedding(source)), padding_mask(source, END)
        for block in self.encoder:
            x = block(x, mask=seen, relative=self.encoder_bias, maps=maps)
        return self.dropout(self.encoder_norm(x))

    def logits(
        self,
        tokens: Tensor,
        memory: Tensor,
        source: Tensor,
        caches: list[BlockCache] | None = None,
        maps: list[Tensor] | None = None,
    ) -> Tensor:
        """Logits of the target's token after each of tokens (B, T), (B, T, V).

        Args:
            memory, source: output and input of `encode`.
            caches: one for each block of the decoder; the tokens then continue those of earlier
                calls.
            maps: gets, for each block, the weights of its attention to the target (B, H, T, T)
                and to the source (B, H, T, S) appended.
        """
        total = self.config.vocab_size + self.config.num_sentinels
        check_tokens(tokens, total, self.config.max_len, self)
        check_dtype(memory, "memory", self)
        x, seen = self.dropout(self.embedding(tokens)), padding_mask(source, END)
        for k, block in enumerate(self.decoder):
            x = block(
                x,
                memory,
                context_mask=seen,
                relative=self.decoder_bias,
                cache=caches[k] if caches else None,
                maps=maps,
            )
        x = self.dropout(self.decoder_norm(x))
        # Token vectors have entries of size 1, too large for an output layer.
        return F.linear(x * self.config.block.dim**-0.5, self.embedding.weight)

    def loss(self, source: Tensor, target: Tensor) -> TextLosses:
        """Mean loss over the tokens of targets (B, R) up to their ends, given sources (B, S)."""
        memory = self.encode(check_some(source, self))
        return next_token_losses(lambda tokens: self.logits(tokens, memory, source), target)

    def target_log_prob(self, source: Tensor, target: Tensor) -> Tensor:
        """log p of each target (B, R) up to its end given its source (B, S), in nats, (B,)."""
        memory = self.encode(source)
        return text_log_prob(lambda tokens: self.logits(tokens, memory, source), target)

    @checked
    @torch.no_grad()
    def generate(
        self,
        source: Tensor,
        num_tokens: CountOrZero,
        *,
        temperature: NonNegative = 0.0,
        **options: Any,
    ) -> Tensor:
        """Generate a target for each source (B, S), int64 (B, num_tokens); 0 after its end.

        Args:
            temperature: 0 takes the most probable token each time.
            options: the other options of `tokens.generate`.
        """
        memory = self.encode(source)

        def step(new: Tensor, caches: list[BlockCache] | None) -> tuple[Tensor, list[BlockCache]]:
            caches = caches or [BlockCache() for _ in self.decoder]
            return self.logits(new, memory, source, caches)[:, -1], caches

        start = torch.full((len(source), 1), END, device=source.device)
        options["temperature"] = temperature
        return generate(step, start, num_tokens, **options)[:, 1:]

    @torch.no_grad()
    def attention_maps(self, source: Tensor, target: Tensor) -> Maps:
        """Attention weights of the encoder, of the decoder, and from the decoder to the source."""
        maps = Maps()
        memory = self.encode(source, maps.encoder)
        both: list[Tensor] = []
        self.logits(target, memory, source, maps=both)
        maps.decoder, maps.cross = both[::2], both[1::2]
        return maps

    @torch.no_grad()
    def _start(self) -> None:
        """Draw the published initial weights: unscaled attention scores need smaller queries."""
        block = self.config.block
        inner = block.num_heads * block.head_dim
        deviations = {
            "query": (block.dim * block.head_dim) ** -0.5,
            "key": block.dim**-0.5,
            "value": block.dim**-0.5,
            "out": inner**-0.5,
            "0": block.dim**-0.5,
            "3": block.ff_dim**-0.5,
        }
        for name, layer in self.named_modules():
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, 0, deviations[name.rpartition(".")[2]])
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        nn.init.normal_(self.embedding.weight)
        for bias in (self.encoder_bias, self.decoder_bias):
            nn.init.normal_(bias.values.weight, 0, block.dim**-0.5)


@dataclass
class Maps:
    """Attention weights of each block; rows sum to 1."""

    encoder: list[Tensor] = field(default_factory=list)
    """(B, H, S, S)."""
    decoder: list[Tensor] = field(default_factory=list)
    """(B, H, R, R), lower triangles."""
    cross: list[Tensor] = field(default_factory=list)
    """(B, H, R, S), from the target to the source."""


class RelativeBias(nn.Module):
    """A number for each head and distance, added to attention scores; shared by all blocks."""

    def __init__(self, config: T5Config, both_sides: bool):
        super().__init__()
        self.config, self.both_sides = config, both_sides
        self.values = nn.Embedding(config.num_buckets, config.block.num_heads)

    def forward(self, q: Tensor, num_keys: int) -> Tensor:
        """Bias (1, H, Tq, Tk) for queries (B, H, Tq, D) at the last of the keys' positions."""
        keys = torch.arange(num_keys, device=q.device)
        distance = keys[None, :] - keys[num_keys - q.shape[2] :, None]
        buckets = relative_buckets(
            distance, self.both_sides, self.config.num_buckets, self.config.max_distance
        )
        return self.values(buckets).permute(2, 0, 1)[None]


def relative_buckets(
    distance: Tensor, both_sides: bool, num_buckets: int = 32, max_distance: int = 128
) -> Tensor:
    """Bucket of each distance (key - query), of the same shape.

    Half of the buckets hold one distance each, the others grow by a factor up to max_distance.
    Keys after the query have their own buckets, or without `both_sides` that of distance 0.
    """
    start = torch.zeros_like(distance)
    if both_sides:
        num_buckets //= 2
        start = (distance > 0) * num_buckets
        distance = distance.abs()
    else:
        distance = (-distance).clamp_min(0)
    exact = num_buckets // 2
    far = exact + (
        torch.log(distance.clamp_min(1).float() / exact)
        / math.log(max_distance / exact)
        * (num_buckets - exact)
    ).long().clamp_max(num_buckets - 1 - exact)
    return start + torch.where(distance < exact, distance, far)
