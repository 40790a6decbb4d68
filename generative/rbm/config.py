"""Settings of Boltzmann machines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from generative.training.ranges import (
    Checked,
    Depth,
    NonNegative,
    Positive,
    Share,
    Size,
    SizeOrZero,
    Widths,
)


@dataclass(frozen=True)
class BoltzmannConfig(Checked):
    """A Boltzmann machine: every unit is connected with every other."""

    shape: Widths = (9,)
    """Shape of one example: (D,) or (C, H, W) bits."""
    hidden_dim: SizeOrZero = 4
    """Hidden units; 0 for none."""
    sample_steps: Size = 200
    """Sweeps over all units by `sample`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_shape(self.shape)


@dataclass(frozen=True)
class RBMConfig(Checked):
    """A restricted Boltzmann machine: visible units see hidden ones only, and the reverse."""

    shape: Widths = (1, 28, 28)
    """Shape of one example: (D,) or (C, H, W) bits."""
    hidden_dim: Size = 128
    """Hidden units; with up to 20 (or that many visible ones) the partition function is exact."""
    sample_steps: Size = 1000
    """Gibbs steps of `sample`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_shape(self.shape)


@dataclass(frozen=True)
class DBNConfig(Checked):
    """A deep belief network: restricted Boltzmann machines on top of each other."""

    shape: Widths = (1, 28, 28)
    """Shape of one example: (D,) or (C, H, W) bits."""
    hidden_dims: Widths = (256, 64)
    """Units of each layer, upwards."""
    sample_steps: Size = 1000
    """Gibbs steps in the upper two layers by `sample`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_shape(self.shape)


@dataclass(frozen=True)
class RBMLossConfig(Checked):
    """Training settings of a Boltzmann machine: samples of the model, and step sizes."""

    method: Literal["cd", "pcd", "exact"] = "cd"
    """cd: Gibbs chains begin at the data (Hinton 2002). pcd: they continue from the last step
    (Tieleman 2008). exact: no samples, the gradient of the likelihood of an enumerable machine."""
    k: Size = 1
    """Gibbs steps of an update."""
    num_chains: SizeOrZero = 0
    """pcd: chains; 0 for as many as the batch has examples."""
    num_temperatures: Depth = 1
    """pcd: number of temperatures; with more than 1, chains exchange their states (Desjardins et
    al. 2010), which lets them cross unlikely states."""
    optimizer: Literal["sgd", "adam"] = "sgd"
    """Optimiser: plain gradient steps, or Adam."""
    lr: Positive = 0.01
    """Learning rate."""
    final_lr: NonNegative = 0.01
    """Learning rate at the last step; cosine from `lr` (equal: constant)."""
    weight_decay: NonNegative = 0.0
    """Shrinks weights, not biases, by lr * weight_decay in every step."""
    ema: Share = 0.0
    """Decay of the average of the weights that is kept in their place; 0 keeps the last weights."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_temperatures > 1 and self.method != "pcd":
            raise ValueError(
                f"num_temperatures is {self.num_temperatures} with method {self.method}; only the "
                "chains of pcd have temperatures"
            )


def _check_shape(shape: tuple[int, ...]) -> None:
    if len(shape) not in (1, 3):
        raise ValueError(f"shape is {shape}; give (D,) or (C, H, W) of positive numbers")
