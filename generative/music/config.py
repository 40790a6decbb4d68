"""Settings of the models of notes: recurrent networks on piano rolls, Transformers on words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from generative.nets.config import BlockConfig
from generative.training.config import AdamWConfig
from generative.training.ranges import (
    Checked,
    CountOrZero,
    Depth,
    Length,
    Share,
    Size,
    SizeOrZero,
)


@dataclass(frozen=True)
class MusicRNNConfig(Checked):
    """A recurrent network that gives each key a probability at the next time step."""

    num_keys: Size = 88
    """Keys of a frame; a piano's 88."""
    cell: Literal["lstm", "gru"] = "lstm"
    """Kind of the units: Hochreiter & Schmidhuber 1997, or Cho et al. 2014."""
    hidden_dim: Size = 200
    """Units of a layer."""
    num_layers: Depth = 1
    """Layers, each on the one below."""
    input_dropout: Share = 0.0
    """Share of the previous frame's keys that are dropped in training."""
    dropout: Share = 0.0
    """Share of the units dropped in training, after every layer."""
    length: Size = 64
    """Frames of a sample by default."""


def book_block() -> BlockConfig:
    """The block of the book's music model: five heads of 256, as wide as two words together."""
    return BlockConfig(dim=256, num_heads=5, key_dim=256, ff_dim=256, dropout=0.3)


@dataclass(frozen=True)
class MusicTransformerConfig(Checked):
    """A decoder of one or more streams of words; the defaults are the book's (chapter 11)."""

    streams: Annotated[tuple[str, ...], Length(0, 16)] = ()
    """Words of each stream, separated by spaces, in the order of their numbers from 2 on (0 is
    padding, 1 an unknown word). A training script takes them from its data."""
    embed_dim: Size = 128
    """Width of a word's vector in each stream; an element is the words of all streams."""
    network: Literal["attention", "lstm"] = "attention"
    """Network that reads the past: Transformer blocks, or for comparison an LSTM."""
    block: BlockConfig = field(default_factory=book_block)
    """Block of attention; its width is embed_dim times the number of streams."""
    num_layers: Depth = 1
    """Blocks, or layers of the LSTM."""
    lstm_dim: Size = 256
    """Units of a layer of the LSTM."""
    relative: SizeOrZero = 0
    """Distances, in elements, with a vector of relative attention; farther ones share the last
    vector (Huang et al. 2018). 0: only the sines tell positions."""
    chained: bool = False
    """Condition each stream on the earlier streams' words of the same element: the duration knows
    its note. Otherwise streams are independent given the past, as in the book."""
    clock: bool = False
    """For notes and durations: add the time at the end of each element, as sines with periods from
    half a quarter note to 16. Attention does not count, and rhythm needs it."""
    length: Size = 50
    """Elements that the model sees, and those of a sample by default."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.clock and len(self.streams) not in (0, 2):
            raise ValueError(f"clock needs notes and durations, not {len(self.streams)} stream(s)")
        width = self.embed_dim * len(self.streams)
        if self.streams and self.network == "attention" and self.block.dim != width:
            raise ValueError(
                f"block.dim is {self.block.dim}; {len(self.streams)} streams of embed_dim "
                f"{self.embed_dim} need {width}"
            )


@dataclass(frozen=True)
class MusicLossConfig(AdamWConfig):
    """Training settings of a model of notes: Adam on the mean over all but padding."""

    ema: Share = 0.0
    """Decay of the average of the weights that is validated and kept; 0: the last weights."""
    count_padding: bool = False
    """Also count padding behind the end of a piece, as programs do that do not mask it."""
    validate_every: CountOrZero = 0
    """Steps between two validations; the weights of the best are kept. 0 keeps the last."""
