"""Settings of the classifiers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from generative.nets.config import BlockConfig, ViTConfig, vit_block
from generative.training.config import MuonConfig
from generative.training.ranges import (
    Checked,
    Choices,
    Depth,
    NonNegative,
    Positive,
    Probability,
    Quantile,
    Share,
    Size,
    SizeOrZero,
    Sizes,
    Widths,
)

if TYPE_CHECKING:
    from generative.classifier.model import Classifier


@dataclass(frozen=True)
class MLPClassifierConfig(Checked):
    """A multilayer perceptron on all pixels at once; the defaults are the book's (chapter 2)."""

    image_shape: tuple[Size, Size, Size] = (3, 32, 32)
    """(C, H, W)."""
    num_classes: Choices = 10
    """Classes, numbered from 0."""
    hidden_dims: Sizes = (200, 150)
    """Widths of the hidden layers; none makes it logistic regression."""

    def build(self) -> Classifier:
        """A classifier by dense layers, which do not know what pixels are neighbours; at the book's
        sizes 646,260 parameters."""
        from generative.classifier.model import Classifier
        from generative.classifier.networks import dense_layers

        return Classifier(dense_layers(self), self.image_shape, self.num_classes, config=self)


@dataclass(frozen=True)
class CNNClassifierConfig(Checked):
    """A convolutional network; the defaults are the book's (chapter 2)."""

    image_shape: tuple[Size, Size, Size] = (3, 32, 32)
    """(C, H, W)."""
    num_classes: Choices = 10
    """Classes, numbered from 0."""
    channels: Widths = (32, 32, 64, 64)
    """Feature maps of each convolution."""
    kernels: Widths = (3, 3, 3, 3)
    """Side of each convolution's kernel; the padding keeps ceil(side / stride) pixels."""
    strides: Widths = (1, 2, 1, 2)
    """Step of each convolution; 2 halves height and width."""
    hidden_dim: SizeOrZero = 128
    """Width of the dense layer before the last; 0 leaves it out."""
    batch_norm: bool = True
    """Normalise after every layer but the last (Ioffe & Szegedy 2015)."""
    norm_eps: Positive = 1e-3
    """Added to the variance (the book's framework has 1e-3)."""
    norm_momentum: Quantile = 0.01
    """Weight of the newest batch in the moving averages (the book's framework has 1 - 0.99)."""
    slope: Probability = 0.3
    """Slope of LeakyReLU below 0 (the book's framework has 0.3); 1 leaves the network linear."""
    dropout: Share = 0.5
    """Share of the dense layer's units left out in training (Hinton et al. 2012)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not len(self.channels) == len(self.kernels) == len(self.strides):
            raise ValueError(
                f"channels {self.channels}, kernels {self.kernels} and strides {self.strides}; "
                "give one of each for every convolution"
            )

    def build(self) -> Classifier:
        """A classifier by convolutions with batch normalisation, then dense layers; at the book's
        sizes 591,914 parameters, and 640 averages that are not trained."""
        from generative.classifier.model import Classifier
        from generative.classifier.networks import conv_layers

        return Classifier(conv_layers(self), self.image_shape, self.num_classes, config=self)


@dataclass(frozen=True)
class ViTClassifierConfig(Checked):
    """A Vision Transformer whose class token is classified (Dosovitskiy et al. 2021); a small one,
    the smallest published has patches of 16 and 12 blocks of width 768."""

    image_shape: tuple[Size, Size, Size] = (3, 32, 32)
    """(C, H, W)."""
    num_classes: Choices = 10
    """Classes, numbered from 0."""
    patch: Size = 4
    """Side of a patch, which becomes a token."""
    num_layers: Depth = 4
    """Transformer blocks."""
    block: BlockConfig = field(default_factory=lambda: vit_block(64, 4))

    def __post_init__(self) -> None:
        super().__post_init__()
        self.vit()

    def vit(self) -> ViTConfig:
        """Sizes of the Transformer.

        Raises:
            ValueError: the patch does not divide the sides.
        """
        return ViTConfig(
            self.image_shape, self.patch, self.num_layers, self.block, class_token=True
        )

    def build(self) -> Classifier:
        """A classifier by attention between patches; as published for 224x224 and 1,000 classes
        86,567,656 parameters."""
        from generative.classifier.model import Classifier
        from generative.classifier.networks import vit_layers

        return Classifier(vit_layers(self), self.image_shape, self.num_classes, config=self)


@dataclass(frozen=True)
class ClassifierLossConfig(MuonConfig):
    """Training settings of a classifier: Adam on the cross-entropy of the right class, or Muon for
    all weights of convolutions and dense layers but the first and the last."""

    lr: Positive = 5e-4
    """Learning rate."""
    final_lr: NonNegative = 5e-4
    """Learning rate at the last step; cosine from `lr` (equal: constant, as in the book)."""
    shift: SizeOrZero = 0
    """Move each training image by at most this many pixels each way; its new borders are black."""
    mirror: bool = False
    """Mirror every other training image at random, left and right exchanged."""
    noise: NonNegative = 0.0
    """Add normal noise to each training image, of a deviation up to this; pixels are from 0 to 1.
    Features that see through noise have slopes that lead from one image to another."""

    @classmethod
    def upgrade(cls, settings: dict[str, Any]) -> dict[str, Any]:
        """Classifiers of older runs were trained by Adam, without a limit of the gradient or an
        average, and images were neither mirrored nor noisy."""
        return super().upgrade({"clip": 0.0, "ema": 0.0, "mirror": False, "noise": 0.0, **settings})
