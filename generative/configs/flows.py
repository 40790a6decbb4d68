"""Settings of the flows."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class RealNVPConfig:
    """A flow of coupling layers on vectors; the defaults are the book's (chapter 6)."""

    shape: tuple[int, ...] = (2,)
    """Of one example: (D,) for points, (C, H, W) for images; the flow sees D or C*H*W numbers."""
    masks: tuple[str, ...] = ("alternate",)
    """What a pair of couplings leaves unchanged in turn: alternate, or for images checkerboard,
    rows, columns."""
    num_couplings: int = 6
    """Coupling layers; the second of each pair has the mask of the first turned round."""
    coupling: Literal["affine", "spline"] = "affine"
    """Affine (Dinh et al. 2017) or rational-quadratic spline (Durkan et al. 2019)."""
    hidden_dim: int = 256
    """Width of the networks in the couplings."""
    num_hidden: int = 4
    """Hidden layers of each network."""
    activation: Literal["relu", "silu"] = "relu"
    """Between the layers; silu is smooth, and so is then the density."""
    zero_init: bool = False
    """Begin as the identity: last layers of zeros (splines always do)."""
    num_bins: int = 16
    """Pieces of a spline."""
    bound: float = 4.0
    """A spline acts between -bound and bound; beyond, it is the identity."""
    num_waves: int = 0
    """Splines also see sines and cosines of what is kept, of so many wavelengths from 2 * bound
    down by halves: with few numbers to go by, a network is slow to learn sharp bends without."""
    actnorm: bool = False
    """Shift and scale every axis before each coupling, from the first batch (Kingma & Dhariwal)."""
    dropout: float = 0.0
    """Share of hidden units left out in training."""

    def __post_init__(self) -> None:
        for name in ("num_couplings", "hidden_dim", "num_hidden"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if len(self.shape) not in (1, 3) or min(self.shape) < 1 or math.prod(self.shape) < 2:
            raise ValueError(f"shape is {self.shape}; give (D,) or (C, H, W) of 2 numbers or more")
        known = ("alternate", "checkerboard", "rows", "columns")
        if not self.masks or not set(self.masks) <= set(known):
            raise ValueError(f"masks are {self.masks}; give some of {known}")
        if len(self.shape) == 1 and set(self.masks) != {"alternate"}:
            raise ValueError(f"masks are {self.masks}; points of shape {self.shape} alternate only")
        if self.num_bins < 2 or not self.bound > 0:
            raise ValueError(
                f"num_bins is {self.num_bins} and bound {self.bound}; a spline needs at least 2 "
                "pieces and a positive bound"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}; give a share from 0 up to below 1")


@dataclass(frozen=True)
class ImageRealNVPConfig:
    """A flow on images of few grey levels, made continuous by uniform noise."""

    flow: RealNVPConfig = field(
        default_factory=lambda: RealNVPConfig((1, 8, 8), masks=("checkerboard", "rows", "columns"))
    )
    levels: int = 17
    """Values a pixel can have: 17 for scikit-learn's digits, 256 for most images."""
    margin: float = 0.05
    """Pixels y in (0, 1) become logit(margin + (1 - 2 margin) y) (Dinh et al. 2017, 4.1)."""

    def __post_init__(self) -> None:
        if len(self.flow.shape) != 3:
            raise ValueError(f"flow.shape is {self.flow.shape}; images need (C, H, W)")
        if self.levels < 2:
            raise ValueError(f"levels is {self.levels}; a pixel needs at least 2")
        if not 0 < self.margin < 0.5:
            raise ValueError(f"margin is {self.margin}; give a number between 0 and 0.5")


@dataclass(frozen=True)
class FlowLossConfig:
    """How a flow is trained: Adam on the negative log-likelihood."""

    lr: float = 1e-4
    """Adam's learning rate."""
    final_lr: float = 1e-4
    """Learning rate at the last step; cosine from `lr` (equal: constant, as in the book)."""
    adam_eps: float = 1e-7
    """Adam's epsilon (the book's framework has 1e-7)."""
    weight_decay: float = 0.0
    """Decoupled weight decay (AdamW)."""
    l2: float = 0.0
    """Adds l2 * sum of squared weights, biases left out. The book declares 0.01 but never adds it
    to its loss, so 0 is what it trains with."""
    clip: float = 0.0
    """Largest norm of the gradient; 0 for no limit."""
    ema: float = 0.0
    """Decay of the average of the weights that is kept in their place; 0 keeps the last weights."""
