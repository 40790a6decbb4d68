"""Settings of the VAEs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from generative.training.config import AdamWConfig
from generative.training.precision import BF16
from generative.training.ranges import (
    Checked,
    CountOrZero,
    Depth,
    NonNegative,
    Positive,
    Share,
    Size,
    Sizes,
)

if TYPE_CHECKING:
    from generative.vae.frames import ConvVAE
    from generative.vae.model import VAE


@dataclass(frozen=True)
class ConvVAEConfig(Checked):
    """The 64x64 convolutional VAE of Ha & Schmidhuber (2018), figure 22."""

    latent_dim: Size = 32
    """Size of z."""
    channels: tuple[Size, Size, Size, Size] = (32, 64, 128, 256)
    """Feature maps of the four encoder convolutions; the decoder mirrors them."""
    relu_from_z: bool = False
    """A ReLU behind the decoder's linear map, which the paper has not."""

    @classmethod
    def upgrade(cls, settings: dict[str, Any]) -> dict[str, Any]:
        """Older decoders have no ReLU there."""
        return {"relu_from_z": False, **settings}

    def build(self) -> ConvVAE:
        """The paper's VAE, whose log variance has no limits."""
        from generative.vae.distributions import GaussianHead
        from generative.vae.frames import ConvVAE
        from generative.vae.networks import FrameDecoder, frame_encoder

        encoder = frame_encoder(self)
        posterior = GaussianHead(4 * self.channels[3], self.latent_dim, max_logvar=None)
        return ConvVAE(encoder, posterior, FrameDecoder(self), self.latent_dim, config=self)


@dataclass(frozen=True)
class VAELossConfig(Checked):
    """Loss and optimiser of the VAE: squared error + beta * max(KL, free bits)."""

    beta: NonNegative = 1.0
    """Weight of the KL term."""
    free_bits: NonNegative = 0.5
    """Nats per latent dimension that cost nothing (the paper's tolerance)."""
    lr: Positive = 1e-4
    """Adam's learning rate."""
    final_lr: NonNegative = 1e-4
    """Learning rate at the last step; cosine from `lr` (equal: constant, as in the paper)."""
    bf16: BF16 = False
    """Convolutions in bfloat16 by autocast (weights and losses stay float32)."""


@dataclass(frozen=True)
class ImageVAEConfig(Checked):
    """A VAE for images of any size; the defaults are the book's for Fashion-MNIST (chapter 3)."""

    image_shape: tuple[Size, Size, Size] = (1, 32, 32)
    """(C, H, W); H and W are divided by 2 in every convolution of the encoder."""
    latent_dim: Size = 2
    """Size of z."""
    channels: Sizes = (32, 64, 128)
    """Feature maps of the encoder's convolutions; the decoder has them in reverse. None at all
    makes both networks stacks of `num_hidden` layers, for images too small to convolve."""
    batch_norm: bool = False
    """Batch normalisation and LeakyReLU of slope 0.3 after every convolution, as for the book's
    faces; else ReLU."""
    hidden_dim: Size = 256
    """Width of the layers where there are no convolutions."""
    num_hidden: Depth = 2
    """Layers before the last where there are no convolutions."""
    dropout: Share = 0.0
    """Share of their units left out in training."""
    likelihood: Literal["bernoulli", "gaussian"] = "bernoulli"
    """Form of p(x | z): pixels black or white (grey is a probability of white), or Gaussian."""
    pixel_std: NonNegative = 0.0
    """Standard deviation of a Gaussian pixel; 0 learns one for all (Rybkin et al. 2021)."""
    prior_components: Size = 1
    """p(z): N(0, I) for 1, else a learnt mixture of this many Gaussians. Codes of images of several
    kinds lie in clusters; a single Gaussian draws most of its codes from between them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        fold = 2 ** len(self.channels)
        if any(side % fold for side in self.image_shape[1:]):
            raise ValueError(
                f"image_shape is {self.image_shape}; {len(self.channels)} convolutions of stride 2 "
                f"need a height and width that {fold} divides"
            )
        if self.pixel_std and self.likelihood != "gaussian":
            raise ValueError(
                f"pixel_std is {self.pixel_std}, but the likelihood {self.likelihood}; "
                "only a gaussian has one"
            )

    def build(self) -> VAE:
        """A VAE of images, convolutional or of plain layers."""
        from torch import nn

        from generative.nets.init import glorot_
        from generative.vae import distributions
        from generative.vae.model import VAE
        from generative.vae.networks import conv_decoder, conv_encoder, mlp

        size = math.prod(self.image_shape)
        if self.channels:
            encoder, decoder = conv_encoder(self), conv_decoder(self)
            places = math.prod(side >> len(self.channels) for side in self.image_shape[1:])
            features = self.channels[-1] * places
        else:
            features = self.hidden_dim
            encoder = nn.Sequential(nn.Flatten(), *mlp(size, self))
            last = nn.Linear(features, size), nn.Unflatten(1, self.image_shape)
            decoder = nn.Sequential(*mlp(self.latent_dim, self), *last)
        posterior = distributions.GaussianHead(features, self.latent_dim)
        prior = (
            distributions.MixturePrior(self.latent_dim, self.prior_components)
            if self.prior_components > 1
            else distributions.StandardNormal(self.latent_dim)
        )
        likelihood = (
            distributions.GaussianPixels(self.pixel_std)
            if self.likelihood == "gaussian"
            else distributions.BernoulliPixels()
        )
        networks = encoder, posterior, decoder
        model = VAE(*networks, likelihood, prior, self.image_shape, config=self)
        glorot_(model)
        return model


@dataclass(frozen=True)
class ImageVAELossConfig(AdamWConfig):
    """Loss and optimiser of an image VAE; the defaults minimise minus the ELBO."""

    recon: Literal["likelihood", "bce", "mse"] = "likelihood"
    """likelihood: -log p(x | z), a sum over pixels in nats. bce, mse: cross-entropy or squared
    error, a mean over pixels times `recon_weight`, as in the book."""
    recon_weight: NonNegative = 1.0
    """Factor of the reconstruction term; the book has 500, for its faces 2000."""
    beta: NonNegative = 1.0
    """Factor of the KL term (Higgins et al. 2017)."""
    warmup: CountOrZero = 0
    """Steps in which beta grows from 0, so that codes become useful before they cost."""
    free_bits: NonNegative = 0.0
    """Nats that each latent dimension may tell about an average image at no cost (Kingma et al.
    2016)."""
    num_draws: Size = 1
    """Draws of z for an image; more make the bound tighter (IWAE, Burda et al. 2016)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_draws > 1 and (self.free_bits or self.recon != "likelihood"):
            raise ValueError(
                f"num_draws is {self.num_draws}, recon {self.recon!r} and free_bits "
                f"{self.free_bits}; several draws weigh likelihoods: they need recon 'likelihood' "
                "and no free bits"
            )


IMAGE_VAE_BOOK = ImageVAELossConfig(recon="bce", recon_weight=500.0)
"""The book's program for Fashion-MNIST: its loss is a bound of nothing."""


@dataclass(frozen=True)
class LinearVAEConfig(Checked):
    """A VAE without any non-linearity, whose optimum is probabilistic principal components."""

    image_shape: tuple[Size, Size, Size] = (1, 8, 8)
    """(C, H, W)."""
    latent_dim: Size = 8
    """Size of z."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.latent_dim >= math.prod(self.image_shape):
            raise ValueError(
                f"latent_dim is {self.latent_dim}; give 1 to {math.prod(self.image_shape) - 1}: "
                "some of the numbers in an image have to be left to noise"
            )
