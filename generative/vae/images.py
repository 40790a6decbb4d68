"""The VAE for images of any size: networks, likelihoods, bound, loss, learner.

As the book prints it (Foster 2023, chapter 3) it minimises 500 times a mean over pixels plus the
KL term. That trades the two off well, but is a bound of nothing: the weight of the KL depends on
how many pixels there are. Here the reconstruction term is -log p(x | z), a sum over pixels, unless
the book's is asked for, so that the loss is in nats and an upper bound of -log p(x).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.nets.conv import doubling_layers, halving_layers
from generative.nets.init import glorot_
from generative.training.checks import check_images, check_some, check_vectors, checked, placed
from generative.training.gradients import graph_if_wanted
from generative.training.optimisation import Optimisation, parameter_groups
from generative.training.pretrained import Pretrained
from generative.training.ranges import CountOrZero
from generative.vae.config import ImageVAEConfig, ImageVAELossConfig
from generative.vae.gaussian import (
    VAELosses,
    gaussian_kl,
    gaussian_log_prob,
    importance_bound,
    sample_gaussian,
)

if TYPE_CHECKING:
    from generative.vae.linear import LinearVAE

__all__ = ["ImageVAE", "ImageVAELearner"]

SLOPE = 0.3
"""Of LeakyReLU, the default of the book's framework."""
FIRST_STD = 0.1
"""Of a pixel whose noise is learnt: one number takes as many steps as the weights, so it begins
near the end."""
MAX_LOGVAR = 8.0
"""log variance of q(z | x) stays between its negative and this, so that exp is finite."""


# ---------------------------------------------------------------------------------------------
# Networks
# ---------------------------------------------------------------------------------------------


def conv_encoder(config: ImageVAEConfig) -> nn.Sequential:
    """Convolutions of stride 2, (B, C, H, W) -> (B, features)."""
    widths = (config.image_shape[0], *config.channels)
    return nn.Sequential(*halving_layers(widths, _behind(config)), nn.Flatten())


def conv_decoder(config: ImageVAEConfig) -> nn.Sequential:
    """Transposed convolutions of stride 2, z (B, D) -> pixels before the sigmoid (B, C, H, W)."""
    widths = config.channels[::-1]
    small = (widths[0], *(side >> len(widths) for side in config.image_shape[1:]))
    features = math.prod(small)
    layers: list[nn.Module] = [nn.Linear(config.latent_dim, features)]
    if config.batch_norm:
        layers += _activation(nn.BatchNorm1d, features, config)
    layers.append(nn.Unflatten(1, small))
    layers += doubling_layers((widths[0], *widths), _behind(config))
    return nn.Sequential(*layers, nn.Conv2d(widths[-1], config.image_shape[0], 3, padding=1))


def _behind(config: ImageVAEConfig) -> Callable[[int], list[nn.Module]]:
    return lambda width: _activation(nn.BatchNorm2d, width, config)


def _activation(norm: type[nn.Module], width: int, config: ImageVAEConfig) -> list[nn.Module]:
    if not config.batch_norm:
        return [nn.ReLU()]
    return [norm(width, eps=1e-3, momentum=0.01), nn.LeakyReLU(SLOPE)]


def mlp(in_dim: int, config: ImageVAEConfig) -> list[nn.Module]:
    """Layers of hidden_dim units, (B, in_dim) -> (B, hidden_dim)."""
    layers: list[nn.Module] = []
    for before in (in_dim, *[config.hidden_dim] * (config.num_hidden - 1)):
        layers += [nn.Linear(before, config.hidden_dim), nn.SiLU(), nn.Dropout(config.dropout)]
    return layers


class MixturePrior(nn.Module):
    """p(z) = sum_c pi_c N(z; mu_c, exp(logvar_c)), learnt with the rest."""

    def __init__(self, latent_dim: int, num_components: int):
        super().__init__()
        self.mu = nn.Parameter(torch.randn(num_components, latent_dim))
        self.logvar = nn.Parameter(torch.zeros(num_components, latent_dim))
        self.logits = nn.Parameter(torch.zeros(num_components))

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z), (..., latent_dim) -> (...), nats."""
        log_p = gaussian_log_prob(z[..., None, :], self.mu, self.logvar).sum(-1)
        return (log_p + self.logits.log_softmax(0)).logsumexp(-1)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n draws, (n, latent_dim)."""
        pi = self.logits.softmax(0)
        # torch draws at least one.
        c = torch.multinomial(pi, max(n, 1), replacement=True, generator=generator)[:n]
        return sample_gaussian(self.mu[c], self.logvar[c], generator)


# ---------------------------------------------------------------------------------------------
# The VAE
# ---------------------------------------------------------------------------------------------


class ImageVAE(Pretrained, nn.Module):
    """VAE with a diagonal Gaussian for q(z | x), and N(0, I) or a mixture for p(z).

    At the book's sizes the encoder has 100,868 parameters and the decoder 246,273; for its faces,
    channels (128, 128, 128, 128) and 200 latent dimensions, 652,560 and 698,755.
    """

    config_class = ImageVAEConfig
    capabilities: ClassVar[frozenset[str]] = frozenset(
        {"loss", "sample", "bound", "encode", "decode", "reconstruct"}
    )

    def __init__(self, config: ImageVAEConfig | None = None):
        super().__init__()
        self.config = config = config or ImageVAEConfig()
        shape, latent_dim = config.image_shape, config.latent_dim
        if config.channels:
            self.encoder, self.decoder = conv_encoder(config), conv_decoder(config)
            features = config.channels[-1] * math.prod(
                side >> len(config.channels) for side in shape[1:]
            )
        else:
            features, dim = config.hidden_dim, math.prod(shape)
            self.encoder = nn.Sequential(nn.Flatten(), *mlp(dim, config))
            self.decoder = nn.Sequential(
                *mlp(latent_dim, config), nn.Linear(features, dim), nn.Unflatten(1, shape)
            )
        self.to_mu = nn.Linear(features, latent_dim)
        self.to_logvar = nn.Linear(features, latent_dim)
        if config.prior_components > 1:
            self.prior = MixturePrior(latent_dim, config.prior_components)
        if config.likelihood == "gaussian" and not config.pixel_std:
            self.pixel_logvar = nn.Parameter(torch.tensor(2 * math.log(FIRST_STD)))
        glorot_(self)

    def encode_mu_logvar(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W) in [0, 1] -> mu and logvar of q(z | x), each (B, latent_dim).

        Raises:
            ValueError: another shape, integer pixels, or pixels outside [0, 1].
        """
        features = self.encoder(check_images(x, self.config.image_shape, self))
        return self.to_mu(features), self.to_logvar(features).clamp(-MAX_LOGVAR, MAX_LOGVAR)

    def encode(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Images (B, C, H, W) -> one draw of z ~ q(z | x), (B, latent_dim)."""
        return sample_gaussian(*self.encode_mu_logvar(x), generator=generator)

    def decode_logits(self, z: Tensor) -> Tensor:
        """z (B, latent_dim) -> images before the sigmoid, (B, C, H, W)."""
        return self.decoder(check_vectors(z, self.config.latent_dim, "codes", self))

    def decode(self, z: Tensor) -> Tensor:
        """z (B, latent_dim) -> the mean of p(x | z), images (B, C, H, W) in [0, 1]."""
        return self.decode_logits(z).sigmoid()

    def reconstruct(self, x: Tensor) -> Tensor:
        """Images -> images, by way of the mean of q(z | x)."""
        return self.decode(self.encode_mu_logvar(x)[0])

    @checked
    @torch.no_grad()
    def sample_codes(self, n: CountOrZero, generator: torch.Generator | None = None) -> Tensor:
        """n codes z ~ p(z), (n, latent_dim)."""
        if self.config.prior_components > 1:
            return self.prior.sample(n, generator)
        return torch.randn(n, self.config.latent_dim, generator=generator, **placed(self))

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n images (n, C, H, W), decoded from z ~ p(z), without gradient or noise of pixels."""
        with torch.no_grad():
            return self.decode(self.sample_codes(n, generator))

    def log_prior(self, z: Tensor) -> Tensor:
        """log p(z), (..., latent_dim) -> (...), nats."""
        if self.config.prior_components > 1:
            return self.prior.log_prob(z)
        return gaussian_log_prob(z, 0.0, 0.0).sum(-1)

    def log_likelihood(self, logits: Tensor, x: Tensor) -> Tensor:
        """log p(x | z) of images x (B, C, H, W) from `decode_logits(z)`, (..., B), nats.

        Bernoulli: grey pixels count as the average over images in which each is white with that
        probability. `bound` is then below the average of log p over such images.
        """
        x = x.expand_as(logits)
        if self.config.likelihood == "bernoulli":
            per_pixel = -F.binary_cross_entropy_with_logits(logits, x, reduction="none")
        else:
            std = self.config.pixel_std
            logvar = 2 * math.log(std) if std else self.pixel_logvar
            per_pixel = gaussian_log_prob(x, logits.sigmoid(), logvar)
        return per_pixel.flatten(-3).sum(-1)

    def draw(
        self, x: Tensor, n: int, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """log p(x | z) and log p(z) - log q(z | x) for n draws of z, each (n, B), nats."""
        mu, logvar = self.encode_mu_logvar(x)
        z = sample_gaussian(mu.expand(n, -1, -1), logvar.expand(n, -1, -1), generator)
        logits = self.decode_logits(z.flatten(0, 1)).unflatten(0, (n, len(x)))
        log_q = gaussian_log_prob(z, mu, logvar).sum(-1)
        return self.log_likelihood(logits, x), self.log_prior(z) - log_q

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
        """What training minimises on images (B, C, H, W); see `ImageVAELossConfig`.

        With the defaults it is the negative ELBO, in nats. The KL is in closed form where it has
        one, and all of it, with what free bits forgive, is in `kl`.

        Raises:
            ValueError: free bits are asked of a mixture, whose KL has no parts to forgive.
        """
        config = config or ImageVAELossConfig()
        check_some(x, self)
        if config.num_draws > 1 or self.config.prior_components > 1:
            return self._loss_by_draws(x, config, generator)
        mu, logvar = self.encode_mu_logvar(x)
        logits = self.decode_logits(sample_gaussian(mu, logvar, generator))
        if config.recon == "likelihood":
            recon = -self.log_likelihood(logits, x).mean()
        elif config.recon == "bce":
            recon = F.binary_cross_entropy_with_logits(logits, x)
        else:
            recon = F.mse_loss(logits.sigmoid(), x)
        recon = config.recon_weight * recon
        kl = gaussian_kl(mu, logvar).mean(0)
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


class ImageVAELearner:
    """AdamW on a VAE's loss; `kept` holds the weights to keep: their average, if there is one."""

    def __init__(self, model: ImageVAE | LinearVAE, config: ImageVAELossConfig, steps: int):
        self.model, self.config = model, config
        optimizer = torch.optim.AdamW(
            parameter_groups(model, config.weight_decay), lr=config.lr, eps=config.adam_eps
        )
        self.optimisation = Optimisation(
            model, optimizer, steps, config.final_lr, config.clip, config.ema
        )

    @property
    def kept(self) -> ImageVAE | LinearVAE:
        """A copy of the model with the weights that sampling and scoring should use."""
        return self.optimisation.kept

    def update(self, x: Tensor) -> dict[str, Tensor]:
        """One step on images (B, C, H, W) in [0, 1]."""
        config, step = self.config, self.optimisation.step_number
        if step < config.warmup:
            config = dataclasses.replace(config, beta=config.beta * step / config.warmup)
        losses = self.model.loss(x, config)
        self.optimisation.step(losses.loss)
        return {name: value.detach() for name, value in losses._asdict().items()}

    def state_dict(self) -> dict:
        return self.optimisation.state_dict()

    def load_state_dict(self, state: dict) -> None:
        self.optimisation.load_state_dict(state)
