"""Settings of the autoencoders."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from generative.training.ranges import Checked, NonNegative, Positive, Size, Widths

if TYPE_CHECKING:
    from generative.autoencoder.model import Autoencoder


@dataclass(frozen=True)
class ConvAutoencoderConfig(Checked):
    """A convolutional autoencoder; the defaults are the book's (chapter 3)."""

    image_shape: tuple[Size, Size, Size] = (1, 32, 32)
    """(C, H, W); H and W are divided by 2 in every convolution of the encoder."""
    latent_dim: Size = 2
    """Size of the code."""
    channels: Widths = (32, 64, 128)
    """Feature maps of the encoder's convolutions; the decoder has them in reverse."""

    def __post_init__(self) -> None:
        super().__post_init__()
        fold = 2 ** len(self.channels)
        if any(side % fold for side in self.image_shape[1:]):
            raise ValueError(
                f"image_shape is {self.image_shape}; {len(self.channels)} convolutions of stride 2 "
                f"need a height and width that {fold} divides"
            )

    def build(self) -> Autoencoder:
        """Convolutions of stride 2 down to the code, transposed ones back; at the book's sizes
        96,770 and 246,273 parameters."""
        from generative.autoencoder.model import Autoencoder
        from generative.autoencoder.networks import conv_networks

        return Autoencoder(*conv_networks(self), self.image_shape, self.latent_dim, config=self)


@dataclass(frozen=True)
class LinearAutoencoderConfig(Checked):
    """An autoencoder without any non-linearity, whose optimum is principal component analysis."""

    image_shape: tuple[Size, Size, Size] = (1, 8, 8)
    """(C, H, W)."""
    latent_dim: Size = 8
    """Size of the code."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.latent_dim > math.prod(self.image_shape):
            raise ValueError(
                f"latent_dim is {self.latent_dim}; give 1 to {math.prod(self.image_shape)}, the "
                "numbers in an image"
            )

    def build(self) -> Autoencoder:
        """One linear map to the code and one back; its best is principal component analysis."""
        from generative.autoencoder.model import Autoencoder
        from generative.autoencoder.networks import linear_networks

        sizes = self.image_shape, self.latent_dim
        return Autoencoder(*linear_networks(self), *sizes, squash=False, config=self)


@dataclass(frozen=True)
class AutoencoderLossConfig(Checked):
    """Loss and optimiser of an autoencoder."""

    kind: Literal["bce", "mse"] = "bce"
    """Binary cross-entropy or squared error, each a mean over pixels (the book has bce)."""
    noise: NonNegative = 0.0
    """Standard deviation of noise on the input, which is then clipped to [0, 1]; the target stays
    clean (denoising, Vincent et al. 2008)."""
    lr: Positive = 1e-3
    """Adam's learning rate."""
    final_lr: NonNegative = 1e-3
    """Learning rate at the last step; cosine from `lr` (equal: constant, as in the book)."""
    adam_eps: Positive = 1e-7
    """Adam's epsilon (the book's framework has 1e-7)."""
