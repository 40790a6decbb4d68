"""Settings of the classifiers."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class MLPClassifierConfig:
    """A multilayer perceptron on all pixels at once; the defaults are the book's (chapter 2)."""

    image_shape: tuple[int, int, int] = (3, 32, 32)
    """(C, H, W)."""
    num_classes: int = 10
    """Classes, numbered from 0."""
    hidden_dims: tuple[int, ...] = (200, 150)
    """Widths of the hidden layers; none makes it logistic regression."""

    def __post_init__(self) -> None:
        _check_task(self.image_shape, self.num_classes)
        if min(self.hidden_dims, default=1) < 1:
            raise ValueError(f"hidden_dims is {self.hidden_dims}; give positive numbers, or none")


@dataclass(frozen=True)
class CNNClassifierConfig:
    """A convolutional network; the defaults are the book's (chapter 2)."""

    image_shape: tuple[int, int, int] = (3, 32, 32)
    """(C, H, W)."""
    num_classes: int = 10
    """Classes, numbered from 0."""
    channels: tuple[int, ...] = (32, 32, 64, 64)
    """Feature maps of each convolution."""
    kernels: tuple[int, ...] = (3, 3, 3, 3)
    """Side of each convolution's kernel; the padding keeps ceil(side / stride) pixels."""
    strides: tuple[int, ...] = (1, 2, 1, 2)
    """Step of each convolution; 2 halves height and width."""
    hidden_dim: int = 128
    """Width of the dense layer before the last; 0 leaves it out."""
    batch_norm: bool = True
    """Normalise after every layer but the last (Ioffe & Szegedy 2015)."""
    norm_eps: float = 1e-3
    """Added to the variance (the book's framework has 1e-3)."""
    norm_momentum: float = 0.01
    """Weight of the newest batch in the moving averages (the book's framework has 1 - 0.99)."""
    slope: float = 0.3
    """Of LeakyReLU below 0 (the book's framework has 0.3); 1 leaves the network linear."""
    dropout: float = 0.5
    """Share of the dense layer's units left out in training (Hinton et al. 2012)."""

    def __post_init__(self) -> None:
        _check_task(self.image_shape, self.num_classes)
        lists = (self.channels, self.kernels, self.strides)
        if not self.channels or len({len(x) for x in lists}) > 1 or min(map(min, lists)) < 1:
            raise ValueError(
                f"channels {self.channels}, kernels {self.kernels} and strides {self.strides}; "
                "give a positive number of each for every convolution"
            )
        if self.hidden_dim < 0 or not 0 <= self.dropout < 1 or not 0 <= self.slope <= 1:
            raise ValueError(
                f"hidden_dim is {self.hidden_dim}, dropout {self.dropout}, slope {self.slope}; "
                "give 0 or more, a share from 0 up to below 1, and 0 to 1"
            )
        if not self.norm_eps > 0 or not 0 < self.norm_momentum <= 1:
            raise ValueError(
                f"norm_eps is {self.norm_eps} and norm_momentum {self.norm_momentum}; give a "
                "positive number, and a weight above 0 and up to 1"
            )


@dataclass(frozen=True)
class ClassifierLossConfig:
    """How a classifier is trained: Adam on the cross-entropy of the right class."""

    lr: float = 5e-4
    """Adam's learning rate."""
    final_lr: float = 5e-4
    """Learning rate at the last step; cosine from `lr` (equal: constant, as in the book)."""
    adam_eps: float = 1e-7
    """Adam's epsilon (the book's framework has 1e-7)."""
    weight_decay: float = 0.0
    """Decoupled weight decay (AdamW)."""
    shift: int = 0
    """Move each training image by up to so many pixels each way; what comes in is black."""

    def __post_init__(self) -> None:
        if self.shift < 0 or self.weight_decay < 0:
            raise ValueError(
                f"shift is {self.shift} and weight_decay {self.weight_decay}; give 0 or more"
            )


def _check_task(image_shape: tuple[int, int, int], num_classes: int) -> None:
    if len(image_shape) != 3 or math.prod(image_shape) < 1 or min(image_shape) < 1:
        raise ValueError(f"image_shape is {image_shape}; give (C, H, W), positive numbers")
    if num_classes < 2:
        raise ValueError(f"num_classes is {num_classes}; there must be at least 2 to tell apart")
