"""Sizes and settings of the Transformer that can be M, in a module that does not load torch."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["TransformerMemoryConfig"]


@dataclass(frozen=True)
class TransformerMemoryConfig:
    """M as a causal Transformer; by default as large as the paper's MDN-RNN (422,368 weights)."""

    latent_dim: int = 32
    """Size of V's z."""
    action_dim: int = 3
    """Numbers in an action."""
    hidden_dim: int = 192
    """Width of the Transformer, and size of the h that C sees."""
    num_mixtures: int = 5
    """Gaussians per latent dimension."""
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
    reward_input: bool = False
    """Feed the previous reward beside z and the action."""
    predict_reward: bool = False
    """Add a head for the reward."""
    predict_end: bool = False
    """Add a head for the end of the episode (a logit)."""
    residual: bool = False
    """Mixture means are changes of z instead of z itself."""
    dropout: float = 0.0
    """Share of h hidden from the heads in training; a dream keeps one mask."""
    reward_scale: float = 1.0
    """Rewards are divided by this inside M and multiplied by it on the way out."""

    def __post_init__(self) -> None:
        for name in ("num_layers", "num_heads", "head_dim", "ff_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.context < 2:
            raise ValueError(f"context is {self.context}; with less than 2 there is no memory")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}; it must lie in [0, 1)")
        if self.reward_scale <= 0:
            raise ValueError(f"reward_scale is {self.reward_scale}; it must be positive")

    @property
    def input_dim(self) -> int:
        """Numbers that are read at a step."""
        return self.latent_dim + self.action_dim + self.reward_input

    @property
    def output_dim(self) -> int:
        """Numbers that the heads give out at a step."""
        mixture = 3 * self.num_mixtures * self.latent_dim
        return mixture + self.predict_reward + self.predict_end

    @property
    def state_dim(self) -> int:
        """Numbers in c: keys and values of the past context, and how much of it there is."""
        width = self.num_heads * self.head_dim
        return 2 * self.num_layers * (self.context - 1) * width + 1
