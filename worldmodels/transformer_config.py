"""Sizes and settings of the Transformer that can be M, in a module that does not load torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from generative.training.ranges import Depth, Range, Size
from worldmodels.configs import MemoryConfig

__all__ = ["TransformerMemoryConfig"]


@dataclass(frozen=True)
class TransformerMemoryConfig(MemoryConfig):
    """M as a causal Transformer; by default as large as the paper's MDN-RNN (422,368 weights)."""

    hidden_dim: Size = 192
    """Width of the Transformer, and size of the h that C sees."""
    num_layers: Depth = 2
    """Blocks of attention and feed-forward network."""
    num_heads: Size = 4
    """Attention heads of a block."""
    head_dim: Size = 16
    """Width of the queries, keys and values of each head: a state holds keys and values of the
    whole context."""
    ff_dim: Size = 280
    """Width of the hidden layer behind the attention."""
    context: Annotated[int, Range(2, 2**16)] = 32
    """Decisions that a block looks at, the present one among them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.state_dim > 2**22:
            raise ValueError(
                f"a context of {self.context} takes {self.state_dim} numbers of state, at most "
                f"{2**22} are kept; give a smaller context, or fewer or narrower heads"
            )

    @property
    def state_dim(self) -> int:
        """Numbers in c: keys and values of the past context, and how much of it there is."""
        width = self.num_heads * self.head_dim
        return 2 * self.num_layers * (self.context - 1) * width + 1
