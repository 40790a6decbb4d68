"""The three distributions of a VAE: q(z | x), p(x | z) and p(z).

A likelihood has `mean(out)`, what decoded images look like, and `log_prob(out, x)` of each pixel,
`out` being what the decoder gives. A prior has `latent_dim`, `sample(n, generator)`, `log_prob(z)`
and, where it is known in closed form, `kl(mu, logvar)` of each latent dimension.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.vae.gaussian import gaussian_kl, gaussian_log_prob, sample_gaussian

__all__ = ["BernoulliPixels", "GaussianHead", "GaussianPixels", "MixturePrior", "StandardNormal"]

FIRST_STD = 0.1
"""First deviation of a pixel whose noise is learnt: one number takes as many steps as the weights,
so it begins near the end."""
MAX_LOGVAR = 8.0
"""log variance of q(z | x) stays between its negative and this, so that exp is finite."""


class GaussianHead(nn.Module):
    """Features (B, features) -> mu and logvar of a Gaussian q(z | x), each (B, latent_dim).

    Args:
        max_logvar: logvar stays between its negative and this; None for no limits.
    """

    def __init__(self, features: int, latent_dim: int, max_logvar: float | None = MAX_LOGVAR):
        super().__init__()
        self.max_logvar = max_logvar
        self.to_mu = nn.Linear(features, latent_dim)
        self.to_logvar = nn.Linear(features, latent_dim)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        mu, logvar, most = self.to_mu(features), self.to_logvar(features), self.max_logvar
        return mu, logvar if most is None else logvar.clamp(-most, most)


class BernoulliPixels(nn.Module):
    """Pixels that are black or white; the decoder gives the logits of white.

    Grey pixels count as the average over images in which each is white with that probability. A
    bound is then below the average of log p over such images.
    """

    def mean(self, out: Tensor) -> Tensor:
        """Probability of white, in [0, 1]."""
        return out.sigmoid()

    def log_prob(self, out: Tensor, x: Tensor) -> Tensor:
        """log p of each pixel, nats, of the shape of x."""
        return -F.binary_cross_entropy_with_logits(out, x, reduction="none")


class GaussianPixels(nn.Module):
    """Pixels with Gaussian noise around the sigmoid of the decoder's output.

    Args:
        std: of the noise; 0 learns one for all pixels (Rybkin et al. 2021).
    """

    def __init__(self, std: float = 0.0):
        super().__init__()
        self.std = std
        first = torch.tensor(2 * math.log(FIRST_STD))
        self.logvar = nn.Parameter(first) if not std else 2 * math.log(std)

    def mean(self, out: Tensor) -> Tensor:
        """Centre of each pixel, in [0, 1]."""
        return out.sigmoid()

    def log_prob(self, out: Tensor, x: Tensor) -> Tensor:
        """log density of each pixel, nats, of the shape of x."""
        return gaussian_log_prob(x, out.sigmoid(), self.logvar)


class StandardNormal(nn.Module):
    """p(z) = N(0, I)."""

    zero: Tensor

    def __init__(self, latent_dim: int):
        super().__init__()
        self.latent_dim = latent_dim
        self.register_buffer("zero", torch.zeros(()), persistent=False)  # type and device of draws

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z), (..., latent_dim) -> (...), nats."""
        return gaussian_log_prob(z, 0.0, 0.0).sum(-1)

    def kl(self, mu: Tensor, logvar: Tensor) -> Tensor:
        """KL(N(mu, exp(logvar)) || N(0, 1)) of each latent dimension, nats, (B, latent_dim)."""
        return gaussian_kl(mu, logvar)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n draws, (n, latent_dim)."""
        where = {"device": self.zero.device, "dtype": self.zero.dtype}
        return torch.randn(n, self.latent_dim, generator=generator, **where)


class MixturePrior(nn.Module):
    """p(z) = sum_c pi_c N(z; mu_c, exp(logvar_c)), learnt with the rest."""

    def __init__(self, latent_dim: int, num_components: int):
        super().__init__()
        self.latent_dim = latent_dim
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
