"""Settings of the deep energy-based models."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class LangevinConfig:
    """Noisy descent of an energy; the defaults are the book's (chapter 7), in pixels of [-1, 1]."""

    steps: int = 1000
    """Steps of one walk."""
    step_size: float = 10.0
    """What the gradient is multiplied with."""
    noise: float = 0.005
    """Standard deviation of what is added in every step."""
    clip: float = 0.03
    """Largest entry of the gradient; 0 for no limit."""

    def __post_init__(self) -> None:
        if self.steps < 1 or not self.step_size > 0 or self.noise < 0 or self.clip < 0:
            raise ValueError(
                f"steps {self.steps}, step_size {self.step_size}, noise {self.noise}, clip "
                f"{self.clip}; steps and step_size must be positive, the others not negative"
            )


@dataclass(frozen=True)
class ConvEnergyConfig:
    """An energy of images; the defaults are the book's."""

    image_shape: tuple[int, int, int] = (1, 32, 32)
    """(C, H, W); H and W are halved, rounded up, by every convolution."""
    channels: tuple[int, ...] = (16, 32, 64, 64)
    """Feature maps of the convolutions; the first has a kernel of 5, the others of 3."""
    hidden_dim: int = 64
    """Width of the layer after them."""
    langevin: LangevinConfig = field(default_factory=LangevinConfig)
    """How chains move, in training and in `sample`."""

    def __post_init__(self) -> None:
        if min(self.image_shape) < 1 or not self.channels or min(self.channels) < 1:
            raise ValueError(
                f"image_shape is {self.image_shape} and channels {self.channels}; give positive "
                "numbers, and at least one convolution"
            )
        if self.hidden_dim < 1:
            raise ValueError(f"hidden_dim is {self.hidden_dim}; it must be at least 1")


@dataclass(frozen=True)
class PointEnergyConfig:
    """An energy of points: a perceptron plus a bowl, |x|^2 / (2 base_std^2), so that it has a
    finite partition function."""

    dim: int = 2
    """Numbers of a point."""
    hidden_dim: int = 64
    """Width of the perceptron."""
    num_hidden: int = 3
    """Hidden layers."""
    num_waves: int = 4
    """The perceptron also sees sines and cosines of x, of so many wavelengths from 4 * base_std
    down by halves: a network is slow to learn sharp edges without."""
    base_std: float = 1.5
    """Standard deviation of the Gaussian that the model is where the perceptron is constant; walks
    begin there. Data should lie within two or three of them."""
    step_size: float = 1e-3
    """Of the Metropolis-adjusted walk, before training adapts it."""
    sample_sweeps: int = 200
    """Rounds of `sample`: each proposes a restart and walks two steps."""

    def __post_init__(self) -> None:
        for name in ("dim", "hidden_dim", "num_hidden", "sample_sweeps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not self.base_std > 0 or not self.step_size > 0 or self.num_waves < 0:
            raise ValueError(
                f"base_std {self.base_std}, step_size {self.step_size}, num_waves "
                f"{self.num_waves}; the first two must be positive, the last not negative"
            )


@dataclass(frozen=True)
class EnergyLossConfig:
    """Contrastive divergence; the defaults are the book's."""

    sampler: Literal["langevin", "mala"] = "langevin"
    """langevin: the book's, of which the noise is far too weak for the density it learns. mala: a
    Metropolis-adjusted walk with restarts that are accepted or not (points only)."""
    langevin: LangevinConfig = field(default_factory=lambda: LangevinConfig(steps=60))
    """Steps of an update, and for sampler langevin all of the walk."""
    buffer_size: int = 8192
    """Samples that are kept to go on from."""
    fresh: float = 0.05
    """Share of the chains of an update that begin anew."""
    alpha: float = 0.1
    """Weight of the squared scores, which keeps them small."""
    data_noise: float = 0.005
    """Standard deviation of noise on the data."""
    lr: float = 1e-4
    """Adam's learning rate."""
    final_lr: float = 1e-4
    """Learning rate at the last step; cosine from `lr` (equal: constant, as in the book)."""
    beta1: float = 0.9
    """Adam's momentum; 0 suits samples that change as the model does (Du & Mordatch 2019)."""
    adam_eps: float = 1e-7
    """Adam's epsilon (the book's framework has 1e-7)."""
    clip: float = 0.0
    """Largest norm of the gradient of the weights; 0 for no limit."""
    ema: float = 0.0
    """Decay of the average of the weights that is kept in their place; 0 keeps the last weights."""

    def __post_init__(self) -> None:
        if self.buffer_size < 1:
            raise ValueError(f"buffer_size is {self.buffer_size}; it must be at least 1")
        if not 0 <= self.fresh <= 1 or not 0 <= self.ema < 1:
            raise ValueError(
                f"fresh is {self.fresh} and ema {self.ema}; give shares from 0 to 1 (ema below)"
            )
        if min(self.alpha, self.data_noise, self.clip) < 0 or not self.lr > 0:
            raise ValueError(
                f"alpha {self.alpha}, data_noise {self.data_noise}, clip {self.clip}, lr "
                f"{self.lr}; lr must be positive, the others not negative"
            )
