"""Settings that the learners of several families share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from generative.training.ranges import Checked, CountOrZero, NonNegative, Positive, Share

__all__ = ["AdamWConfig", "MuonConfig"]


@dataclass(frozen=True, kw_only=True)
class AdamWConfig(Checked):
    """Settings of `generative.training.optimisation.adamw`: Adam with decoupled weight decay."""

    lr: Positive = 1e-3
    """Learning rate."""
    final_lr: NonNegative = 1e-3
    """Learning rate at the last step; cosine from `lr` (equal: constant, as in the book)."""
    adam_eps: Positive = 1e-7
    """Adam's epsilon (the book's framework has 1e-7)."""
    weight_decay: NonNegative = 0.0
    """Decoupled weight decay (AdamW), of matrices only."""
    clip: NonNegative = 0.0
    """Largest norm of the gradient; 0 for no limit."""
    ema: Share = 0.0
    """Decay of the average of the weights that is kept in their place; 0 keeps the last weights."""


@dataclass(frozen=True, kw_only=True)
class MuonConfig(AdamWConfig):
    """Settings of `generative.training.optimisation.make_optimizers`: AdamW, with Muon for hidden
    matrices if wanted, and a learning rate that rises first."""

    optimizer: Literal["adam", "muon"] = "adam"
    """Muon orthogonalises the steps of the network's inner matrices (Jordan et al. 2024)."""
    warmup: CountOrZero = 0
    """Steps over which the learning rate rises from 0."""
    beta2: Share = 0.999
    """Adam's beta_2, the decay of the average of squared gradients."""

    @classmethod
    def upgrade(cls, settings: dict[str, Any]) -> dict[str, Any]:
        """Older settings of most families have Adam alone, and some no rise of the rate."""
        return {"optimizer": "adam", "warmup": 0, "beta2": 0.999, **settings}
