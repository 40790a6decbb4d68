"""Settings of Boltzmann machines."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class BoltzmannConfig:
    """A Boltzmann machine: every unit is connected with every other."""

    shape: tuple[int, ...] = (9,)
    """Of one example: (D,) or (C, H, W) bits."""
    hidden_dim: int = 4
    """Hidden units; 0 for none."""
    sample_steps: int = 200
    """Sweeps over all units by `sample`."""

    def __post_init__(self) -> None:
        _check_shape(self.shape)
        if self.hidden_dim < 0 or self.sample_steps < 1:
            raise ValueError(
                f"hidden_dim is {self.hidden_dim} and sample_steps {self.sample_steps}; the first "
                "may not be negative, the second must be at least 1"
            )


@dataclass(frozen=True)
class RBMConfig:
    """A restricted Boltzmann machine: visible units see hidden ones only, and the reverse."""

    shape: tuple[int, ...] = (1, 28, 28)
    """Of one example: (D,) or (C, H, W) bits."""
    hidden_dim: int = 128
    """Hidden units; up to 20 (or as few visible ones) the partition function is summed up."""
    sample_steps: int = 1000
    """Gibbs steps of `sample`."""

    def __post_init__(self) -> None:
        _check_shape(self.shape)
        if self.hidden_dim < 1 or self.sample_steps < 1:
            raise ValueError(
                f"hidden_dim is {self.hidden_dim} and sample_steps {self.sample_steps}; both must "
                "be at least 1"
            )


@dataclass(frozen=True)
class DBNConfig:
    """A deep belief network: restricted Boltzmann machines on top of each other."""

    shape: tuple[int, ...] = (1, 28, 28)
    """Of one example: (D,) or (C, H, W) bits."""
    hidden_dims: tuple[int, ...] = (256, 64)
    """Units of each layer, upwards."""
    sample_steps: int = 1000
    """Gibbs steps in the upper two layers by `sample`."""

    def __post_init__(self) -> None:
        _check_shape(self.shape)
        if not self.hidden_dims or min(self.hidden_dims) < 1 or self.sample_steps < 1:
            raise ValueError(
                f"hidden_dims are {self.hidden_dims} and sample_steps {self.sample_steps}; give "
                "one layer or more, and positive numbers"
            )


@dataclass(frozen=True)
class RBMLossConfig:
    """How a Boltzmann machine learns: what its own samples are, and how far a step goes."""

    method: Literal["cd", "pcd", "exact"] = "cd"
    """cd: Gibbs chains begin at the data (Hinton 2002). pcd: they go on from the last step
    (Tieleman 2008). exact: no samples, the gradient of the likelihood of an enumerable machine."""
    k: int = 1
    """Gibbs steps of an update."""
    num_chains: int = 0
    """pcd: chains; 0 for as many as the batch has examples."""
    num_temperatures: int = 1
    """pcd: more than 1 has chains at so many temperatures exchange their states (Desjardins et al.
    2010), which lets them reach what lies beyond unlikely states."""
    optimizer: Literal["sgd", "adam"] = "sgd"
    """Plain gradient steps, or Adam."""
    lr: float = 0.01
    """Learning rate."""
    final_lr: float = 0.01
    """Learning rate at the last step; cosine from `lr` (equal: constant)."""
    weight_decay: float = 0.0
    """Shrinks weights, not biases, by lr * weight_decay in every step."""
    ema: float = 0.0
    """Decay of the average of the weights that is kept in their place; 0 keeps the last weights."""

    def __post_init__(self) -> None:
        if self.k < 1 or self.num_chains < 0 or self.num_temperatures < 1:
            raise ValueError(
                f"k is {self.k}, num_chains {self.num_chains}, num_temperatures "
                f"{self.num_temperatures}; k and num_temperatures must be at least 1"
            )
        if self.num_temperatures > 1 and self.method != "pcd":
            raise ValueError(
                f"num_temperatures is {self.num_temperatures} with method {self.method}; only the "
                "chains of pcd have temperatures"
            )
        if not self.lr > 0 or not 0 <= self.ema < 1 or self.weight_decay < 0:
            raise ValueError(
                f"lr is {self.lr}, weight_decay {self.weight_decay}, ema {self.ema}; lr must be "
                "positive, weight_decay not negative, ema from 0 to below 1"
            )


def _check_shape(shape: tuple[int, ...]) -> None:
    if len(shape) not in (1, 3) or math.prod(shape) < 1 or min(shape) < 1:
        raise ValueError(f"shape is {shape}; give (D,) or (C, H, W) of positive numbers")
