"""The autoencoder of any two networks, its losses and its learner.

An encoder squeezes an image into a short code, a decoder makes the image of it again. The
convolutional one is the book's (Foster 2023, chapter 3), with a code of two numbers that can be
plotted. The linear one cannot do better than principal component analysis, and gets there.

    model = Autoencoder.from_pretrained("runs/autoencoder/model")
    z = model.encode(images)             # (B, 1, 32, 32) in [0, 1] -> (B, 2)
    images_again = model.decode(z)

A code is a point, not a distribution, so there is no `sample`. `uniform_codes` is the book's first
attempt at one, and shows why the VAE is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.autoencoder.config import (
    AutoencoderLossConfig,
    ConvAutoencoderConfig,
    LinearAutoencoderConfig,
)
from generative.training.checks import check_images, check_some, check_vectors
from generative.training.learner import ModelLearner
from generative.training.optimisation import Optimisation
from generative.training.pretrained import Pretrained

__all__ = [
    "Autoencoder",
    "AutoencoderLearner",
    "AutoencoderLosses",
    "add_noise",
    "autoencoder_loss",
    "principal_components",
    "uniform_codes",
]


class Autoencoder(Pretrained, nn.Module):
    """Images to a short code and back, by any two networks.

    `ConvAutoencoderConfig().build()` is the book's. `LinearAutoencoderConfig().build()` has linear
    maps: the least squared error of any k numbers that depend linearly on the image is that of its
    first k principal components (Baldi & Hornik 1989), and there are no other minima. An
    autoencoder that is put together by hand is saved by its weights: put it together again and call
    `load_weights(folder)`.

    Args:
        encoder: images (B, *image_shape) -> codes (B, latent_dim).
        decoder: codes -> images before the sigmoid, or, without `squash`, images.
        image_shape: (C, H, W).
        latent_dim: numbers of a code.
        squash: decoded images are confined to [0, 1] by a sigmoid.
        config: the recipe of the model, if it has one.
    """

    builds: ClassVar[Mapping[str, type]] = {
        "ConvAutoencoder": ConvAutoencoderConfig,
        "LinearAutoencoder": LinearAutoencoderConfig,
    }
    renamed: ClassVar[Mapping[str, str]] = {
        "encoder.weight": "encoder.1.weight",
        "encoder.bias": "encoder.1.bias",
        "decoder.weight": "decoder.0.weight",
        "decoder.bias": "decoder.0.bias",
    }

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        image_shape: tuple[int, ...],
        latent_dim: int,
        squash: bool = True,
        config: ConvAutoencoderConfig | LinearAutoencoderConfig | None = None,
    ):
        super().__init__()
        self.config, self.image_shape, self.latent_dim = config, image_shape, latent_dim
        self.encoder, self.decoder, self.squash = encoder, decoder, squash

    def encode(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] -> codes (B, latent_dim).

        Raises:
            ValueError: another shape, integer pixels, or pixels outside [0, 1].
        """
        return self.encoder(check_images(x, self.image_shape, self))

    def decode_logits(self, z: Tensor) -> Tensor:
        """Codes (B, latent_dim) -> what the decoder gives, (B, C, H, W)."""
        return self.decoder(check_vectors(z, self.latent_dim, "codes", self))

    def decode(self, z: Tensor) -> Tensor:
        """Codes (B, latent_dim) -> images (B, C, H, W); in [0, 1] with `squash`."""
        out = self.decode_logits(z)
        return out.sigmoid() if self.squash else out

    def reconstruct(self, x: Tensor) -> Tensor:
        """Images -> images, by way of the code."""
        return self.decode(self.encode(x))

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Begin at the mean of images (B, C, H, W), with codes of mean zero.

        From anywhere else the first gradients of linear maps all point at the mean, and are so
        large that Adam takes thousands of steps to forget them.

        Raises:
            ValueError: the networks are not linear maps.
        """
        check_some(check_images(x, self.image_shape, self), self)
        into, out_of = self.maps_beside_code()
        if self.squash or {m for m in self.modules() if [*m.parameters(False)]} != {into, out_of}:
            raise ValueError("only a linear autoencoder can begin at the mean; leave this out")
        mean = x.flatten(1).mean(0)
        out_of.bias.copy_(mean)
        into.bias.copy_(-into.weight @ mean)

    def maps_beside_code(self) -> tuple[nn.Linear, nn.Linear]:
        """The linear maps into the code and out of it.

        Raises:
            ValueError: the encoder does not end in one, or the decoder does not begin with one.
        """
        ends = [[*network.modules()] for network in (self.encoder, self.decoder)]
        into, out_of = ends[0][-1], next(m for m in ends[1] if not [*m.children()])
        if not (isinstance(into, nn.Linear) and isinstance(out_of, nn.Linear)):
            raise ValueError(
                f"the encoder ends in {type(into).__name__} and the decoder begins with "
                f"{type(out_of).__name__}; needed is an nn.Linear on both sides of the code"
            )
        return into, out_of

    def loss(
        self, x: Tensor, kind: str | None = None, noisy: Tensor | None = None
    ) -> AutoencoderLosses:
        """Distance of images (B, C, H, W) from their reconstructions, or from those of `noisy`.

        Args:
            kind: "bce" or "mse"; without `squash` there is only "mse".
        """
        check_some(check_images(x, self.image_shape, self), self)
        out = self.decode_logits(self.encode(x if noisy is None else noisy))
        if self.squash:
            return autoencoder_loss(out, x, kind or "bce")
        if kind not in (None, "mse"):
            raise ValueError(f"kind is {kind!r}; an autoencoder without squash minimises 'mse'")
        error = F.mse_loss(out, x)
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


class AutoencoderLearner(ModelLearner[Autoencoder]):
    """Adam on the reconstruction of images; one `update` per batch."""

    def __init__(self, model: Autoencoder, config: AutoencoderLossConfig, steps: int):
        optimizer = torch.optim.Adam(model.parameters(), lr=config.lr, eps=config.adam_eps)
        super().__init__(model, Optimisation(model, optimizer, steps, config.final_lr))
        self.config = config

    def update(self, batch: Tensor) -> dict[str, Tensor | float]:
        """One step on images (B, C, H, W) in [0, 1]."""
        noisy = add_noise(batch, self.config.noise) if self.config.noise else None
        return self.descend(self.model.loss(batch, self.config.kind, noisy))
