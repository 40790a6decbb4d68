"""The VAE for 64x64 frames that world models see with: network, loss, learner.

The network is the one of World Models (Ha & Schmidhuber 2018, appendix A.1): four convolutions
down to 2x2, a diagonal Gaussian latent, four transposed convolutions back. No padding anywhere.

    vae = ConvVAE.from_pretrained("runs/vae/model")
    mu, logvar = vae.encode_mu_logvar(frames)       # (B, 3, 64, 64) in [0, 1] -> (B, 32) twice
    frames_again = vae.decode(mu)
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.training.checks import check_images, check_some, check_vectors, checked, placed
from generative.training.gradients import graph_if_wanted
from generative.training.optimisation import ModelLearner, Optimisation
from generative.training.precision import uses_bf16
from generative.training.pretrained import Pretrained
from generative.training.ranges import CountOrZero
from generative.vae.config import ConvVAEConfig, VAELossConfig
from generative.vae.gaussian import (
    VAELosses,
    gaussian_kl,
    gaussian_log_prob,
    importance_bound,
    mean_or_draw,
    sample_gaussian,
)

__all__ = [
    "ConvVAE",
    "VAELearner",
    "decode_logits_as_blocks",
    "to_float_bchw",
    "to_uint8_bhwc",
    "vae_loss",
]


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


class ConvVAE(Pretrained, nn.Module):
    """VAE for (B, 3, 64, 64) images in [0, 1]; 4,348,547 parameters at the paper's sizes."""

    config_class = ConvVAEConfig
    capabilities: ClassVar[frozenset[str]] = frozenset(
        {"loss", "sample", "bound", "encode", "decode", "reconstruct"}
    )
    image_shape = (3, 64, 64)

    def __init__(self, config: ConvVAEConfig | None = None):
        super().__init__()
        self.config = config = config or ConvVAEConfig()
        c1, c2, c3, c4 = config.channels
        self.encoder = nn.Sequential(
            nn.Conv2d(3, c1, 4, stride=2),  # 64 -> 31
            nn.ReLU(),
            nn.Conv2d(c1, c2, 4, stride=2),  # 31 -> 14
            nn.ReLU(),
            nn.Conv2d(c2, c3, 4, stride=2),  # 14 -> 6
            nn.ReLU(),
            nn.Conv2d(c3, c4, 4, stride=2),  # 6 -> 2
            nn.ReLU(),
            nn.Flatten(),
        )
        self.to_mu = nn.Linear(4 * c4, config.latent_dim)
        self.to_logvar = nn.Linear(4 * c4, config.latent_dim)
        self.from_z = nn.Linear(config.latent_dim, 4 * c4)
        self.decoder = nn.Sequential(
            nn.Unflatten(1, (4 * c4, 1, 1)),
            nn.ConvTranspose2d(4 * c4, c3, 5, stride=2),  # 1 -> 5
            nn.ReLU(),
            nn.ConvTranspose2d(c3, c2, 5, stride=2),  # 5 -> 13
            nn.ReLU(),
            nn.ConvTranspose2d(c2, c1, 6, stride=2),  # 13 -> 30
            nn.ReLU(),
            nn.ConvTranspose2d(c1, 3, 6, stride=2),  # 30 -> 64
        )

    @classmethod
    def complete_config(cls, config: dict[str, Any]) -> dict[str, Any]:
        """Models that were saved before there was `relu_from_z` have none."""
        return {"relu_from_z": False, **config}

    def encode_mu_logvar(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 3, 64, 64) in [0, 1] -> mu, logvar, each (B, latent_dim).

        Raises:
            ValueError: another shape, or integer pixels (convert with `to_float_bchw`).
        """
        features = self.encoder(check_images(x, self.image_shape, self, pixels=False))
        return self.to_mu(features), self.to_logvar(features)

    def encode(
        self, x: Tensor, sample: bool = False, generator: torch.Generator | None = None
    ) -> Tensor:
        """Images (B, C, H, W) -> the mean of q(z | x), or one draw of it, (B, latent_dim)."""
        return mean_or_draw(*self.encode_mu_logvar(x), sample, generator)

    def decode_logits(self, z: Tensor) -> Tensor:
        """z (B, latent_dim) -> images before the sigmoid, (B, 3, 64, 64)."""
        return self.decoder(self.spread(check_vectors(z, self.config.latent_dim, "z", self)))

    def spread(self, z: Tensor) -> Tensor:
        """z (B, latent_dim) -> what the transposed convolutions begin with, (B, 4 * c4)."""
        x = self.from_z(z)
        return x.relu() if self.config.relu_from_z else x

    def decode(self, z: Tensor) -> Tensor:
        """z (B, latent_dim) -> images (B, 3, 64, 64) in [0, 1]."""
        return self.decode_logits(z).sigmoid()

    def forward(
        self, x: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The whole VAE: images -> (reconstruction, mu, logvar), through a sampled z."""
        mu, logvar = self.encode_mu_logvar(x)
        return self.decode(sample_gaussian(mu, logvar, generator)), mu, logvar

    def loss(
        self,
        x: Tensor,
        beta: float = 1.0,
        free_bits: float = 0.5,
        generator: torch.Generator | None = None,
    ) -> VAELosses:
        """`vae_loss` of images (B, 3, 64, 64), by way of a sampled z."""
        recon, mu, logvar = self(check_some(x, self), generator)
        return vae_loss(recon, x, mu, logvar, beta, free_bits)

    @graph_if_wanted
    def bound(
        self, x: Tensor, num_draws: int = 1, generator: torch.Generator | None = None
    ) -> Tensor:
        """Lower bound of the log density of each image, (B, 3, 64, 64) -> (B,), nats.

        The squared error is, up to a constant, the negative log density of pixels with noise of
        variance 1/2 around the reconstruction; that is the density meant here. See
        `importance_bound` for num_draws.
        """
        mu, logvar = self.encode_mu_logvar(x)

        def log_weights(n: int) -> Tensor:
            z = sample_gaussian(mu.expand(n, -1, -1), logvar.expand(n, -1, -1), generator)
            recon = self.decode(z.flatten(0, 1)).unflatten(0, (n, len(x)))
            log_p = gaussian_log_prob(x, recon, math.log(0.5)).flatten(2).sum(2)
            log_prior = gaussian_log_prob(z, 0.0, 0.0).sum(2)
            return log_p + log_prior - gaussian_log_prob(z, mu, logvar).sum(2)

        return importance_bound(log_weights, num_draws, len(x))

    def reconstruct(self, x: Tensor) -> Tensor:
        """Images -> images through the latent mean (no noise)."""
        return self.decode(self.encode(x))

    @checked
    @torch.no_grad()
    def sample(self, n: CountOrZero, generator: torch.Generator | None = None) -> Tensor:
        """n images decoded from z ~ N(0, I), (n, 3, 64, 64)."""
        z = torch.randn(n, self.config.latent_dim, generator=generator, **placed(self))
        return self.decode(z)


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


def decode_logits_as_blocks(model: ConvVAE, z: Tensor) -> Tensor:
    """`model.decode_logits(z)` after `pixel_unshuffle(..., 2)`: (B, 12, 32, 32), for training.

    The same sums by faster routes. The first transposed convolution reads a single pixel: a matrix
    product. The last writes 3 channels, too few for PyTorch's kernels. Each 2x2 block of its output
    depends on 3x3 inputs, so it is also an ordinary convolution with 4 * 3 outputs (Shi et al.
    2016), and a squared error does not mind that the pixels stand in another order.
    """
    _unflatten, first, *between, last = cast("Iterable[Any]", model.decoder)
    height, width = first.kernel_size
    # Height, width, channels: so the product lies in memory as channels_last wants it.
    weight = first.weight.permute(2, 3, 1, 0).flatten(0, 2)
    x = F.linear(model.spread(z), weight, first.bias.repeat(height * width))
    x = x.unflatten(1, (height, width, -1)).permute(0, 3, 1, 2)
    for layer in between:
        x = layer(x)
    # Output pixel 2 a + p sums input a - m times weight 2 m + p over m = 0, 1, 2.
    taps = last.weight.unflatten(3, (3, 2)).unflatten(2, (3, 2)).flip(2, 4)
    weight = taps.permute(1, 3, 5, 0, 2, 4).flatten(0, 2)
    weight = weight.contiguous(memory_format=torch.channels_last)
    x = F.pad(x, (2, 2, 2, 2))  # inside the convolution it is many times slower in bfloat16
    return F.conv2d(x, weight, last.bias.repeat_interleave(4))


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
            logits = decode_logits_as_blocks(self.model, sample_gaussian(mu, logvar))
        losses = vae_loss(
            logits.to(dtype).sigmoid(),
            F.pixel_unshuffle(x, 2),
            mu,
            logvar,
            self.config.beta,
            self.config.free_bits,
        )
        return self.descend(losses)
