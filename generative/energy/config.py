"""Settings of the deep energy-based models."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from generative.training.ranges import (
    Checked,
    Depth,
    NonNegative,
    Positive,
    Probability,
    Share,
    Size,
    Waves,
    Widths,
)

if TYPE_CHECKING:
    from generative.energy.model import ImageEnergy, PointEnergy


@dataclass(frozen=True)
class LangevinConfig(Checked):
    """Noisy descent of an energy; the defaults are the book's (chapter 7), in pixels of [-1, 1]."""

    steps: Size = 1000
    """Steps of one walk."""
    step_size: Positive = 10.0
    """Factor of the gradient."""
    noise: NonNegative = 0.005
    """Standard deviation of the noise that every step adds."""
    clip: NonNegative = 0.03
    """Largest entry of the gradient; 0 for no limit."""


@dataclass(frozen=True)
class ConvEnergyConfig(Checked):
    """An energy of images; the defaults are the book's."""

    image_shape: tuple[Size, Size, Size] = (1, 32, 32)
    """(C, H, W); H and W are halved, rounded up, by every convolution."""
    channels: Widths = (16, 32, 64, 64)
    """Feature maps of the convolutions; the first has a kernel of 5, the others of 3."""
    hidden_dim: Size = 64
    """Width of the layer after them."""
    langevin: LangevinConfig = field(default_factory=LangevinConfig)
    """Steps of the chains, in training and in `sample`."""

    def build(self) -> ImageEnergy:
        """Energy of images around the book's convolutions."""
        from generative.energy.model import ImageEnergy
        from generative.energy.networks import conv_network

        return ImageEnergy(conv_network(self), self.image_shape, self.langevin, config=self)


@dataclass(frozen=True)
class PointEnergyConfig(Checked):
    """An energy of points: a perceptron plus a bowl, |x|^2 / (2 base_std^2), so that it has a
    finite partition function."""

    dim: Size = 2
    """Numbers of a point."""
    hidden_dim: Size = 64
    """Width of the perceptron."""
    num_hidden: Depth = 3
    """Hidden layers."""
    num_waves: Waves = 4
    """The perceptron also sees sines and cosines of x, of this many wavelengths from 4 * base_std
    down by halves: a network is slow to learn sharp edges without."""
    base_std: Positive = 1.5
    """Standard deviation of the Gaussian that the model is where the perceptron is constant; walks
    begin there. Data should lie within two or three of them."""
    step_size: Positive = 1e-3
    """Step of the Metropolis-adjusted walk, before training adapts it."""
    sample_sweeps: Size = 200
    """Rounds of `sample`: each proposes a restart and walks two steps."""

    def build(self) -> PointEnergy:
        """Energy of points around a perceptron."""
        from generative.energy.model import PointEnergy
        from generative.energy.networks import WavyPerceptron

        sampling = self.base_std, self.step_size, self.sample_sweeps
        return PointEnergy(WavyPerceptron(self), self.dim, *sampling, config=self)


@dataclass(frozen=True)
class EnergyLossConfig(Checked):
    """Contrastive divergence; `ENERGY_BOOK` has the book's optimiser."""

    sampler: Literal["langevin", "mala"] = "langevin"
    """langevin: the book's, whose noise is far too weak for the density it learns. mala: a
    Metropolis-adjusted walk with restarts that are accepted or not (points only)."""
    langevin: LangevinConfig = field(default_factory=lambda: LangevinConfig(steps=60))
    """Steps of an update, and for sampler langevin all of the walk."""
    buffer_size: Size = 8192
    """Samples that are kept to go on from."""
    fresh: Probability = 0.05
    """Share of the chains of an update that begin anew."""
    alpha: NonNegative = 0.1
    """Weight of the squared heights (-energies), which keeps them small."""
    data_noise: NonNegative = 0.005
    """Standard deviation of noise on the data."""
    lr: Positive = 1e-4
    """Adam's learning rate."""
    final_lr: NonNegative = 1e-5
    """Learning rate at the last step; cosine from `lr` (equal: constant, as in the book)."""
    beta1: Share = 0.0
    """Adam's momentum; 0 suits samples that change as the model does (Du & Mordatch 2019), and the
    book's 0.9 follows samples that are gone."""
    adam_eps: Positive = 1e-7
    """Adam's epsilon (the book's framework has 1e-7)."""
    clip: NonNegative = 0.1
    """Largest norm of the gradient of the weights; 0 for no limit. Single large gradients undo
    hours of training."""
    ema: Share = 0.999
    """Decay of the average of the weights that is kept in their place; 0 keeps the last weights,
    those of one moment in a game that never comes to rest."""


ENERGY_BOOK = EnergyLossConfig(final_lr=1e-4, beta1=0.9, clip=0.0, ema=0.0)
"""The book's program: momentum, no limit of the gradient, and the last weights."""
