"""The VAE whose optimum is known: linear networks, Gaussian pixels, probabilistic PCA.

With x = W z + b + noise the marginal is a Gaussian, N(b, W W' + s^2 I), so log p(x) is exact; its
maximum has a closed form (Tipping & Bishop 1999), and so has the ELBO, whose best is just as high:
at the optimum the posterior is a diagonal Gaussian after a rotation of z (Dai et al. 2018; Lucas et
al. 2019, Don't Blame the ELBO!). What is lost on the way there is lost by the training.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import LowRankMultivariateNormal

from generative.training.checks import (
    at_least_float32,
    check_images,
    check_some,
    check_vectors,
    checked,
    placed,
)
from generative.training.gradients import graph_if_wanted
from generative.training.pretrained import Pretrained
from generative.training.ranges import CountOrZero
from generative.vae.config import ImageVAELossConfig, LinearVAEConfig
from generative.vae.gaussian import (
    VAELosses,
    gaussian_kl,
    gaussian_log_prob,
    importance_bound,
    mean_or_draw,
    sample_gaussian,
)

__all__ = ["LinearVAE", "ProbabilisticPCA", "probabilistic_pca"]


class LinearVAE(Pretrained, nn.Module):
    """p(x | z) = N(W z + b, s^2 I), q(z | x) = N(V x + c, diagonal and the same for every x)."""

    config_class = LinearVAEConfig

    def __init__(self, config: LinearVAEConfig | None = None):
        super().__init__()
        self.config = config = config or LinearVAEConfig()
        self.image_shape, self.latent_dim = config.image_shape, config.latent_dim
        self.dim = math.prod(config.image_shape)
        self.encoder = nn.Linear(self.dim, config.latent_dim)
        self.code_logvar = nn.Parameter(torch.zeros(config.latent_dim))
        self.decoder = nn.Linear(config.latent_dim, self.dim)
        self.pixel_logvar = nn.Parameter(torch.zeros(()))

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Begin at the mean and the variance of images (B, C, H, W), with codes of mean zero."""
        rows = check_some(check_images(x, self.image_shape, self), self).flatten(1)
        mean = rows.mean(0)
        self.decoder.bias.copy_(mean)
        self.encoder.bias.copy_(-self.encoder.weight @ mean)
        self.pixel_logvar.copy_((rows - mean).square().mean().log())

    def encode_mu_logvar(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W) in [0, 1] -> mu and logvar of q(z | x), each (B, latent_dim).

        Raises:
            ValueError: another shape, integer pixels, or pixels outside [0, 1].
        """
        mu = self.encoder(check_images(x, self.image_shape, self).flatten(1))
        return mu, self.code_logvar.expand_as(mu)

    def encode(
        self, x: Tensor, sample: bool = False, generator: torch.Generator | None = None
    ) -> Tensor:
        """Images (B, C, H, W) -> the mean of q(z | x), or one draw of it, (B, latent_dim)."""
        return mean_or_draw(*self.encode_mu_logvar(x), sample, generator)

    def decode(self, z: Tensor) -> Tensor:
        """z (B, latent_dim) -> the mean of p(x | z), (B, C, H, W); not confined to [0, 1]."""
        z = check_vectors(z, self.latent_dim, "codes", self)
        return self.decoder(z).unflatten(1, self.image_shape)

    def reconstruct(self, x: Tensor) -> Tensor:
        """Images -> images, by way of the mean of q(z | x)."""
        return self.decode(self.encode(x))

    @checked
    @torch.no_grad()
    def sample(self, n: CountOrZero, generator: torch.Generator | None = None) -> Tensor:
        """n images (n, C, H, W), decoded from z ~ N(0, I), without the noise of the pixels."""
        z = torch.randn(n, self.latent_dim, generator=generator, **placed(self))
        return self.decode(z)

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) of each image, (B, C, H, W) -> (B,), nats; `bound` comes up to it from below."""
        rows = check_images(x, self.image_shape, self).flatten(1)
        if not len(x):  # which torch's distribution cannot reshape
            return x.new_zeros(0)
        noise = self.pixel_logvar.exp().expand(self.dim)
        parts = (self.decoder.bias, self.decoder.weight, noise, rows)
        mean, weight, noise, rows = (part.to(at_least_float32(part)) for part in parts)
        return LowRankMultivariateNormal(mean, weight, noise).log_prob(rows).to(x.dtype)

    @graph_if_wanted
    def bound(
        self, x: Tensor, num_draws: int = 1, generator: torch.Generator | None = None
    ) -> Tensor:
        """Lower bound of log p of each image, (B, C, H, W) -> (B,), nats: `importance_bound`."""
        mu, logvar = self.encode_mu_logvar(x)

        def log_weights(n: int) -> Tensor:
            z = sample_gaussian(mu.expand(n, -1, -1), logvar.expand(n, -1, -1), generator)
            log_p = gaussian_log_prob(x.flatten(1), self.decoder(z), self.pixel_logvar).sum(2)
            log_ratio = gaussian_log_prob(z, 0.0, 0.0) - gaussian_log_prob(z, mu, logvar)
            return log_p + log_ratio.sum(2)

        return importance_bound(log_weights, num_draws, batch=len(x))

    def loss(self, x: Tensor, config: ImageVAELossConfig | None = None) -> VAELosses:
        """-ELBO of images (B, C, H, W) in nats, its expectation over z in closed form.

        Of the settings only beta counts.
        """
        config = config or ImageVAELossConfig()
        if config.recon != "likelihood" or config.num_draws > 1 or config.free_bits:
            raise ValueError(
                f"recon is {config.recon!r}, num_draws {config.num_draws}, free_bits "
                f"{config.free_bits}; a linear VAE minimises the ELBO: leave them at their defaults"
            )
        mu, logvar = self.encode_mu_logvar(check_some(x, self))
        # E |x - W z - b|^2 = |x - W mu - b|^2 + sum_j var_j |w_j|^2
        error = (x.flatten(1) - self.decoder(mu)).square().sum(1)
        spread = (self.code_logvar.exp() * self.decoder.weight.square().sum(0)).sum()
        scale = self.dim * (self.pixel_logvar + math.log(2 * math.pi))
        recon = 0.5 * ((error + spread).mean() * (-self.pixel_logvar).exp() + scale)
        kl = gaussian_kl(mu, logvar).sum(1).mean()
        return VAELosses(recon + config.beta * kl, recon, kl)


class ProbabilisticPCA(NamedTuple):
    """The Gaussian N(mean, weight weight' + variance I) of highest likelihood, float64."""

    mean: Tensor
    """(D,)."""
    weight: Tensor
    """(D, k): principal directions times sqrt(eigenvalue - variance)."""
    variance: float
    """Average of the eigenvalues left out."""
    log_likelihood: float
    """Average log density of the rows it was fitted to, nats."""


def probabilistic_pca(x: Tensor, k: int) -> ProbabilisticPCA:
    """Maximum likelihood in closed form (Tipping & Bishop 1999, equations 7 to 9).

    Args:
        x: rows (N, D).
        k: numbers in the code, below D.
    Raises:
        ValueError: the rows lie in a plane of k dimensions; no density fits best then.
    """
    x = x.double()
    mean, dim = x.mean(0), x.shape[1]
    values, vectors = torch.linalg.eigh((x - mean).T @ (x - mean) / len(x))
    values, vectors = values.flip(0), vectors.flip(1)
    variance = float(values[k:].mean()) if k < dim else 0.0
    if variance <= 1e-12 * float(values[0]):
        raise ValueError(
            f"{len(x)} rows of {dim} numbers leave nothing to noise beyond {k} components; "
            "give more rows or a smaller k"
        )
    weight = vectors[:, :k] * (values[:k] - variance).sqrt()
    log_det = values[:k].log().sum() + (dim - k) * math.log(variance)
    log_likelihood = -0.5 * (dim * math.log(2 * math.pi) + float(log_det) + dim)
    return ProbabilisticPCA(mean, weight, variance, log_likelihood)
