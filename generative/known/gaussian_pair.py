"""Gaussian pair: a "text" y and an "image" z whose joint distribution is known exactly.

    y ~ N(0, I),    z = A y + e,    e ~ N(0, noise I)

Given y, z is N(A y, noise I); alone it is N(0, A A^T + noise I). So the least error of any denoiser
of z is known with the text and without it, and so is the entropy of z in buckets:

    pair = GaussianPair()
    y, z = pair.draw(512, generator)              # (512, 16) each
    pair.denoising_mse(-6.0)                      # 0.2998, per number of z
    pair.denoising_mse(-6.0, text=False)          # 1.3169
    pair.code_nats(y, codes, mean, directions, borders)

The mean of the posterior is closer to z, in cosine, than a draw of the posterior is (0.863 and
0.748), so a mean cosine tells nothing about the quality of samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from generative.training.checks import checked
from generative.training.ranges import CountOrZero

__all__ = ["GaussianPair"]


@dataclass(frozen=True)
class GaussianPair:
    """A pair of Gaussian vectors of one size.

    Args:
        dim: numbers of y and of z.
        noise: variance of z given y, in every direction.
        seed: of the matrix A, whose entries have variance 1 / dim.
    """

    dim: int = 16
    noise: float = 0.3
    seed: int = 0

    @cached_property
    def matrix(self) -> Tensor:
        """A, float64 (dim, dim)."""
        entries = np.random.default_rng(self.seed).normal(size=(self.dim, self.dim))
        return torch.from_numpy(entries) / math.sqrt(self.dim)

    @cached_property
    def variances(self) -> Tensor:
        """Variances of z in the directions of its principal components, float64 (dim,)."""
        return torch.linalg.eigvalsh(self.matrix @ self.matrix.T) + self.noise

    @checked
    def draw(
        self, n: CountOrZero, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draw n pairs (y, z), float32 (n, dim) each."""
        y = torch.randn(n, self.dim, generator=generator)
        return y, self.posterior(y, generator)

    def posterior_mean(self, y: Tensor) -> Tensor:
        """E[z | y], (n, dim)."""
        return y @ self.matrix.T.to(y)

    def posterior(self, y: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw z given y, (n, dim)."""
        eps = torch.randn(y.shape, generator=generator, device=y.device, dtype=y.dtype)
        return self.posterior_mean(y) + math.sqrt(self.noise) * eps

    def denoise(self, x: Tensor, log_snr: Tensor, y: Tensor) -> Tensor:
        """E[z | x_t, y] for x_t = signal z + noise eps at log_snr (n,), (n, dim).

        Var(z | y) = v gives (mean + v signal x / rate^2) / (1 + v exp(log_snr)).
        """
        ratio = log_snr.exp()[:, None]
        rate = (-log_snr).sigmoid()[:, None]
        signal = log_snr.sigmoid().sqrt()[:, None]
        mean = self.posterior_mean(y)
        return (mean + self.noise * signal * x / rate) / (1 + self.noise * ratio)

    def denoising_mse(self, log_snr: float, text: bool = True) -> float:
        """Least mean squared error of any estimate of z from x_t, per number.

        tr[(Sigma^-1 + exp(log_snr) I)^-1] / dim, with Sigma the covariance of z given y, or that of
        z without the text.
        """
        variances = torch.full_like(self.variances, self.noise) if text else self.variances
        return float((1 / (1 / variances + math.exp(log_snr))).mean())

    def code_nats(
        self, y: Tensor, codes: Tensor, mean: Tensor, directions: Tensor, borders: Tensor
    ) -> Tensor:
        """- ln p(codes | y) of buckets along orthogonal directions, (n,), nats.

        Along these directions z given y has independent Gaussians, so a bucket's probability is a
        difference of two normal distribution functions.

        Args:
            y: (n, dim).
            codes: int64 (n, K), bucket of each component.
            mean: (dim,), taken off z before it is projected.
            directions: orthonormal columns, (dim, K).
            borders: rising borders between buckets, (K, buckets - 1).
        """
        centre = (self.posterior_mean(y.double()) - mean.double()) @ directions.double()
        edge = torch.full((len(borders), 1), math.inf, dtype=torch.float64)
        edges = torch.cat([-edge, borders.double().cpu(), edge], 1)
        low, high = (
            edges.expand(len(codes), -1, -1).gather(2, (codes.cpu() + i)[..., None])[..., 0]
            for i in (0, 1)
        )
        std = math.sqrt(self.noise)
        low, high = ((x - centre.cpu()) / std for x in (low, high))
        # The difference is taken in the tail where both values are small, so that it keeps digits.
        flip = low > 0
        low, high = torch.where(flip, -high, low), torch.where(flip, -low, high)
        top, bottom = (torch.special.log_ndtr(x) for x in (high, low))
        log_p = top + torch.log1p(-(bottom - top).exp())
        return -log_p.sum(1)
