"""Settings of learning from human feedback: the three ways to move a policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from generative.configs.text import TextLossConfig

__all__ = ["DPOConfig", "GRPOConfig", "PPOConfig", "RolloutConfig"]


@dataclass(frozen=True)
class DPOConfig(TextLossConfig):
    """Direct preference optimisation (Rafailov et al. 2023): a loss of ranked answers."""

    beta: float = 0.5
    """Reward that one nat away from the reference has to bring."""

    def __post_init__(self) -> None:
        _check_beta(self.beta)


@dataclass(frozen=True)
class RolloutConfig:
    """What PPO and GRPO share: each update draws answers and learns from them a few times."""

    beta: float = 0.5
    """Reward that one nat away from the reference has to bring."""
    lr: float = 2e-3
    """Learning rate of Adam."""
    final_lr: float = 2e-5
    """Learning rate at the last step; cosine from `lr`."""
    max_norm: float = 1.0
    """Largest norm of the gradient; 0 for no limit."""
    ema: float = 0.99
    """Decay of the average of the weights that is kept in their place; 0 keeps the last weights."""
    clip: float = 0.2
    """How far the ratio of new to old probability may leave 1 and still be rewarded."""
    num_epochs: int = 2
    """Times that an update goes through its answers."""
    num_minibatches: int = 2
    """Parts, with a step each, in which it does so."""

    def __post_init__(self) -> None:
        _check_beta(self.beta)
        if not 0 < self.final_lr <= self.lr:
            raise ValueError(f"lr is {self.lr} and final_lr {self.final_lr}; give 0 < final <= lr")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema is {self.ema}; give a decay from 0 up to below 1")
        if not 0 < self.clip < 1:
            raise ValueError(f"clip is {self.clip}; give a share between 0 and 1")
        for name in ("num_epochs", "num_minibatches"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")


@dataclass(frozen=True)
class PPOConfig(RolloutConfig):
    """Proximal policy optimisation (Schulman et al. 2017) as InstructGPT has it."""

    gae_lambda: float = 0.95
    """0 trusts the value network, 1 what was drawn (generalised advantage estimation)."""
    gamma: float = 1.0
    """Discount a token."""
    value_lr: float = 3e-3
    """Learning rate of the value network; it falls as `lr` does."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (0 <= self.gae_lambda <= 1 and 0 < self.gamma <= 1):
            raise ValueError(
                f"gae_lambda is {self.gae_lambda} and gamma {self.gamma}; give shares up to 1"
            )


@dataclass(frozen=True)
class GRPOConfig(RolloutConfig):
    """Group relative policy optimisation: other answers to the same prompt are the baseline.

    Published (Shao et al. 2024) with divide_by_std, mean_of_answer and kl_in "loss". Each of these
    moves the optimum; the defaults are without (as in Liu et al. 2025, "Dr. GRPO").
    """

    group_size: int = 8
    """Answers to each prompt."""
    divide_by_std: bool = False
    """Divide advantages by the deviation in the group: where answers are equally good, small
    differences then count as much as large ones elsewhere."""
    mean_of_answer: bool = False
    """Take the mean over the tokens of an answer: a token of a long answer then counts less."""
    kl_in: Literal["reward", "loss"] = "reward"
    """Where the price of leaving the reference is. In the loss it is an estimate that is right in
    value, but has the gradient of KL(reference || policy)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.group_size < 2:
            raise ValueError(f"group_size is {self.group_size}; a baseline needs 2 answers or more")


def _check_beta(beta: float) -> None:
    if beta <= 0:
        raise ValueError(
            f"beta is {beta}; give one above 0: without a price nothing is best but the single "
            "best answer"
        )
