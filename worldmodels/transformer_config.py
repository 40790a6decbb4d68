"""Sizes and settings of the Transformer that can be M, in a module that does not load torch."""

from __future__ import annotations

from dataclasses import dataclass

from worldmodels.configs import MemoryConfig

__all__ = ["TransformerMemoryConfig"]


@dataclass(frozen=True)
class TransformerMemoryConfig(MemoryConfig):
    """M as a causal Transformer; by default as large as the paper's MDN-RNN (422,368 weights)."""

    hidden_dim: int = 192
    """Width of the Transformer, and size of the h that C sees."""
    num_layers: int = 2
    """Blocks of attention and feed-forward network."""
    num_heads: int = 4
    """Attention heads of a block."""
    head_dim: int = 16
    """Width of the queries, keys and values of each head: a state holds keys and values of the
    whole context."""
    ff_dim: int = 280
    """Width of the hidden layer behind the attention."""
    context: int = 32
    """Decisions that a block looks at, the present one among them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("num_layers", "num_heads", "head_dim", "ff_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.context < 2:
            raise ValueError(f"context is {self.context}; with less than 2 there is no memory")

    @property
    def state_dim(self) -> int:
        """Numbers in c: keys and values of the past context, and how much of it there is."""
        width = self.num_heads * self.head_dim
        return 2 * self.num_layers * (self.context - 1) * width + 1
