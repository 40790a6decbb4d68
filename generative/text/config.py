"""Settings of recurrent text models, GPT, BERT, T5, and of their training."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from generative.nets.config import BlockConfig, bert_block, gpt2_block, t5_block
from generative.training.config import MuonConfig
from generative.training.ranges import (
    Checked,
    Choices,
    Count,
    Depth,
    Finite,
    Range,
    Share,
    Size,
)

__all__ = [
    "BERTClassifierConfig",
    "BERTConfig",
    "BidirectionalConfig",
    "BlockConfig",
    "GPTConfig",
    "RecurrentTextConfig",
    "T5Config",
    "TextLossConfig",
    "ToolformerConfig",
    "bert_block",
    "gpt2_block",
    "t5_block",
]

VocabularySize = Annotated[int, Range(3, 2**20)]
"""Size of a vocabulary; tokens 0 and 1 are reserved."""
Rate = Annotated[float, Range(0, 1, above=True, below=True)]
Cell = Literal["lstm", "gru", "gru-before", "rnn"]
"""LSTM; GRU as in torch, with the reset gate after the matrix; GRU as published and in the book,
with the reset gate before it (slow, step by step); plain tanh."""


@dataclass(frozen=True)
class RecurrentTextConfig(Checked):
    """A recurrent network that predicts the next token; the defaults are the book's (chapter 5)."""

    vocab_size: VocabularySize = 10_000
    """Tokens, with 0 (the end of a text, and what stands after it) and 1 (unknown)."""
    embed_dim: Size = 100
    """Width of a token's vector."""
    hidden_dim: Size = 128
    """Units of each layer."""
    num_layers: Depth = 1
    """Recurrent layers, each reading the states of the one below (the book's stacked LSTM: 2)."""
    cell: Cell = "lstm"
    """Kind of the units."""
    dropout: Share = 0.0
    """Share of states between layers that is dropped in training."""
    length: Size = 200
    """Tokens of a sample."""
    from_start: bool = True
    """A text begins after the end of another, so that its first token has a probability too, and so
    have prompts. Without, the first is given: texts are windows of a longer one, or all begin
    alike, as in the book."""


@dataclass(frozen=True)
class BidirectionalConfig(Checked):
    """Two recurrent networks, from left and from right, that fill in hidden tokens."""

    vocab_size: VocabularySize = 10_000
    """Tokens, with 0 (the end of a text, and what stands after it) and 1 (unknown); one more, the
    mask, is added."""
    embed_dim: Size = 100
    """Width of a token's vector."""
    hidden_dim: Size = 100
    """Units of each direction; a position's state joins both, 200 numbers in the book."""
    num_layers: Depth = 1
    """Layers, each reading both directions of the one below."""
    cell: Literal["lstm", "gru"] = "gru"
    """Kind of the units."""
    mask_rate: Rate = 0.15
    """Share of tokens that are hidden in training."""


@dataclass(frozen=True)
class GPTConfig(Checked):
    """A causal Transformer; the defaults are the book's for wine reviews (chapter 9)."""

    vocab_size: VocabularySize = 10_000
    """Tokens, with 0 (the end of a text, and what stands after it) and 1 (unknown)."""
    max_len: Size = 80
    """Longest text; each position has a vector, unless block.rotary is set."""
    num_layers: Depth = 1
    """Transformer blocks."""
    block: BlockConfig = field(default_factory=BlockConfig)
    tied: bool = False
    """Use the token vectors for the output too, without a bias, as GPT-2 does."""
    init: Literal["glorot", "normal"] = "glorot"
    """Initial weights: those of the book's framework, or GPT-2's."""
    from_start: bool = True
    """A text begins after the end of another, so that its first token has a probability too, and so
    have prompts. Without, the first is given: texts are windows of a longer one, or all begin
    alike, as in the book."""


@dataclass(frozen=True)
class BERTConfig(Checked):
    """An encoder that fills in hidden tokens; a small one by default."""

    vocab_size: VocabularySize = 10_000
    """Tokens, with 0 (the end of a text, and what stands after it) and 1 (unknown); three more, the
    mask, the class and the separator, are added."""
    max_len: Size = 128
    """Number of positions with a vector."""
    num_layers: Depth = 4
    """Transformer blocks."""
    block: BlockConfig = field(default_factory=lambda: bert_block(256, 4))
    num_segments: Size = 2
    """Number of kinds of a position, such as first and second sentence."""
    mask_rate: Rate = 0.15
    """Share of tokens that are predicted in training: 80 % of them hidden, 10 % replaced by a
    random one, 10 % unchanged."""
    hide_all: bool = False
    """Hide all predicted tokens instead: the optimum is then the exact posterior."""


@dataclass(frozen=True)
class BERTClassifierConfig(Checked):
    """BERT with a head that classifies texts."""

    bert: BERTConfig = field(default_factory=BERTConfig)
    num_classes: Choices = 2


@dataclass(frozen=True)
class T5Config(Checked):
    """An encoder and a decoder, text in and text out; a small one by default."""

    vocab_size: VocabularySize = 10_000
    """Tokens, with 0 (the end of a text, and what the decoder begins with) and 1
    (unknown); `num_sentinels` are added."""
    num_sentinels: Size = 32
    """Number of sentinel tokens, which mark cut-out spans."""
    num_layers: Depth = 4
    """Blocks of the encoder, and as many of the decoder."""
    block: BlockConfig = field(default_factory=lambda: t5_block(256, 4))
    num_buckets: Annotated[int, Range(4, 2**16)] = 32
    """Number of buckets of distances; half of them hold one distance each."""
    max_distance: Size = 128
    """Farther distances share the last bucket."""
    max_len: Size = 512
    """Longest accepted source and target; no weight depends on it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_buckets % 4 or self.max_distance <= self.num_buckets:
            raise ValueError(
                f"num_buckets is {self.num_buckets} and max_distance {self.max_distance}; give a "
                "multiple of 4, and a distance above it"
            )


@dataclass(frozen=True)
class TextLossConfig(MuonConfig):
    """Loss and optimiser of a model of texts; the defaults are the book's optimiser."""

    padding: bool = False
    """Also count the positions after the end of a text, as the book does: most of them, and trivial
    ones."""


@dataclass(frozen=True)
class ToolformerConfig(Checked):
    """Search for calls of tools that help a model of texts (Schick et al. 2023, section 2)."""

    min_probability: Share = 0.05
    """A call is tried only where the model begins one with more than this probability (tau_s)."""
    num_places: Count = 2
    """Most places of a text where calls are tried, the most probable ones."""
    num_calls: Count = 4
    """Calls that are drawn for each place."""
    min_gain: Finite = 0.5
    """Nats a token that the result has to save, for the call to be kept (tau_f)."""
    falloff: Annotated[float, Range(0, 1, above=True)] = 0.2
    """Weight that each further token behind a call loses: 0.2 counts the next five."""
    longest: Count = 24
    """Most characters of a call."""
