"""The best denoiser there is, for data whose density is a mixture of Gaussians.

Given x_t, data and noise are again distributed as a mixture of Gaussians, whose mean no network can
improve on, and whose variance is the least loss that any network can reach:

    exact = MixtureDenoiser.of(Standardised(TwoMoons()))
    exact(x_t, log_snr)                  # E[noise | x_t], E[data | x_t]
    exact.floor(schedule)                # the least simple loss
    simple_loss(model, density).excess   # the distance of a trained model from it

`ListDenoiser` is the same for data that is one of a list, such as the latents of all pictures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from generative.diffusion.schedules import Schedule, signal_and_noise
from generative.known.densities import GaussianMixture, Standardised, TwoMoons
from generative.known.quadrature import Density

if TYPE_CHECKING:
    from generative.diffusion.edm import EDM
    from generative.diffusion.model import Diffusion

__all__ = ["ListDenoiser", "MixtureDenoiser", "SimpleLoss", "simple_loss", "sobol"]

CHUNK = 2**21
"""Numbers in the largest temporary array."""


@dataclass(frozen=True, eq=False)
class MixtureDenoiser:
    """E[noise | x_t] and E[data | x_t], for data from sum_k weight_k N(mean_k, diag(std^2)).

    Args:
        means: (K, D), float64.
        std: of every part on each axis, (D,), float64.
        log_weights: (K,), float64, normalised.
    """

    means: Tensor
    std: Tensor
    log_weights: Tensor

    @classmethod
    def of(cls, density: Density) -> MixtureDenoiser:
        """For two moons, mixtures, and either of them standardised.

        The moons are a mixture of infinitely many Gaussians along two arcs; Gauss-Legendre
        quadrature over the angle takes as many as give the last digits.

        Raises:
            ValueError: another density.
        """
        if isinstance(density, Standardised):
            inner = cls.of(density.density)
            shift, scale = torch.tensor(
                [density.density.mean, density.density.std], dtype=torch.float64
            )
            return cls((inner.means - shift) / scale, inner.std / scale, inner.log_weights)
        if isinstance(density, GaussianMixture):
            means = torch.tensor(density.centres, dtype=torch.float64)
            weights = torch.full((len(means),), -math.log(len(means)), dtype=torch.float64)
            return cls(means, torch.full((2,), density.scale, dtype=torch.float64), weights)
        if isinstance(density, TwoMoons):
            nodes, weights = np.polynomial.legendre.leggauss(max(64, math.ceil(8 / density.noise)))
            angle = torch.from_numpy(nodes + 1) * (math.pi / 2)
            upper = torch.stack([angle.cos(), angle.sin()], 1)
            lower = torch.stack([1 - angle.cos(), 0.5 - angle.sin()], 1)
            log_weights = torch.from_numpy(np.log(weights / 4)).repeat(2)
            std = torch.full((2,), density.noise, dtype=torch.float64)
            return cls(torch.cat([upper, lower]), std, log_weights)
        raise ValueError(
            f"{type(density).__name__} is no mixture of Gaussians; give TwoMoons, Mixture, or "
            "Standardised of either"
        )

    def __call__(self, x: Tensor, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        """x_t (B, D) and log_snr (B,) -> (noise, data), each (B, D) of the type of x_t."""
        parts = [self._moments(*both)[0] for both in zip(*self._split(x, log_snr), strict=True)]
        data = torch.cat(parts)
        signal, noise = (part[:, None] for part in signal_and_noise(log_snr.double()))
        return ((x.double() - signal * data) / noise).to(x), data.to(x)

    def data_variance(self, x: Tensor, log_snr: Tensor) -> Tensor:
        """Trace of the covariance of the data given x_t (B, D); float64 (B,)."""
        return torch.cat(
            [self._moments(*both)[1] for both in zip(*self._split(x, log_snr), strict=True)]
        )

    def log_prob(self, x: Tensor, log_snr: Tensor) -> Tensor:
        """log density of x_t (B, D) itself, nats, float64 (B,)."""
        return torch.cat(
            [self._log_parts(*both)[0].logsumexp(1)
             for both in zip(*self._split(x, log_snr), strict=True)]
        )  # fmt: skip

    def floor(self, schedule: Schedule, n: int = 2**15, seed: int = 0) -> float:
        """The least simple loss: mean squared error of one number of the noise, times even in t.

        The mean of the exact conditional variance over n pairs of time and x_t that are spread
        evenly (a scrambled Sobol sequence), which leaves an error in the fourth digit.
        """
        u = sobol(1 + self.numbers, n, seed)
        log_snr = schedule.log_snr(u[:, 0])
        x = self.at(log_snr, u[:, 1:])
        # x_t fixed, noise = (x_t - signal * data) / noise rate: the variances are proportional.
        return float((self.data_variance(x, log_snr) * log_snr.exp()).mean()) / len(self.std)

    @property
    def numbers(self) -> int:
        """Uniform numbers that `at` makes an example of."""
        return 1 + len(self.std)

    def at(self, log_snr: Tensor, u: Tensor) -> Tensor:
        """x_t (N, D) at log_snr (N,), of uniform numbers u (N, numbers), all float64."""
        part = torch.searchsorted(self.log_weights.exp().cumsum(0)[:-1], u[:, 0].contiguous())
        signal, noise = (rate[:, None] for rate in signal_and_noise(log_snr))
        std = (signal.square() * self.std.square() + noise.square()).sqrt()
        return signal * self.means[part] + std * torch.special.ndtri(u[:, 1:])

    def _split(self, x: Tensor, log_snr: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        rows = max(1, CHUNK // self.means.numel())
        return x.double().split(rows), log_snr.double().split(rows)

    def _log_parts(self, x: Tensor, log_snr: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """log weight_k N(x_t; signal mean_k, variance) (B, K), signal (B, 1), variance (B, D)."""
        signal, noise = (part[:, None] for part in signal_and_noise(log_snr))
        variance = signal.square() * self.std.square() + noise.square()
        offset = x[:, None] - signal[:, None] * self.means
        log_normal = -0.5 * (offset.square() / variance[:, None]).sum(2) - 0.5 * (
            2 * math.pi * variance
        ).log().sum(1, keepdim=True)
        return self.log_weights + log_normal, signal, variance

    def _moments(self, x: Tensor, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (B, D) and trace of the covariance (B,) of the data given x_t."""
        log_parts, signal, variance = self._log_parts(x, log_snr)
        weights = log_parts.softmax(1)
        gain = signal * self.std.square() / variance
        # Of part k the mean is mean_k + gain (x_t - signal mean_k): linear in mean_k.
        centre = weights @ self.means
        spread = (weights @ self.means.square() - centre.square()).clamp(min=0)
        shrunk = 1 - gain * signal
        inner = self.std.square() * shrunk
        mean = shrunk * centre + gain * x
        return mean, (inner + shrunk.square() * spread).sum(1)


@dataclass(frozen=True, eq=False)
class ListDenoiser:
    """E[noise | x_t] and E[data | x_t], for data that is one of a list.

    Args:
        examples: (K, ...), of any shape.
        log_weights: ln of their probabilities, normalised, (K,).
    Raises:
        ValueError: the list is empty, or has no weight for each example.
    """

    examples: Tensor
    log_weights: Tensor

    def __post_init__(self) -> None:
        if not len(self.examples) or self.log_weights.shape != self.examples.shape[:1]:
            raise ValueError(
                f"got examples {tuple(self.examples.shape)} and log_weights "
                f"{tuple(self.log_weights.shape)}; give at least one example and a weight for each"
            )

    def __call__(self, x: Tensor, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        """x_t (B, ...) and log_snr (B,) -> (noise, data), of the shape and type of x_t.

        Raises:
            ValueError: x_t are of another shape than the examples.
        """
        if x.shape[1:] != self.examples.shape[1:]:
            raise ValueError(
                f"x_t are {tuple(x.shape)}; those of this list are (B, "
                f"{', '.join(map(str, self.examples.shape[1:]))})"
            )
        points = self.examples.double().flatten(1)
        signal, noise = (part[:, None] for part in signal_and_noise(log_snr.double()))
        flat = x.double().flatten(1)
        rows, parts = max(1, CHUNK // len(points)), []
        for y, a, s in zip(*(part.split(rows) for part in (flat, signal, noise)), strict=True):
            fit = a * (y @ points.T) - 0.5 * a.square() * points.square().sum(1)
            parts.append((self.log_weights + fit / s.square()).softmax(1) @ points)
        data = torch.cat(parts)
        return ((flat - signal * data) / noise).view_as(x).to(x), data.view_as(x).to(x)


def sobol(dim: int, n: int, seed: int = 0) -> Tensor:
    """Uniform numbers spread evenly: a scrambled Sobol sequence, float64 (n, dim), none 0 or 1."""
    engine = torch.quasirandom.SobolEngine(dim, scramble=True, seed=seed)
    return engine.draw(n, dtype=torch.float64).clamp(2.0**-32, 1 - 2.0**-32)


class SimpleLoss(NamedTuple):
    """Mean squared error of one number of the noise, times even in t."""

    loss: float
    floor: float
    """Error of the best estimate there is."""
    excess: float
    """`loss` less `floor`."""


@torch.no_grad()
def simple_loss(
    model: Diffusion | EDM,
    density: Standardised,
    schedule: Schedule | None = None,
    n: int = 2**15,
    seed: int = 1,
) -> SimpleLoss:
    """Simple loss of a model of points on fresh ones, beside the least there is.

    The mean squared error of any estimate is that of the best one plus its mean squared distance
    from the best one. The excess is therefore that distance, which has little noise.

    Args:
        model: of points, on any device.
        density: of the data, one that `MixtureDenoiser.of` knows.
        schedule: whose times are even; the model's own if not given, which EDM has not.
        n: points, each at one time.
        seed: of the points, the times and the noise.
    """
    if schedule is None:
        schedule = cast("Diffusion", model).schedule
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    exact = MixtureDenoiser.of(density)
    x = density.sample(n, generator, even=True)
    t = torch.rand(n, generator=generator)
    log_snr = schedule.log_snr(t).float()
    signal, rate = (part[:, None] for part in signal_and_noise(log_snr))
    noisy = signal * x + rate * torch.randn(x.shape, generator=generator)
    best, _ = exact(noisy, log_snr)
    found, _ = model.denoise(noisy.to(device), log_snr.to(device))
    excess = float((found.cpu() - best).square().mean())
    floor = exact.floor(schedule)
    return SimpleLoss(floor + excess, floor, excess)
