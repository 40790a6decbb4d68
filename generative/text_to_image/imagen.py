"""Imagen's text encoder: the encoder of a T5 that has seen texts alone.

    text = T5Text.of(t5)                       # a trained `generative.text.t5.T5`
    outputs, vector = text(tokens)             # (B, L, D), and their mean (B, D)

It knows nothing of images, and cannot embed one (Saharia et al. 2022).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from generative.nets.attention import padding_mask
from generative.nets.text_encoder import PAD, UNK, EncodedText
from generative.nets.transformer import TransformerBlock, make_norm
from generative.text.config import T5Config
from generative.text.t5 import T5, RelativeBias
from generative.training.checks import check_tokens

__all__ = ["T5Text"]


class T5Text(nn.Module):
    """Encoder of a T5 as a reader of captions: vectors of the tokens, and their mean.

    Its tokens are those of captions, with padding 0; the T5 was trained on such rows.

    Args:
        config: of the T5.
    """

    def __init__(self, config: T5Config):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size + config.num_sentinels, config.block.dim)
        self.encoder = nn.ModuleList(
            TransformerBlock(config.block) for _ in range(config.num_layers)
        )
        self.encoder_bias = RelativeBias(config, both_sides=True)
        self.encoder_norm = make_norm(config.block)

    @classmethod
    def of(cls, t5: T5) -> T5Text:
        """The encoder of a T5, with copies of its weights."""
        text = cls(t5.config)
        state, wanted = t5.state_dict(), text.state_dict()
        text.load_state_dict({name: state[name] for name in wanted})
        return text

    def forward(self, tokens: Tensor) -> EncodedText:
        """Captions int64 (B, L) -> vectors of their tokens (B, L, D), 0 at padding, and their mean.

        Raises:
            ValueError: not int64 (B, L) in the vocabulary, or longer than max_len.
        """
        total = self.config.vocab_size + self.config.num_sentinels
        check_tokens(tokens, total, self.config.max_len, self)
        there = tokens != PAD
        # A row of padding alone looks at its first token, whose output is dropped.
        first = torch.arange(tokens.shape[1], device=tokens.device) == 0
        read = torch.where(first & ~there.any(1, keepdim=True), UNK, tokens)
        x, mask = self.embedding(read), padding_mask(read, PAD)
        for block in self.encoder:
            x = block(x, mask=mask, relative=self.encoder_bias)
        x = torch.where(there[..., None], self.encoder_norm(x), 0.0)
        return EncodedText(x, x.sum(1) / there.sum(1, keepdim=True).clamp(min=1))
