"""Settings of the flows."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal

from generative.training.config import AdamWConfig
from generative.training.ranges import (
    Checked,
    Choices,
    Depth,
    DepthOrZero,
    Length,
    NonNegative,
    Positive,
    Share,
    Size,
    Waves,
    Widths,
)

if TYPE_CHECKING:
    from generative.flow.chain import Chain
    from generative.flow.ffjord import FFJORD
    from generative.flow.images import ImageFlow


@dataclass(frozen=True)
class RealNVPConfig(Checked):
    """A flow of coupling layers on vectors; the defaults are the book's (chapter 6)."""

    shape: Widths = (2,)
    """Shape of an example: (D,) for points, (C, H, W) for images; the flow sees D or C*H*W
    numbers."""
    masks: Annotated[tuple[str, ...], Length(1, 64)] = ("alternate",)
    """Numbers that pairs of couplings leave unchanged, in turn: alternate, or for images
    checkerboard, rows, columns."""
    num_couplings: Depth = 6
    """Coupling layers; the second of each pair has the mask of the first turned round."""
    coupling: Literal["affine", "spline"] = "affine"
    """Affine (Dinh et al. 2017) or rational-quadratic spline (Durkan et al. 2019)."""
    hidden_dim: Size = 256
    """Width of the networks in the couplings."""
    num_hidden: Depth = 4
    """Hidden layers of each network."""
    activation: Literal["relu", "silu"] = "relu"
    """Between the layers; silu is smooth, and so is then the density."""
    zero_init: bool = False
    """Begin as the identity: last layers of zeros (splines always do)."""
    num_bins: Choices = 16
    """Pieces of a spline."""
    bound: Positive = 4.0
    """A spline acts between -bound and bound; beyond, it is the identity."""
    num_waves: Waves = 0
    """Splines also see sines and cosines of the kept half, of this many wavelengths from 2 * bound
    down by halves: with few numbers to go by, a network is slow to learn sharp bends without."""
    actnorm: bool = False
    """Shift and scale every axis before each coupling, from the first batch (Kingma & Dhariwal)."""
    dropout: Share = 0.0
    """Share of hidden units left out in training."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.shape) not in (1, 3) or not 2 <= math.prod(self.shape) <= 2**20:
            raise ValueError(
                f"shape is {self.shape}; give (D,) or (C, H, W) of 2 to {2**20:,} numbers"
            )
        known = ("alternate", "checkerboard", "rows", "columns")
        if not set(self.masks) <= set(known):
            raise ValueError(f"masks are {self.masks}; give some of {known}")
        if len(self.shape) == 1 and set(self.masks) != {"alternate"}:
            raise ValueError(f"masks are {self.masks}; points of shape {self.shape} alternate only")

    def build(self) -> Chain:
        """A chain of couplings on vectors, also where `shape` is that of images."""
        from generative.flow.chain import Chain
        from generative.flow.realnvp import coupling_layers

        return Chain(coupling_layers(self), (math.prod(self.shape),), config=self)


@dataclass(frozen=True)
class ImageRealNVPConfig(Checked):
    """A flow on images of few grey levels, made continuous by uniform noise."""

    flow: RealNVPConfig = field(
        default_factory=lambda: RealNVPConfig((1, 8, 8), masks=("checkerboard", "rows", "columns"))
    )
    levels: Choices = 17
    """Values a pixel can have: 17 for scikit-learn's digits, 256 for most images."""
    margin: Share = 0.05
    """Pixels y in (0, 1) become logit(margin + (1 - 2 margin) y) (Dinh et al. 2017, 4.1)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.flow.shape) != 3:
            raise ValueError(f"flow.shape is {self.flow.shape}; images need (C, H, W)")
        if not 0 < self.margin < 0.5:
            raise ValueError(f"margin is {self.margin}; give a number between 0 and 0.5")

    def build(self) -> ImageFlow:
        """A chain of couplings behind dequantisation."""
        from generative.flow.chain import Chain, Flatten
        from generative.flow.images import Dequantiser, ImageFlow
        from generative.flow.realnvp import coupling_layers

        shape = self.flow.shape
        chain = Chain([*coupling_layers(self.flow), Flatten(shape)], shape)
        return ImageFlow(chain, Dequantiser(self.levels, self.margin), shape, config=self)


@dataclass(frozen=True)
class GlowConfig(Checked):
    """A multi-scale flow on images; the defaults are Kingma & Dhariwal's for 32x32 (2018)."""

    image_shape: tuple[Size, Size, Size] = (3, 32, 32)
    """(C, H, W); every scale halves H and W."""
    num_scales: Depth = 3
    """Scales (L); all but the last put half of their numbers aside as finished code."""
    num_steps: Depth = 32
    """Steps of a scale (K): ActNorm, mixing of the channels, coupling."""
    mixing: Literal["lu", "plain", "reverse"] = "lu"
    """Mixing of the channels: by an invertible 1x1 convolution, kept as its LU factors or as it is,
    or by turning their order round (the book's and RealNVP's way)."""
    coupling: Literal["affine", "spline"] = "affine"
    """Affine with a scale below 1, or rational-quadratic spline (Durkan et al. 2019)."""
    checkerboard: DepthOrZero = 0
    """Couplings between black and white pixels before each scale is squeezed (RealNVP: 3)."""
    hidden_dim: Size = 512
    """Channels inside the couplings' networks."""
    num_blocks: DepthOrZero = 0
    """Residual blocks of these networks (RealNVP); 0: convolutions 3x3, 1x1, 3x3 (Glow)."""
    learnt_prior: bool = True
    """Give the half that is put aside a mean and a deviation that depend on the other half."""
    num_bins: Choices = 8
    """Pieces of a spline."""
    bound: Positive = 5.0
    """A spline acts between -bound and bound; beyond, it is the identity."""
    dropout: Share = 0.0
    """Share of hidden channels left out in training."""
    levels: Choices = 256
    """Values a pixel can have; 32 for images of 5 bits."""
    margin: Share = 0.0
    """0: pixels y in (0, 1) become y - 1/2. Above: logit(margin + (1 - 2 margin) y), as in
    RealNVP."""

    def __post_init__(self) -> None:
        super().__post_init__()
        fold = 2**self.num_scales
        if any(side % fold for side in self.image_shape[1:]):
            raise ValueError(
                f"image_shape is {self.image_shape}; {self.num_scales} scales need a height and "
                f"width that {fold} divides"
            )
        if self.margin >= 0.5:
            raise ValueError(f"margin is {self.margin}; give 0, or a number below 0.5")

    def build(self) -> ImageFlow:
        """A multi-scale flow behind dequantisation."""
        from generative.flow.glow import MultiScale
        from generative.flow.images import Dequantiser, ImageFlow

        dequantiser = Dequantiser(self.levels, self.margin)
        return ImageFlow(MultiScale(self), dequantiser, self.image_shape, config=self)


@dataclass(frozen=True)
class FFJORDConfig(Checked):
    """A continuous flow on vectors; three layers of 64, as for toy data in its paper."""

    dim: Size = 2
    """Numbers of an example."""
    hidden_dim: Size = 64
    """Width of the network that gives the velocity."""
    num_hidden: Depth = 3
    """Its hidden layers."""
    activation: Literal["tanh", "softplus", "silu"] = "tanh"
    """Between the layers; smooth, as the solver's error needs smooth velocities."""
    num_waves: Waves = 0
    """The network also sees sines and cosines of each number, of this many wavelengths: 8, 4, 2,
    ... With few inputs it is slow to learn sharp bends without."""
    log_det: Literal["trace", "hutchinson", "steps"] = "trace"
    """Log-determinant in the loss: the integral of the exact trace, which takes `dim`
    directions; of Hutchinson's estimate, which takes one that is drawn at random; or from the
    Jacobian of rk4's own steps, which takes `dim` too and leaves nothing to be gained where the
    steps are too long for the equation. `log_prob` has the exact trace."""
    noise: Literal["rademacher", "gaussian"] = "rademacher"
    """Entries of Hutchinson's direction."""
    solver: Literal["rk4", "dopri5"] = "rk4"
    """Runge-Kutta in equal steps, or torchdiffeq's adaptive one."""
    num_steps: Size = 8
    """Steps of rk4 in training."""
    fine_steps: Size = 96
    """Steps of rk4 for everything else."""
    tolerance: Positive = 1e-5
    """Relative and absolute, of dopri5."""
    kinetic_energy: NonNegative = 0.0
    """Weight in the loss of the integral of |velocity|^2 (Finlay et al. 2020)."""
    jacobian_norm: NonNegative = 0.0
    """Weight in the loss of the integral of its Jacobian's squared norm (the same)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.log_det == "steps" and self.solver != "rk4":
            raise ValueError(f"log_det 'steps' is of solver 'rk4', not of {self.solver!r}")

    def build(self) -> FFJORD:
        """A continuous flow around a perceptron that sees the time in every layer."""
        from generative.flow.ffjord import FFJORD, VelocityNet

        return FFJORD(
            VelocityNet(self), self.dim,
            log_det=self.log_det, noise=self.noise, solver=self.solver, num_steps=self.num_steps,
            fine_steps=self.fine_steps, tolerance=self.tolerance,
            kinetic_energy=self.kinetic_energy, jacobian_norm=self.jacobian_norm, config=self,
        )  # fmt: skip


@dataclass(frozen=True)
class FlowLossConfig(AdamWConfig):
    """Training settings of a flow: Adam on the negative log-likelihood."""

    lr: NonNegative = 1e-4
    final_lr: NonNegative = 1e-4
    l2: NonNegative = 0.0
    """Adds l2 * sum of squared weights, biases left out. The book declares 0.01 but never adds it
    to its loss, so 0 is what it trains with."""
