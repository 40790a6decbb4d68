"""BERT: a Transformer that reads both sides and fills in hidden tokens. Networks and losses.

The network predicts hidden tokens, which takes an understanding of the whole text (Devlin et al.
2019; Foster 2023, chapter 9). A small head on top is then trained on few labelled texts.

    bert = BERT.from_pretrained("runs/bert/model")
    bert.fill(tokens)                    # log probabilities at each position
    bert.encode(tokens)                  # (B, dim), close for similar texts
    classifier = BERTClassifier.of(bert, num_classes=5)
"""

from __future__ import annotations

from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.nets.attention import padding_mask
from generative.nets.transformer import TransformerBlock, init_weights
from generative.text.config import (
    BERTClassifierConfig,
    BERTConfig,
    BlockConfig,
    TextLossConfig,
    bert_block,
)
from generative.text.corruption import exchange_tokens, hide_tokens
from generative.text.tokens import END, TextLearner, TextLosses, token_losses
from generative.training.checks import check_dtype, check_labels, check_some, check_tokens, placed
from generative.training.pretrained import Pretrained

__all__ = [
    "BERT",
    "BERTClassifier",
    "BERTClassifierConfig",
    "BERTConfig",
    "BlockConfig",
    "ClassLosses",
    "TextLearner",
    "TextLossConfig",
    "bert_block",
]


class BERTEncoder(nn.Module):
    """Tokens, positions and segments -> blocks without a causal mask.

    A token that stands for the whole text (B, T) is put in front, so that the network sees T + 1
    positions.
    """

    def __init__(self, config: BERTConfig):
        super().__init__()
        self.config = config
        dim = config.block.dim
        self.embedding = nn.Embedding(config.vocab_size + 3, dim)
        self.positions = nn.Embedding(config.max_len, dim)
        self.segments = nn.Embedding(config.num_segments, dim)
        self.norm = nn.LayerNorm(dim, eps=config.block.norm_eps)
        self.dropout = nn.Dropout(config.block.dropout)
        self.blocks = nn.ModuleList(
            TransformerBlock(config.block) for _ in range(config.num_layers)
        )
        init_weights(self, "normal")

    @property
    def mask_token(self) -> int:
        """Token that replaces a hidden one."""
        return self.config.vocab_size

    @property
    def class_token(self) -> int:
        """Token in front of a text."""
        return self.config.vocab_size + 1

    @property
    def separator(self) -> int:
        """Token between two texts in a row."""
        return self.config.vocab_size + 2

    def forward(
        self, tokens: Tensor, segments: Tensor | None = None, maps: list[Tensor] | None = None
    ) -> Tensor:
        """Tokens (B, T), including the added ones -> features (B, T, dim).

        Args:
            segments: int64 (B, T), kind of each position; None for all 0.
            maps: gets the attention weights of each block appended, (B, H, T, T).
        Raises:
            ValueError: not int64 (B, T) in the vocabulary, or more than `max_len` positions.
        """
        check_tokens(tokens, self.config.vocab_size + 3, self.config.max_len, self)
        kinds = torch.zeros_like(tokens) if segments is None else segments
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.embedding(tokens) + self.positions(places) + self.segments(kinds)
        x, seen = self.dropout(self.norm(x)), padding_mask(tokens, END)
        for block in self.blocks:
            x = block(x, mask=seen, maps=maps)
        return x

    def read(self, x: Tensor, maps: list[Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """Texts (B, T) -> features of the whole text (B, dim) and of each token (B, T, dim).

        Raises:
            ValueError: not int64 (B, T) of text tokens or masks, with T below max_len.
        """
        check_tokens(x, self.config.vocab_size + 1, self.config.max_len - 1, self)
        features = self(F.pad(x, (1, 0), value=self.class_token), maps=maps)
        return features[:, 0], features[:, 1:]


class BERT(Pretrained, nn.Module):
    """An encoder, and logits of the token at each position by the tied token vectors."""

    config_class = BERTConfig

    def __init__(self, config: BERTConfig | None = None):
        super().__init__()
        self.config = config = config or BERTConfig()
        dim, eps = config.block.dim, config.block.norm_eps
        self.encoder = BERTEncoder(config)
        self.head = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.LayerNorm(dim, eps=eps))
        self.bias = nn.Parameter(torch.zeros(config.vocab_size + 3))
        init_weights(self.head, "normal")

    def read_out(self, features: Tensor) -> Tensor:
        """Features (..., dim) -> logits (..., vocab_size + 3)."""
        check_dtype(features, "features", self)
        return F.linear(self.head(features), self.encoder.embedding.weight, self.bias)

    def logits(self, tokens: Tensor, segments: Tensor | None = None) -> Tensor:
        """Tokens (B, T) as `BERTEncoder` takes them -> logits of each position, (B, T, V + 3)."""
        return self.read_out(self.encoder(tokens, segments))

    def loss(self, x: Tensor, generator: torch.Generator | None = None) -> TextLosses:
        """Hide tokens of texts (B, T) at random; mean loss over the predicted ones."""
        config, mask = self.config, self.encoder.mask_token
        check_some(check_tokens(x, config.vocab_size, config.max_len - 1, self), self)
        chosen = hide_tokens(x, config.mask_rate, generator)
        if config.hide_all:
            seen = x.masked_fill(chosen, mask)
        else:
            seen = exchange_tokens(x, chosen, mask, config.vocab_size, generator)
        # Logits are most of the work, so only the predicted positions get them.
        logits, targets = self.read_out(self.encoder.read(seen)[1][chosen]), x[chosen]
        return token_losses(logits, targets, torch.ones_like(targets, dtype=torch.bool))

    @torch.no_grad()
    def fill(self, x: Tensor) -> Tensor:
        """Log probabilities of the tokens at each position of texts (B, T), (B, T, vocab_size).

        Hidden tokens of x are `encoder.mask_token`.
        """
        logits = self.read_out(self.encoder.read(x)[1])
        return logits[..., : self.config.vocab_size].log_softmax(-1)

    def encode(self, x: Tensor) -> Tensor:
        """Texts (B, T) -> mean over their tokens of the features of the last block, (B, dim)."""
        features, there = self.encoder.read(x)[1], (x != END)[:, :, None]
        return (features * there).sum(1) / there.sum(1).clamp_min(1)

    @torch.no_grad()
    def attention_maps(self, x: Tensor) -> list[Tensor]:
        """Attention weights of each block, (B, H, T + 1, T + 1); rows sum to 1."""
        maps: list[Tensor] = []
        self.encoder.read(x, maps)
        return maps


class ClassLosses(NamedTuple):
    """Means over the batch."""

    loss: Tensor
    """Cross-entropy, nats."""
    accuracy: Tensor
    """Share of texts whose class had the highest probability."""


class BERTClassifier(Pretrained, nn.Module):
    """A class for each text, from the token in front of it (Devlin et al. 2019, section 3.2)."""

    config_class = BERTClassifierConfig

    def __init__(self, config: BERTClassifierConfig | None = None):
        super().__init__()
        self.config = config = config or BERTClassifierConfig()
        dim = config.bert.block.dim
        self.encoder = BERTEncoder(config.bert)
        self.pooler = nn.Sequential(
            nn.Linear(dim, dim), nn.Tanh(), nn.Dropout(config.bert.block.dropout)
        )
        self.head = nn.Linear(dim, config.num_classes)
        init_weights(self, "normal")

    @classmethod
    def of(cls, bert: BERT, num_classes: int) -> Self:
        """A classifier that begins with a copy of a trained BERT's encoder."""
        model = cls(BERTClassifierConfig(bert.config, num_classes)).to(**placed(bert))
        model.encoder.load_state_dict(bert.encoder.state_dict())
        return model

    def logits(self, x: Tensor) -> Tensor:
        """Texts (B, T) -> logits of the classes (B, num_classes)."""
        config = self.config.bert
        check_tokens(x, config.vocab_size, config.max_len - 1, self)
        return self.head(self.pooler(self.encoder.read(x)[0]))

    def loss(self, x: Tensor, labels: Tensor) -> ClassLosses:
        """Texts (B, T) and their classes (B,)."""
        logits = self.logits(check_some(x, self))
        check_labels(labels, *logits.shape, who="this classifier")
        right = (logits.detach().argmax(1) == labels).float().mean()
        return ClassLosses(F.cross_entropy(logits, labels), right)
