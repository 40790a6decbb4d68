"""Settings of learning from human feedback: the three ways to move a policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from generative.text.config import TextLossConfig
from generative.training.ranges import (
    Checked,
    NonNegative,
    Positive,
    Probability,
    Quantile,
    Range,
    Share,
    Size,
)

__all__ = ["DPOConfig", "GRPOConfig", "PPOConfig", "RolloutConfig"]


@dataclass(frozen=True)
class DPOConfig(TextLossConfig):
    """Direct preference optimisation (Rafailov et al. 2023): a loss of ranked answers."""

    beta: Positive = 0.5
    """Reward that one nat away from the reference has to bring. Without a price, nothing is best
    but the single best answer."""


@dataclass(frozen=True)
class RolloutConfig(Checked):
    """What PPO and GRPO share: each update draws answers and learns from them a few times."""

    beta: Positive = 0.5
    """Reward that one nat away from the reference has to bring. Without a price, nothing is best
    but the single best answer."""
    lr: Positive = 2e-3
    """Learning rate of Adam."""
    final_lr: Positive = 2e-5
    """Learning rate at the last step; cosine from `lr`."""
    max_norm: NonNegative = 1.0
    """Largest norm of the gradient; 0 for no limit."""
    ema: Share = 0.99
    """Decay of the average of the weights that is kept in their place; 0 keeps the last weights."""
    clip: Share = 0.2
    """How far the ratio of new to old probability may leave 1 and still be rewarded."""
    num_epochs: Size = 2
    """Times that an update goes through its answers."""
    num_minibatches: Size = 2
    """Parts, with a step each, in which it does so."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.final_lr > self.lr:
            raise ValueError(f"lr is {self.lr} and final_lr {self.final_lr}; give 0 < final <= lr")
        if not self.clip:
            raise ValueError(f"clip is {self.clip}; give a share between 0 and 1")


@dataclass(frozen=True)
class PPOConfig(RolloutConfig):
    """Proximal policy optimisation (Schulman et al. 2017) as InstructGPT has it."""

    gae_lambda: Probability = 0.95
    """0 trusts the value network, 1 what was drawn (generalised advantage estimation)."""
    gamma: Quantile = 1.0
    """Discount a token."""
    value_lr: Positive = 3e-3
    """Learning rate of the value network; it falls as `lr` does."""


@dataclass(frozen=True)
class GRPOConfig(RolloutConfig):
    """Group relative policy optimisation: other answers to the same prompt are the baseline.

    Published (Shao et al. 2024) with divide_by_std, mean_of_answer and kl_in "loss". Each of these
    moves the optimum; the defaults are without (as in Liu et al. 2025, "Dr. GRPO").
    """

    group_size: Annotated[int, Range(2, 2**20)] = 8
    """Answers to each prompt."""
    divide_by_std: bool = False
    """Divide advantages by the deviation in the group: where answers are equally good, small
    differences then count as much as large ones elsewhere."""
    mean_of_answer: bool = False
    """Take the mean over the tokens of an answer: a token of a long answer then counts less."""
    kl_in: Literal["reward", "loss"] = "reward"
    """Where the price of leaving the reference is. In the loss it is an estimate that is right in
    value, but has the gradient of KL(reference || policy)."""
