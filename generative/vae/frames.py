"""The VAE for 64x64 frames that world models see with, its loss and its learner.

Networks and loss are those of World Models (Ha & Schmidhuber 2018, appendix A.1): four convolutions
down to 2x2, a diagonal Gaussian latent, four transposed convolutions back (`networks`).

    vae = ConvVAE.from_pretrained("runs/vae/model")
    mu, logvar = vae.encode_mu_logvar(frames)       # (B, 3, 64, 64) in [0, 1] -> (B, 32) twice
    frames_again = vae.decode(mu)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.training.checks import check_images, check_some, placed
from generative.training.learner import ModelLearner
from generative.training.optimisation import Optimisation
from generative.training.precision import uses_bf16
from generative.vae.config import ConvVAEConfig, VAELossConfig
from generative.vae.distributions import GaussianPixels, StandardNormal
from generative.vae.gaussian import VAELosses, gaussian_kl, sample_gaussian
from generative.vae.model import VAE
from generative.vae.networks import FrameDecoder

__all__ = [
    "ConvVAE",
    "VAELearner",
    "to_float_bchw",
    "to_uint8_bhwc",
    "vae_loss",
]

FRAME_SHAPE = (3, 64, 64)


def to_float_bchw(frames: Tensor) -> Tensor:
    """uint8 frames (..., H, W, C) -> float32 (..., C, H, W) in [0, 1].

    Raises:
        ValueError: frames of another type.
    """
    if frames.dtype != torch.uint8:
        raise ValueError(f"frames are {frames.dtype}; pass uint8 (..., H, W, C), from 0 to 255")
    return frames.movedim(-1, -3).float().div(255.0)


def to_uint8_bhwc(images: Tensor) -> Tensor:
    """float images (..., C, H, W) in [0, 1] -> uint8 frames (..., H, W, C)."""
    return images.clamp(0, 1).mul(255).round().byte().movedim(-3, -1)


class ConvVAE(VAE):
    """VAE for (B, 3, 64, 64) images in [0, 1], with the paper's loss.

    `ConvVAEConfig().build()` is the paper's, with 4,348,547 parameters. One that is put together by
    hand is saved by its weights: put it together again and call `load_weights(folder)`.

    The paper's squared error is, up to a constant, the negative log density of pixels with noise of
    variance 1/2 around the reconstruction; that is the density in `bound`.

    Args:
        encoder: images (B, 3, 64, 64) -> features.
        posterior: features -> mu and logvar of q(z | x), each (B, latent_dim), e.g. `GaussianHead`.
        decoder: z (B, latent_dim) -> images before the sigmoid. Of
            `FrameDecoder` the learner takes the fast form.
        latent_dim: size of z.
        config: the recipe of the model, if it has one.
    """

    builds: ClassVar[Mapping[str, type]] = {"ConvVAE": ConvVAEConfig}
    renamed: ClassVar[Mapping[str, str]] = {
        "to_mu.": "posterior.to_mu.",
        "to_logvar.": "posterior.to_logvar.",
        "from_z.": "decoder.from_z.",
        "decoder.": "decoder.layers.",
    }

    def __init__(
        self,
        encoder: nn.Module,
        posterior: nn.Module,
        decoder: nn.Module,
        latent_dim: int,
        config: ConvVAEConfig | None = None,
    ):
        networks = encoder, posterior, decoder
        likelihood, prior = GaussianPixels(math.sqrt(0.5)), StandardNormal(latent_dim)
        super().__init__(*networks, likelihood, prior, FRAME_SHAPE, config)

    def encode_mu_logvar(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 3, 64, 64) in [0, 1] -> mu, logvar, each (B, latent_dim).

        Raises:
            ValueError: another shape, or integer pixels (convert with `to_float_bchw`).
        """
        return self.posterior(self.encoder(check_images(x, self.image_shape, self, pixels=False)))

    def forward(
        self, x: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The whole VAE: images -> (reconstruction, mu, logvar), through a sampled z."""
        mu, logvar = self.encode_mu_logvar(x)
        return self.decode(sample_gaussian(mu, logvar, generator)), mu, logvar

    def loss(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        x: Tensor,
        beta: float = 1.0,
        free_bits: float = 0.5,
        generator: torch.Generator | None = None,
    ) -> VAELosses:
        """`vae_loss` of images (B, 3, 64, 64), by way of a sampled z."""
        recon, mu, logvar = self(check_some(x, self), generator)
        return vae_loss(recon, x, mu, logvar, beta, free_bits)


def vae_loss(
    recon: Tensor, x: Tensor, mu: Tensor, logvar: Tensor, beta: float = 1.0, free_bits: float = 0.5
) -> VAELosses:
    """Squared error summed over the image + beta * max(KL, free_bits * latent_dim).

    The tolerance holds for the KL of a whole image, as in the paper's program: below
    `free_bits` nats a dimension on average, the code costs nothing.
    """
    squared_error = (recon - x).square().flatten(1).sum(1).mean()
    kl = gaussian_kl(mu, logvar).sum(1)
    loss = squared_error + beta * kl.clamp_min(free_bits * mu.shape[1]).mean()
    return VAELosses(loss, squared_error, kl.mean())


class VAELearner(ModelLearner[ConvVAE]):
    """Adam on `vae_loss`; one `update` per batch of uint8 frames."""

    def __init__(self, model: ConvVAE, config: VAELossConfig, steps: int):
        model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.config = config
        self.bf16 = uses_bf16(config.bf16, next(model.parameters()).device)
        optimizer = torch.optim.Adam(model.parameters(), lr=config.lr, fused=True)
        super().__init__(model, Optimisation(model, optimizer, steps, config.final_lr))

    def update(self, frames: Tensor) -> dict[str, Tensor]:
        """One step on uint8 frames (B, 64, 64, 3)."""
        dtype = placed(self.model)["dtype"]
        x = to_float_bchw(check_some(frames, self.model)).to(dtype)
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.bf16):
            mu, logvar = (t.to(dtype) for t in self.model.encode_mu_logvar(x))
            z, decoder = sample_gaussian(mu, logvar), self.model.decoder
            # The same sums by faster routes; a squared error does not mind the order of pixels.
            if isinstance(decoder, FrameDecoder):
                logits, x = decoder.as_blocks(z), F.pixel_unshuffle(x, 2)
            else:
                logits = decoder(z)
        recon, config = logits.to(dtype).sigmoid(), self.config
        losses = vae_loss(recon, x, mu, logvar, config.beta, config.free_bits)
        return self.descend(losses)
