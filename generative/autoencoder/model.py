"""Autoencoders: convolutional, denoising, linear. Networks, losses, learner.

An encoder squeezes an image into a short code, a decoder makes the image of it again. The
convolutional one is the book's (Foster 2023, chapter 3), with a code of two numbers that can be
plotted. The linear one cannot do better than principal component analysis, and gets there.

    model = ConvAutoencoder.from_pretrained("runs/autoencoder/model")
    z = model.encode(images)             # (B, 1, 32, 32) in [0, 1] -> (B, 2)
    images_again = model.decode(z)

A code is a point, not a distribution, so there is no `sample`. `uniform_codes` is the book's first
attempt at one, and shows why the VAE is needed.
"""

from __future__ import annotations

import math
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.autoencoder.config import (
    AutoencoderLossConfig,
    ConvAutoencoderConfig,
    LinearAutoencoderConfig,
)
from generative.nets.conv import doubling_layers, halving_layers
from generative.nets.init import glorot_
from generative.training.checks import check_images, check_some, check_vectors
from generative.training.optimisation import ModelLearner, Optimisation
from generative.training.pretrained import Pretrained

__all__ = [
    "AutoencoderLearner",
    "AutoencoderLossConfig",
    "AutoencoderLosses",
    "ConvAutoencoder",
    "ConvAutoencoderConfig",
    "LinearAutoencoder",
    "LinearAutoencoderConfig",
    "add_noise",
    "autoencoder_loss",
    "principal_components",
    "uniform_codes",
]


class ConvAutoencoder(Pretrained, nn.Module):
    """Convolutions of stride 2 down to the code, transposed ones back.

    At the book's sizes the encoder has 96,770 parameters, the decoder 246,273.
    """

    config_class = ConvAutoencoderConfig
    capabilities: ClassVar[frozenset[str]] = frozenset({"loss", "encode", "decode", "reconstruct"})

    def __init__(self, config: ConvAutoencoderConfig | None = None):
        super().__init__()
        self.config = config = config or ConvAutoencoderConfig()
        channels, (c, h, w) = config.channels, config.image_shape
        small = (channels[-1], h >> len(channels), w >> len(channels))
        self.encoder = nn.Sequential(
            *halving_layers((c, *channels), lambda _: [nn.ReLU()]),
            nn.Flatten(),
            nn.Linear(math.prod(small), config.latent_dim),
        )
        self.decoder = nn.Sequential(
            nn.Linear(config.latent_dim, math.prod(small)),
            nn.Unflatten(1, small),
            *doubling_layers((channels[-1], *channels[::-1]), lambda _: [nn.ReLU()]),
            nn.Conv2d(channels[0], c, 3, padding=1),
        )
        glorot_(self)

    def encode(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] -> codes (B, latent_dim).

        Raises:
            ValueError: another shape, integer pixels, or pixels outside [0, 1].
        """
        return self.encoder(check_images(x, self.config.image_shape, self))

    def decode_logits(self, z: Tensor) -> Tensor:
        """Codes (B, latent_dim) -> images before the sigmoid, (B, C, H, W)."""
        return self.decoder(check_vectors(z, self.config.latent_dim, "codes", self))

    def decode(self, z: Tensor) -> Tensor:
        """Codes (B, latent_dim) -> images (B, C, H, W) in [0, 1]."""
        return self.decode_logits(z).sigmoid()

    def reconstruct(self, x: Tensor) -> Tensor:
        """Images -> images, by way of the code."""
        return self.decode(self.encode(x))

    def loss(self, x: Tensor, kind: str = "bce", noisy: Tensor | None = None) -> AutoencoderLosses:
        """Distance of images (B, C, H, W) from their reconstructions, or from those of `noisy`."""
        check_some(check_images(x, self.config.image_shape, self), self)
        return autoencoder_loss(
            self.decode_logits(self.encode(x if noisy is None else noisy)), x, kind
        )


class LinearAutoencoder(Pretrained, nn.Module):
    """One linear map to the code and one back; its best is principal component analysis.

    The least squared error of any k numbers that depend linearly on the image is that of its first
    k principal components (Baldi & Hornik 1989), and there are no other minima.
    """

    config_class = LinearAutoencoderConfig
    capabilities: ClassVar[frozenset[str]] = frozenset({"loss", "encode", "decode", "reconstruct"})

    def __init__(self, config: LinearAutoencoderConfig | None = None):
        super().__init__()
        self.config = config = config or LinearAutoencoderConfig()
        dim = math.prod(config.image_shape)
        self.encoder = nn.Linear(dim, config.latent_dim)
        self.decoder = nn.Linear(config.latent_dim, dim)

    def encode(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] -> codes (B, latent_dim).

        Raises:
            ValueError: another shape, integer pixels, or pixels outside [0, 1].
        """
        x = check_images(x, self.config.image_shape, self)
        return self.encoder(x.flatten(1))

    def decode(self, z: Tensor) -> Tensor:
        """Codes (B, latent_dim) -> images (B, C, H, W); not confined to [0, 1]."""
        z = check_vectors(z, self.config.latent_dim, "codes", self)
        return self.decoder(z).unflatten(1, self.config.image_shape)

    def reconstruct(self, x: Tensor) -> Tensor:
        """Images -> images, by way of the code."""
        return self.decode(self.encode(x))

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Begin at the mean of images (B, C, H, W), with codes of mean zero.

        From anywhere else the first gradients all point at the mean, and are so large that Adam
        takes thousands of steps to forget them.
        """
        check_some(check_images(x, self.config.image_shape, self), self)
        mean = x.flatten(1).mean(0)
        self.decoder.bias.copy_(mean)
        self.encoder.bias.copy_(-self.encoder.weight @ mean)

    def loss(self, x: Tensor, kind: str = "mse", noisy: Tensor | None = None) -> AutoencoderLosses:
        """Mean squared error of images (B, C, H, W); there is no other kind for this model."""
        if kind != "mse":
            raise ValueError(f"kind is {kind!r}; a linear autoencoder minimises 'mse'")
        check_some(check_images(x, self.config.image_shape, self), self)
        error = F.mse_loss(self.reconstruct(x if noisy is None else noisy), x)
        return AutoencoderLosses(error, error)


class AutoencoderLosses(NamedTuple):
    """Means over batch and pixels."""

    loss: Tensor
    mse: Tensor
    """Squared error, also if another loss is minimised."""


def autoencoder_loss(logits: Tensor, x: Tensor, kind: str = "bce") -> AutoencoderLosses:
    """Loss of images before their sigmoid against images x in [0, 1] of the same shape.

    bce punishes an error towards 0 or 1 more than one of the same size towards 1/2; mse treats
    both alike (Foster 2023, chapter 3).
    """
    mse = F.mse_loss(logits.sigmoid(), x)
    if kind == "mse":
        return AutoencoderLosses(mse, mse)
    if kind != "bce":
        raise ValueError(f"kind is {kind!r}; give 'bce' or 'mse'")
    return AutoencoderLosses(F.binary_cross_entropy_with_logits(logits, x), mse.detach())


def add_noise(x: Tensor, std: float, generator: torch.Generator | None = None) -> Tensor:
    """Images plus Gaussian noise, clipped to [0, 1]."""
    eps = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
    return (x + std * eps).clamp(0, 1)


def uniform_codes(codes: Tensor, n: int, generator: torch.Generator | None = None) -> Tensor:
    """n codes drawn uniformly from the box that holds these codes (N, D); (n, D).

    Decoded, many are no images: nothing told the autoencoder how codes should lie, so the box has
    holes, and large classes crowd out small ones (Foster 2023, chapter 3).
    """
    low, high = codes.amin(0), codes.amax(0)
    u = torch.rand(n, codes.shape[1], generator=generator, device=codes.device, dtype=codes.dtype)
    return low + (high - low) * u


def principal_components(x: Tensor, k: int) -> tuple[Tensor, Tensor, float]:
    """Principal component analysis of rows (N, D): mean (D,), directions (k, D), error.

    The error is the mean squared difference of one number after projection: the sum of squares of
    the singular values left out, divided by N * D. No linear autoencoder has a smaller one.
    """
    mean = x.double().mean(0)
    _, s, directions = torch.linalg.svd(x.double() - mean, full_matrices=False)
    return mean, directions[:k], float(s[k:].square().sum() / x.numel())


class AutoencoderLearner(ModelLearner["ConvAutoencoder | LinearAutoencoder"]):
    """Adam on the reconstruction of images; one `update` per batch."""

    def __init__(
        self, model: ConvAutoencoder | LinearAutoencoder, config: AutoencoderLossConfig, steps: int
    ):
        optimizer = torch.optim.Adam(model.parameters(), lr=config.lr, eps=config.adam_eps)
        super().__init__(model, Optimisation(model, optimizer, steps, config.final_lr))
        self.config = config

    def update(self, batch: Tensor) -> dict[str, Tensor | float]:
        """One step on images (B, C, H, W) in [0, 1]."""
        noisy = add_noise(batch, self.config.noise) if self.config.noise else None
        return self.descend(self.model.loss(batch, self.config.kind, noisy))
