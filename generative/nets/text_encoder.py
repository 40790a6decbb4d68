"""Text encoder: a caption as a sequence of vectors, and as one vector.

    encoder = TextEncoder(TextEncoderConfig(vocab_size=128, max_len=24))
    outputs, vector = encoder(tokens)      # (B, L) -> (B, L, 64), and (B, 64) read at [EOS]
    encoder(tokens, maps=maps)             # appends the attention weights, (B, H, L', L')

A caption is a row of int64 tokens: [BOS], its words, [EOS], and padding up to the end of the row.
Padding has no influence, and its outputs are 0; a row of padding alone, the empty caption of
guidance, is all 0. The sequence is the context of cross-attention, the vector is the embedding that
CLIP compares.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.nets.attention import padding_mask
from generative.nets.config import TextEncoderConfig, clip_block
from generative.nets.transformer import TransformerBlock, make_norm
from generative.training.checks import check_tokens

__all__ = [
    "BOS",
    "EOS",
    "PAD",
    "UNK",
    "EncodedText",
    "TextEncoder",
    "TextEncoderConfig",
    "clip_block",
]

PAD = 0
"""Token that fills a row after its caption."""
UNK = 1
"""Token of every word outside the vocabulary."""
BOS = 2
"""Token that a caption begins with."""
EOS = 3
"""Token that a caption ends with."""


class EncodedText(NamedTuple):
    """Result of a text encoder on captions (B, L)."""

    outputs: Tensor
    """Vectors of the tokens, (B, L, dim); 0 at padding."""
    vector: Tensor
    """Vector at the first [EOS], (B, dim); 0 for a row of padding alone."""


class TextEncoder(nn.Module):
    """Tokens and positions -> Transformer blocks -> norm.

    CLIP's text encoder is this (Radford et al. 2021, section 2.4); that of Stable Diffusion has
    123,060,480 parameters (`TextEncoderConfig(49_408, 77, 12, clip_block(768, 12))`). The vector is
    read at the first token [EOS]. The published program looks for the highest token instead, which
    is the same only while [EOS] is the last of the vocabulary.

    Args:
        config: see `TextEncoderConfig`.
    """

    def __init__(self, config: TextEncoderConfig | None = None):
        super().__init__()
        self.config = config = config or TextEncoderConfig()
        dim = config.block.dim
        self.embedding = nn.Embedding(config.vocab_size, dim)
        self.positions = nn.Embedding(config.max_len, dim)
        self.blocks = nn.ModuleList(
            TransformerBlock(config.block, causal=config.causal) for _ in range(config.num_layers)
        )
        self.norm = make_norm(config.block) if config.block.norm == "pre" else nn.Identity()
        self._start()

    def forward(self, tokens: Tensor, maps: list[Tensor] | None = None) -> EncodedText:
        """Captions (B, L) -> vectors of their tokens (B, L, dim), and of the whole (B, dim).

        Args:
            tokens: int64, `PAD` after the end of a caption.
            maps: gets the attention weights of each block appended, (B, H, L', L'), where L' is the
                length of the longest caption.
        Raises:
            ValueError: not int64 (B, L) in the vocabulary, longer than `max_len` up to the last
                token that is no padding, or a caption without [EOS].
        """
        check_tokens(tokens, self.config.vocab_size, None, self)
        there = tokens != PAD
        length = self._check_captions(tokens, there)
        # Columns of padding alone are cut off before any sum is taken: the number of them cannot
        # change a result even in the order of its rounding.
        kept, real = tokens[:, :length], there[:, :length, None]
        x = self.embedding(kept) + self.positions.weight[:length]
        # Every query needs a key. At padding, whose output is dropped, this is the token itself.
        itself = torch.eye(length, dtype=torch.bool, device=tokens.device)
        mask = padding_mask(kept, PAD) | itself
        for block in self.blocks:
            x = block(x, mask=mask, maps=maps)
        x = torch.where(real, self.norm(x), 0.0)
        first = (kept == EOS).long().argmax(1)
        vector = x[torch.arange(len(x), device=x.device), first] * there.any(1, keepdim=True)
        return EncodedText(F.pad(x, (0, 0, 0, tokens.shape[1] - length)), vector)

    def _check_captions(self, tokens: Tensor, there: Tensor) -> int:
        """Return the length of the longest caption, 1 or more."""
        if not len(tokens):
            return min(tokens.shape[1], self.config.max_len)
        ended = (tokens == EOS).any(1) | ~there.any(1)
        used = there.any(0).nonzero()
        length = int(used.max()) + 1 if len(used) else 1
        if length > self.config.max_len:
            raise ValueError(
                f"got captions of {length} tokens; this text encoder has positions for "
                f"{self.config.max_len}: cut them, and put [EOS] ({EOS}) last"
            )
        if not bool(ended.all()):
            row = int((~ended).long().argmax())
            raise ValueError(
                f"caption {row} has no [EOS] ({EOS}), where its vector is read; put one behind its "
                "last word"
            )
        return length

    @torch.no_grad()
    def _start(self) -> None:
        """Draw the first weights of CLIP's program: 0.02 for tokens, 0.01 for positions."""
        nn.init.normal_(self.embedding.weight, 0, 0.02)
        nn.init.normal_(self.positions.weight, 0, 0.01)
        init_clip_blocks(self.blocks)


@torch.no_grad()
def init_clip_blocks(blocks: nn.ModuleList) -> None:
    """Draw the first weights of a stack of blocks as CLIP's program does, in place.

    Deviations for width d and n blocks: d^-1/2 of queries, keys and values, (2 d)^-1/2 of the
    hidden layer, and (2 n d)^-1/2 of the two maps that add to their input. Biases are 0.
    """
    for block in blocks:
        assert isinstance(block, TransformerBlock)
        dim = block.config.dim
        added = (2 * len(blocks) * dim) ** -0.5
        hidden, last = block.feed_forward[0], block.feed_forward[3]
        attention = block.attention
        for layer, deviation in (
            (attention.query, dim**-0.5),
            (attention.key, dim**-0.5),
            (attention.value, dim**-0.5),
            (attention.out, added),
            (hidden, (2 * dim) ** -0.5),
            (last, added),
        ):
            assert isinstance(layer, nn.Linear)
            nn.init.normal_(layer.weight, 0, deviation)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
