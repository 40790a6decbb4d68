"""Autoencoder whose latents are a grid of Gaussians: the space in which latent diffusion works.

    model = KLAutoencoder.from_pretrained("runs/autoencoder/model")
    z = model.encode(x)                       # (B, 3, 24, 24) in [0, 1] -> (B, 4, 6, 6), the means
    model.decode(z)                           # (B, 3, 24, 24)

A small KL term keeps the latents from spreading without limit; it is far too small to make them
normal, which is left to the diffusion (Rombach et al. 2022, section 3.1).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.text_to_image.config import KLAutoencoderConfig, KLAutoencoderLossConfig
from generative.training.checks import check_batch, check_images, check_some
from generative.training.learner import ModelLearner, adamw
from generative.training.pretrained import Pretrained
from generative.vae.gaussian import gaussian_kl, mean_or_draw

__all__ = ["KLAutoencoder", "KLAutoencoderLearner", "KLAutoencoderLosses"]

MAX_LOGVAR = 20.0
"""Limit of log variances, so that exp is finite (the publication's program: -30 to 20)."""


class KLAutoencoderLosses(NamedTuple):
    """Means over the batch."""

    loss: Tensor
    recon: Tensor
    """Error of a number of the images, absolute or squared."""
    kl: Tensor
    """KL of the latents of an image from a standard normal distribution, nats."""


class KLAutoencoder(Pretrained, nn.Module):
    """Convolutional autoencoder with a Gaussian for each number of a grid of latents.

    Args:
        encoder: images (B, C, H, W) -> mu and logvar as channels, (B, 2 Z, h, w).
        decoder: latents (B, Z, h, w) -> images (B, C, H, W).
        image_shape: (C, H, W).
        latent_shape: (Z, h, w).
        config: the recipe of the model, if it has one.
    """

    builds: ClassVar[Mapping[str, type]] = {"KLAutoencoder": KLAutoencoderConfig}

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        image_shape: tuple[int, int, int],
        latent_shape: tuple[int, int, int],
        config: KLAutoencoderConfig | None = None,
    ):
        super().__init__()
        self.config, self.image_shape, self.latent_shape = config, image_shape, latent_shape
        self.encoder, self.decoder = encoder, decoder

    def encode_mu_logvar(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W) in [0, 1] -> mu and logvar of q(z | x), each (B, Z, h, w).

        Raises:
            ValueError: another shape, integer pixels, or pixels outside [0, 1].
        """
        mu, logvar = self.encoder(2 * check_images(x, self.image_shape, self) - 1).chunk(2, 1)
        return mu, logvar.clamp(-MAX_LOGVAR, MAX_LOGVAR)

    def encode(
        self, x: Tensor, sample: bool = False, generator: torch.Generator | None = None
    ) -> Tensor:
        """Images (B, C, H, W) -> the mean of q(z | x), or one draw of it, (B, Z, h, w)."""
        return mean_or_draw(*self.encode_mu_logvar(x), sample, generator)

    def decode(self, z: Tensor) -> Tensor:
        """Latents (B, Z, h, w) -> images (B, C, H, W) in [0, 1]."""
        return self._pixels(check_batch(z, self.latent_shape, "latents", self)).clamp(0, 1)

    def reconstruct(self, x: Tensor) -> Tensor:
        """Images -> images, by way of the means of their latents."""
        return self.decode(self.encode(x))

    def loss(
        self,
        x: Tensor,
        kl_weight: float = 1e-6,
        generator: torch.Generator | None = None,
        recon: Literal["l1", "l2"] = "l1",
    ) -> KLAutoencoderLosses:
        """Error of images (B, C, H, W), plus a little KL.

        Args:
            kl_weight: of the KL of an image in nats beside the sum of its errors, as in the
                publication; the loss is divided by the numbers of an image.
            recon: absolute errors or squared ones.
        """
        mu, logvar = self.encode_mu_logvar(check_some(x, self))
        z = mean_or_draw(mu, logvar, True, generator)
        error = {"l1": F.l1_loss, "l2": F.mse_loss}[recon](self._pixels(z), x)
        kl = gaussian_kl(mu, logvar).flatten(1).sum(1).mean()
        return KLAutoencoderLosses(error + kl_weight * kl / x[0].numel(), error, kl)

    def _pixels(self, z: Tensor) -> Tensor:
        return (self.decoder(z) + 1) / 2


class KLAutoencoderLearner(ModelLearner[KLAutoencoder]):
    """AdamW on the error of images and a little KL."""

    def __init__(self, model: KLAutoencoder, config: KLAutoencoderLossConfig, steps: int):
        super().__init__(model, adamw(model, config, steps))
        self.config = config

    def update(self, x: Tensor) -> dict[str, Tensor | float]:
        """One step on images (B, C, H, W) in [0, 1]."""
        return self.descend(self.model.loss(x, self.config.kl_weight, recon=self.config.recon))
