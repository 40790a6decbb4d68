"""Settings of agents that Stable-Baselines3 trains. This module loads neither it nor torch."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from generative.training.hub import find_folder, where_else
from generative.training.ranges import (
    Checked,
    Count,
    CountOrZero,
    Finite,
    NonNegative,
    Positive,
    Probability,
    Range,
    Size,
    Sizes,
)

__all__ = [
    "AGENT_NAME",
    "POLICY_NAME",
    "Algorithm",
    "NetworkConfig",
    "Observation",
    "OffPolicyConfig",
    "PPOConfig",
    "PolicyConfig",
    "SpaceConfig",
    "find_agent",
]

POLICY_NAME = "policy"
"""Name of the folder in an agent's folder that holds the networks of Stable-Baselines3."""

AGENT_NAME = "agent.json"
"""Name of the file of settings in the folder of an agent with a world model."""


def find_agent(
    path: Path | str, held: Collection[str] = (AGENT_NAME, POLICY_NAME, f"agent/{POLICY_NAME}")
) -> Path:
    """Find an agent, before anything large is imported to read it; returns its folder or archive.

    Args:
        path: a folder that has one of the names `held`, or an archive; or owner/name[@revision] of
            such a folder on the hub.
    Raises:
        FileNotFoundError: the path holds none; says what to pass.
        ConnectionError: the hub was asked, and could not be reached.
    """
    path = find_folder(path)
    if not path.is_file() and not any((path / name).exists() for name in held):
        raise FileNotFoundError(
            f"{path} holds no agent (no {AGENT_NAME}); pass a folder that train_in_dream.py or "
            f"WorldModelAgent.save_pretrained wrote{where_else(path)}"
        )
    return path


Algorithm = Literal["ppo", "dqn", "sac"]
Observation = Literal["pixels", "z", "zh"]


@dataclass(frozen=True)
class NetworkConfig(Checked):
    """The networks of a policy."""

    policy: Sizes = (64, 64)
    """Hidden layers between observation and action; none makes the policy linear. (DQN: those of
    the action values.)"""
    value: Sizes = (64, 64)
    """Hidden layers of the value network (SAC: of the action values)."""
    activation: Literal["tanh", "relu"] = "tanh"
    """Activation between hidden layers."""
    log_std: Finite = 0.0
    """PPO: initial log standard deviation of the action noise, in the action's own units."""
    initial_action: tuple[Finite, ...] | None = None
    """PPO on a Box: the initial mean action; zeros by default."""
    sde: bool = False
    """PPO and SAC: noise that depends on the state (gSDE, Raffin et al. 2021) instead of fresh
    noise in every decision."""


@dataclass(frozen=True)
class PPOConfig(Checked):
    """Proximal policy optimisation (Schulman et al. 2017); Stable-Baselines3's defaults."""

    lr: Positive = 3e-4
    """Adam's learning rate."""
    final_lr: NonNegative | None = None
    """Learning rate at the end, reached linearly; None keeps it constant."""
    n_steps: Count = 2048
    """Decisions per environment between two updates."""
    batch_size: Count = 64
    """Decisions per gradient step."""
    n_epochs: Count = 10
    """Passes of an update over its decisions."""
    gamma: Probability = 0.99
    """Discount per decision."""
    gae_lambda: Probability = 0.95
    """Lambda of generalised advantage estimation: bias against variance (Schulman et al. 2016)."""
    clip_range: Positive = 0.2
    """Largest distance of the probability ratio from 1."""
    ent_coef: NonNegative = 0.0
    """Weight of the entropy bonus."""
    vf_coef: NonNegative = 0.5
    """Weight of the value's squared error."""
    max_grad_norm: Positive = 0.5
    """Largest norm of the gradient."""
    target_kl: Positive | None = None
    """KL divergence from the initial policy of an update; it ends early beyond 1.5 times this."""


@dataclass(frozen=True)
class OffPolicyConfig(Checked):
    """Training settings of DQN (Mnih et al. 2015) and SAC (Haarnoja et al. 2018)."""

    lr: Positive = 3e-4
    """Adam's learning rate."""
    buffer_size: Count = 100_000
    """Decisions in the replay buffer; 12 KB each with 64x64 pixels, which are stored twice."""
    learning_starts: CountOrZero = 1000
    """Decisions taken at random before the first update."""
    batch_size: Count = 256
    """Decisions per gradient step."""
    gamma: Probability = 0.99
    """Discount per decision."""
    train_freq: Count = 4
    """Decisions per environment between updates."""
    gradient_steps: Annotated[int, Range(-1, 2**20)] = -1
    """Gradient steps per update; -1: as many as decisions were taken."""
    target_update_interval: Count = 1000
    """DQN: decisions between two updates of the target network."""
    exploration_fraction: Probability = 0.2
    """DQN: share of the training over which the rate of random actions falls."""
    exploration_final: Probability = 0.05
    """DQN: rate of random actions after that."""


@dataclass(frozen=True)
class SpaceConfig(Checked):
    """A Box or Discrete space of Gymnasium, of at most 16 million numbers."""

    kind: Literal["Box", "Discrete"]
    shape: Sizes = ()
    low: tuple[float, ...] = ()
    """Lower bounds of a Box, flat; one number if all are equal."""
    high: tuple[float, ...] = ()
    dtype: Literal[
        "float16", "float32", "float64", "uint8", "uint16", "uint32", "uint64",
        "int8", "int16", "int32", "int64",
    ] = "float32"  # fmt: skip
    n: Annotated[int, Range(0, 2**20)] = 0
    """Number of actions of a Discrete space."""
    start: Annotated[int, Range(-(2**40), 2**40)] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if math.prod(self.shape) > 2**24:
            raise ValueError(f"shape is {self.shape}; a space has at most {2**24:,} numbers")


@dataclass(frozen=True)
class PolicyConfig(Checked):
    """Settings that rebuild a saved policy and say how it acts."""

    algorithm: Algorithm
    observation: Observation
    """Input of the policy: frames, V's z, or z and M's h."""
    observation_space: SpaceConfig
    action_space: SpaceConfig
    network: NetworkConfig = field(default_factory=NetworkConfig)
    action_repeat: Size = 1
    """Environment steps for which an action is held."""
    frame_stack: Annotated[int, Range(1, 64)] = 1
    """Frames of the last decisions that a policy of pixels sees at once."""
    trained_in: Literal["dream", "real"] = "dream"
    decisions: CountOrZero = 0
    """Decisions that the policy was trained on."""
    world: str = "."
    """Folder of vision/ and memory/, relative to the agent's."""
    world_sha256: str = ""
    """SHA-256 of their manifests, so that another V or M is noticed."""
