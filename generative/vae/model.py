"""The VAE: two networks and three distributions, its bound, its loss, its learner.

As the book prints it (Foster 2023, chapter 3) it minimises 500 times a mean over pixels plus the
KL term. That trades the two off well, but is a bound of nothing: the weight of the KL depends on
how many pixels there are. Here the reconstruction term is -log p(x | z), a sum over pixels, unless
the book's is asked for, so that the loss is in nats and an upper bound of -log p(x).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.training.checks import check_images, check_some, check_vectors, checked
from generative.training.gradients import graph_if_wanted
from generative.training.learner import ModelLearner, adamw
from generative.training.pretrained import Pretrained
from generative.training.ranges import CountOrZero
from generative.vae.config import ConvVAEConfig, ImageVAEConfig, ImageVAELossConfig
from generative.vae.gaussian import (
    VAELosses,
    gaussian_log_prob,
    importance_bound,
    mean_or_draw,
    sample_gaussian,
)

if TYPE_CHECKING:
    from generative.vae.linear import LinearVAE

__all__ = ["VAE", "ImageVAELearner", "Likelihood", "Prior"]


class Likelihood(Protocol):
    """p(x | z), from the decoder's output."""

    def mean(self, out: Tensor) -> Tensor:
        """Decoded images in [0, 1], (..., C, H, W)."""
        ...

    def log_prob(self, out: Tensor, x: Tensor) -> Tensor:
        """log p of each pixel, (..., C, H, W), nats."""
        ...


class Prior(Protocol):
    """p(z). One with `kl(mu, logvar)` has the KL of each latent dimension in closed form."""

    latent_dim: int

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n draws, (n, latent_dim)."""
        ...

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z), (..., latent_dim) -> (...), nats."""
        ...


class VAE(Pretrained, nn.Module):
    """VAE with a diagonal Gaussian for q(z | x), of images in [0, 1].

    `ImageVAEConfig().build()` is the book's: its encoder with the posterior has 100,868 parameters
    and the decoder 246,273; for its faces, channels (128, 128, 128, 128) and 200 latent dimensions,
    652,560 and 698,755. A VAE that is put together by hand is saved by its weights: put it together
    again and call `load_weights(folder)`.

    Args:
        encoder: images (B, *image_shape) -> features.
        posterior: features -> mu and logvar of q(z | x), each (B, latent_dim), e.g. `GaussianHead`.
        decoder: z (B, latent_dim) -> what the likelihood takes, (B, *image_shape).
        likelihood: p(x | z), e.g. `BernoulliPixels` or `GaussianPixels`.
        prior: p(z), e.g. `StandardNormal` or `MixturePrior`.
        image_shape: (C, H, W).
        config: the recipe of the model, if it has one.
    """

    builds: ClassVar[Mapping[str, type]] = {"ImageVAE": ImageVAEConfig}
    renamed: ClassVar[Mapping[str, str]] = {
        "to_mu.": "posterior.to_mu.",
        "to_logvar.": "posterior.to_logvar.",
        "pixel_logvar": "likelihood.logvar",
    }

    def __init__(
        self,
        encoder: nn.Module,
        posterior: nn.Module,
        decoder: nn.Module,
        likelihood: Likelihood,
        prior: Prior,
        image_shape: tuple[int, ...],
        config: ImageVAEConfig | ConvVAEConfig | None = None,
    ):
        super().__init__()
        self.config, self.image_shape, self.latent_dim = config, image_shape, prior.latent_dim
        self.likelihood = likelihood
        self.encoder, self.decoder, self.posterior = encoder, decoder, posterior
        self.prior = prior

    def encode_mu_logvar(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W) in [0, 1] -> mu and logvar of q(z | x), each (B, latent_dim).

        Raises:
            ValueError: another shape, integer pixels, or pixels outside [0, 1].
        """
        return self.posterior(self.encoder(check_images(x, self.image_shape, self)))

    def encode(
        self, x: Tensor, sample: bool = False, generator: torch.Generator | None = None
    ) -> Tensor:
        """Images (B, C, H, W) -> the mean of q(z | x), or one draw of it, (B, latent_dim)."""
        return mean_or_draw(*self.encode_mu_logvar(x), sample, generator)

    def decode_logits(self, z: Tensor) -> Tensor:
        """z (B, latent_dim) -> logits of pixels, the likelihood's input, (B, C, H, W)."""
        return self.decoder(check_vectors(z, self.latent_dim, "codes", self))

    def decode(self, z: Tensor) -> Tensor:
        """z (B, latent_dim) -> the mean of p(x | z), images (B, C, H, W) in [0, 1]."""
        return self.likelihood.mean(self.decode_logits(z))

    def reconstruct(self, x: Tensor) -> Tensor:
        """Images -> images, by way of the mean of q(z | x)."""
        return self.decode(self.encode(x))

    @checked
    @torch.no_grad()
    def sample_codes(self, n: CountOrZero, generator: torch.Generator | None = None) -> Tensor:
        """n codes z ~ p(z), (n, latent_dim)."""
        return self.prior.sample(n, generator)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n images (n, C, H, W), decoded from z ~ p(z), without gradient or noise of pixels."""
        with torch.no_grad():
            return self.decode(self.sample_codes(n, generator))

    def log_likelihood(self, logits: Tensor, x: Tensor) -> Tensor:
        """log p(x | z) of images x (B, C, H, W) from `decode_logits(z)`, (..., B), nats."""
        return self.likelihood.log_prob(logits, x.expand_as(logits)).flatten(-3).sum(-1)

    def draw(
        self, x: Tensor, n: int, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """log p(x | z) and log p(z) - log q(z | x) for n draws of z, each (n, B), nats."""
        mu, logvar = self.encode_mu_logvar(x)
        z = sample_gaussian(mu.expand(n, -1, -1), logvar.expand(n, -1, -1), generator)
        logits = self.decode_logits(z.flatten(0, 1)).unflatten(0, (n, len(x)))
        log_q = gaussian_log_prob(z, mu, logvar).sum(-1)
        return self.log_likelihood(logits, x), self.prior.log_prob(z) - log_q

    @graph_if_wanted
    def bound(
        self, x: Tensor, num_draws: int = 1, generator: torch.Generator | None = None
    ) -> Tensor:
        """Lower bound of log p of each image, (B, C, H, W) -> (B,), nats: `importance_bound`.

        One draw is the ELBO, and a thousand are the usual estimate of log p(x) itself. Use it in
        evaluation mode: with dropout or batch statistics it is another model that is measured.
        """

        def log_weights(n: int) -> Tensor:
            log_likelihood, log_ratio = self.draw(x, n, generator)
            return log_likelihood + log_ratio

        return importance_bound(log_weights, num_draws, len(x))

    def loss(
        self,
        x: Tensor,
        config: ImageVAELossConfig | None = None,
        generator: torch.Generator | None = None,
    ) -> VAELosses:
        """Training loss of images (B, C, H, W); see `ImageVAELossConfig`.

        With the defaults it is the negative ELBO, in nats. The KL is in closed form where it has
        one, and all of it, with what free bits forgive, is in `kl`.

        Raises:
            ValueError: free bits are asked of a mixture, whose KL has no parts to forgive.
        """
        config = config or ImageVAELossConfig()
        check_some(x, self)
        kl_of = getattr(self.prior, "kl", None)
        if config.num_draws > 1 or kl_of is None:
            return self._loss_by_draws(x, config, generator)
        mu, logvar = self.encode_mu_logvar(x)
        logits = self.decode_logits(sample_gaussian(mu, logvar, generator))
        if config.recon == "likelihood":
            recon = -self.log_likelihood(logits, x).mean()
        elif config.recon == "bce":
            recon = F.binary_cross_entropy_with_logits(logits, x)
        else:
            recon = F.mse_loss(self.likelihood.mean(logits), x)
        recon = config.recon_weight * recon
        kl = cast("Tensor", kl_of(mu, logvar)).mean(0)
        loss = recon + config.beta * kl.clamp_min(config.free_bits).sum()
        return VAELosses(loss, recon, kl.sum())

    def _loss_by_draws(
        self, x: Tensor, config: ImageVAELossConfig, generator: torch.Generator | None
    ) -> VAELosses:
        """-log (1/K) sum_k p(x | z_k) (p(z_k) / q(z_k | x))^beta."""
        if config.free_bits or config.recon != "likelihood":
            raise ValueError(
                f"free_bits is {config.free_bits} and recon {config.recon!r}, but p(z) a mixture; "
                "leave them at their defaults, or prior_components at 1"
            )
        log_likelihood, log_ratio = self.draw(x, config.num_draws, generator)
        log_weights = config.recon_weight * log_likelihood + config.beta * log_ratio
        loss = math.log(config.num_draws) - log_weights.logsumexp(0).mean()
        recon = -config.recon_weight * log_likelihood.detach().mean()
        return VAELosses(loss, recon, -log_ratio.detach().mean())


class ImageVAELearner(ModelLearner["VAE | LinearVAE"]):
    """AdamW on a VAE's loss; `kept` holds the weights to keep: their average, if there is one."""

    def __init__(self, model: VAE | LinearVAE, config: ImageVAELossConfig, steps: int):
        super().__init__(model, adamw(model, config, steps))
        self.config = config

    def update(self, x: Tensor) -> dict[str, Tensor]:
        """One step on images (B, C, H, W) in [0, 1]."""
        config, step = self.config, self.optimisation.step_number
        if step < config.warmup:
            config = dataclasses.replace(config, beta=config.beta * step / config.warmup)
        return self.descend(self.model.loss(x, config))
