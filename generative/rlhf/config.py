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

__all__ = ["DPOConfig", "GRPOConfig", "TextPPOConfig", "RolloutConfig"]


@dataclass(frozen=True)
class DPOConfig(TextLossConfig):
    """Direct preference optimisation (Rafailov et al. 2023): a loss of ranked answers."""

    beta: Positive = 0.5
    """Price in reward of one nat of KL(policy || reference). Without it, the best policy gives only
    the single best answer."""


@dataclass(frozen=True)
class RolloutConfig(Checked):
    """Settings of PPO and GRPO: each update draws answers and trains on them a few times."""

    beta: Positive = 0.5
    """Price in reward of one nat of KL(policy || reference). Without it, the best policy gives only
    the single best answer."""
    lr: Positive = 2e-3
    """Learning rate of Adam."""
    final_lr: Positive = 2e-5
    """Learning rate at the last step; cosine from `lr`."""
    max_norm: NonNegative = 1.0
    """Largest norm of the gradient; 0 for no limit."""
    ema: Share = 0.99
    """Decay of the average of the weights that is kept in their place; 0 keeps the last weights."""
    clip: Share = 0.2
    """Largest rewarded distance from 1 of the ratio of new to old probability."""
    num_epochs: Size = 2
    """Passes of an update over its answers."""
    num_minibatches: Size = 2
    """Minibatches of a pass, with one step each."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.final_lr > self.lr:
            raise ValueError(f"lr is {self.lr} and final_lr {self.final_lr}; give 0 < final <= lr")
        if not self.clip:
            raise ValueError(f"clip is {self.clip}; give a share between 0 and 1")


@dataclass(frozen=True)
class TextPPOConfig(RolloutConfig):
    """Proximal policy optimisation (Schulman et al. 2017) as in InstructGPT."""

    gae_lambda: Probability = 0.95
    """Lambda of generalised advantage estimation: 0 trusts the value network, 1 drawn rewards."""
    gamma: Quantile = 1.0
    """Discount per token."""
    value_lr: Positive = 3e-3
    """Learning rate of the value network; it falls as `lr` does."""


@dataclass(frozen=True)
class GRPOConfig(RolloutConfig):
    """Group relative policy optimisation: the other answers to a prompt are the baseline.

    Published (Shao et al. 2024) with divide_by_std, mean_of_answer and kl_in "loss". Each of these
    moves the optimum; the defaults leave them out (as in Liu et al. 2025, "Dr. GRPO").
    """

    group_size: Annotated[int, Range(2, 2**20)] = 8
    """Answers to each prompt."""
    divide_by_std: bool = False
    """Divide advantages by the standard deviation in the group: small differences in one group then
    count as much as large ones in another."""
    mean_of_answer: bool = False
    """Average over the tokens of an answer: a token of a long answer then counts less."""
    kl_in: Literal["reward", "loss"] = "reward"
    """Place of the KL price. In the loss its estimate has the right value, but the gradient of
    KL(reference || policy)."""
