"""From noise to data with any denoiser: DDPM, DDIM, the probability-flow equation; likelihoods.

A denoiser is a function (x_t, log_snr) -> estimates of (noise, data), both of the shape of x_t. A
network is one, and so is the exact answer where it is known (`generative.diffusion.exact`).

    for step in denoising_path(denoise, x, schedule.steps(20)):
        step.x, step.data            # where the sampler stands, and what it expects in the end
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from generative.diffusion.schedules import signal_and_noise
from generative.solvers import equal_steps, probes, rk4, with_divergence
from generative.training.checks import at_least_float32, checked
from generative.training.ranges import Count, Probability, Quantile

__all__ = [
    "Clip",
    "Denoiser",
    "Generators",
    "SamplerStep",
    "clip_data",
    "ddim_noise",
    "ddim_step",
    "denoising_path",
    "noising_path",
    "normal_noise",
    "ode_flow",
    "ode_log_prob",
    "variational_gap",
]

Denoiser = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(x_t (B, ...), log_snr (B,)) -> (noise, data), estimates of the shape of x_t."""
Clip = Callable[[Tensor], Tensor]
"""Estimates of data (B, ...) -> the same, brought back to where data can be; see `clip_data`."""
Generators: TypeAlias = torch.Generator | Sequence[torch.Generator] | None
"""Source of the noise of a batch: one generator, one for each example, or torch's own."""


# ---------------------------------------------------------------------------------------------
# One step
# ---------------------------------------------------------------------------------------------


@checked
def clip_data(
    data: Tensor,
    low: Tensor | float,
    high: Tensor | float,
    quantile: Quantile | None = None,
) -> Tensor:
    """Estimates of data (B, ...), none of them outside the range of the data.

    Where little signal is left, a small error of the noise is a large one of the data, which the
    steps that follow do not take back.

    Args:
        low, high: the range, numbers or tensors that fit an example.
        quantile: None sets what is outside to the nearest end. With a share, such as 0.995, an
            example is first drawn together about the middle of the range, until this share of its
            numbers lies inside, which keeps its contrasts (dynamic thresholding, Saharia et al.
            2022, section 2.3).
    """
    low, high = (torch.as_tensor(end).to(data) for end in (low, high))
    if quantile is None or not len(data):
        return data.clamp(low, high)
    middle, half = (high + low) / 2, (high - low) / 2
    offset = (data - middle) / half
    spread = offset.abs().flatten(1).to(at_least_float32(data))
    reach = _wide(spread.quantile(quantile, 1).clamp(min=1).to(data.dtype), data)
    return middle + half * offset.clamp(-reach, reach) / reach


@checked
def ddim_noise(log_snr: float, target: float, eta: Probability) -> float:
    """Standard deviation of the fresh noise in a step to `target` (Song et al. 2021, equation 16).

    eta sqrt((1 - a_s) / (1 - a_t)) sqrt(1 - a_t / a_s), with a the alpha_bar at both.
    """
    a_t, a_s = _sigmoid(log_snr), _sigmoid(target)
    return eta * math.sqrt(_sigmoid(-target) / _sigmoid(-log_snr) * max(0.0, 1 - a_t / a_s))


def ddim_step(
    noise: Tensor,
    data: Tensor,
    log_snr: float,
    target: float,
    eta: float = 0.0,
    generator: Generators = None,
) -> Tensor:
    """From log_snr to target (Song et al. 2021, equation 12).

    Args:
        noise, data: what the denoiser estimates at log_snr, (B, ...).
        eta: 0 is DDIM, without randomness; 1 is DDPM's posterior.
    """
    signal, rest = math.sqrt(_sigmoid(target)), _sigmoid(-target)
    std = ddim_noise(log_snr, target, eta)
    x = signal * data + math.sqrt(max(0.0, rest - std**2)) * noise
    return x + std * _normal(x, generator) if std > 0 else x


def normal_noise(shape: Sequence[int], generator: Generators = None, **placed: Any) -> Tensor:
    """Standard normal noise (B, ...).

    Args:
        shape: of the batch.
        generator: with one for each example, the noise of an example does not depend on the others.
        placed: device and dtype.
    Raises:
        ValueError: there are generators, and not one for each example.
    """
    if generator is None or isinstance(generator, torch.Generator):
        return torch.randn(*shape, generator=generator, **placed)
    if len(generator) != shape[0]:
        raise ValueError(
            f"got {len(generator)} generators and {shape[0]} examples; give one generator for each "
            "example, or one for all"
        )
    if not len(generator):
        return torch.randn(*shape, **placed)
    return torch.cat([torch.randn(1, *shape[1:], generator=one, **placed) for one in generator])


# ---------------------------------------------------------------------------------------------
# All steps
# ---------------------------------------------------------------------------------------------


class SamplerStep(NamedTuple):
    """State of a sampler after a step."""

    x: Tensor
    """x_s, (B, ...); after the last step the sample."""
    data: Tensor
    """Estimate of the data that the denoiser made at x_t, (B, ...)."""


@checked
@torch.no_grad()
def denoising_path(
    denoise: Denoiser,
    x: Tensor,
    log_snrs: Sequence[float],
    eta: Probability = 0.0,
    generator: Generators = None,
    clip: Clip | None = None,
) -> Iterator[SamplerStep]:
    """Every step of DDIM (eta = 0) or DDPM (eta = 1) from noise x (B, ...).

    Args:
        log_snrs: stations from noise to data; see `Schedule.steps`.
        clip: of the estimates of data, `clip_data` with the range of the data; their noise is
            then what is left of x. None leaves them as they are.
    """
    for log_snr, target in itertools.pairwise(log_snrs):
        noise, data = _clipped(denoise, x, log_snr, clip)
        x = ddim_step(noise, data, log_snr, target, eta, generator)
        yield SamplerStep(x, data)


@torch.no_grad()
def noising_path(
    denoise: Denoiser, x: Tensor, log_snrs: Sequence[float], clip: Clip | None = None
) -> Iterator[Tensor]:
    """DDIM in reverse, from data x (B, ...) to the noise that it would be made of.

    The noise of a step is estimated where the step begins, not where it ends, so the way back
    leads to x only for many steps.

    Args:
        log_snrs, clip: stations from noise to data, and the rest, as for `denoising_path`.
    """
    stations = list(log_snrs)[::-1]
    for log_snr, target in itertools.pairwise(stations):
        signal = math.sqrt(_sigmoid(target) / _sigmoid(log_snr))
        # Data have no noise to be estimated; they are looked at as if they were at the target.
        noise, _ = _clipped(denoise, x, target if log_snr == math.inf else log_snr, clip)
        rest, wanted = math.sqrt(_sigmoid(-log_snr)), math.sqrt(_sigmoid(-target))
        x = signal * (x - rest * noise) + wanted * noise
        yield x


# ---------------------------------------------------------------------------------------------
# The probability-flow equation
# ---------------------------------------------------------------------------------------------


@checked
def ode_flow(denoise: Denoiser, x: Tensor, start: float, end: float, num_steps: Count) -> Tensor:
    """Carry x (B, ...) from log_snr `start` to `end` along the probability flow.

        dx / dlog_snr = (noise^2 x - noise * eps(x)) / 2

    which gives x_t at every time the distribution that noising gives it (Song et al. 2021, score
    SDEs, section 4.3). DDIM is its first-order solver; this is the classical Runge-Kutta of order
    4, in equal steps of log_snr, in which nothing about the equation is fast.
    """

    def rate(log_snr: float, x: Tensor) -> tuple[Tensor, Tensor]:
        velocity = _velocity(denoise, x, log_snr)
        return velocity, x.new_zeros(())

    return rk4(rate, x, equal_steps(start, end, num_steps))[0]


@checked
def ode_log_prob(
    denoise: Denoiser,
    x: Tensor,
    start: float,
    end: float,
    num_steps: Count,
    trace: str = "exact",
    generator: torch.Generator | None = None,
) -> Tensor:
    """log density of examples x (B, ...), nats, (B,), by the probability flow.

    At log_snr `start` noise is left in what the flow models, so this is the density of x +
    (noise / signal) * N(0, I), noise and signal those at `start`: choose it high enough.

        log p(x) = log N(x_end; 0, I) + log |det dx_end / dx|

    where the log-determinant is the integral of the divergence (Chen et al. 2018).

    Args:
        start, end: log_snr of data and of noise.
        trace: "exact" takes one backward pass for each number of an example; "hutchinson" takes
            one in all, along a random direction of signs, and has the exact value as its mean.
    """

    def field(log_snr: float, x: Tensor) -> Tensor:
        return _velocity(denoise, x, log_snr)

    rate = with_divergence(field, probes(x, trace, generator))
    signal = math.sqrt(_sigmoid(start))
    z, log_det = rk4(rate, signal * x, equal_steps(start, end, num_steps))
    size = math.prod(x.shape[1:])
    log_normal = -0.5 * (z.square().flatten(1).sum(1) + size * math.log(2 * math.pi))
    return log_normal + log_det + size * math.log(signal)


@checked
def variational_gap(
    denoise: Denoiser,
    x: Tensor,
    start: float,
    end: float,
    num_draws: Count,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Cost of noise in the variational bound, nats, (B,): 1/2 int |eps - eps_hat|^2 dlog_snr
    + KL(q(x_end | x) || N(0, I)) (Kingma et al. 2021, equations 11 to 15).

    log p(x) is at least log p(x | x_start) minus this, in the mean over the draws.

    Args:
        x: (B, ...).
        start, end: log_snr of data and of noise.
        num_draws: noise levels of each example, spread evenly; each asks the denoiser once.
    """
    total = x.new_zeros(len(x))
    for i in range(num_draws):
        u = torch.rand(len(x), generator=generator, device=x.device, dtype=x.dtype)
        log_snr = end + (start - end) * (i + u) / num_draws
        eps = _normal(x, generator)
        signal, rate = (_wide(part, x) for part in signal_and_noise(log_snr))
        noise, _ = denoise(signal * x + rate * eps, log_snr)
        total = total + (eps - noise).square().flatten(1).sum(1)
    signal_squared, rest = _sigmoid(end), _sigmoid(-end)
    prior = 0.5 * (rest + signal_squared * x.square() - 1 - math.log(rest)).flatten(1).sum(1)
    return 0.5 * (start - end) * total / num_draws + prior


# ---------------------------------------------------------------------------------------------


def _velocity(denoise: Denoiser, x: Tensor, log_snr: float) -> Tensor:
    noise, _ = denoise(x, _level(x, log_snr))
    rest = _sigmoid(-log_snr)
    return 0.5 * (rest * x - math.sqrt(rest) * noise)


def _clipped(
    denoise: Denoiser, x: Tensor, log_snr: float, clip: Clip | None
) -> tuple[Tensor, Tensor]:
    """Estimates of (noise, data) at x (B, ...), the data clipped and the noise what x then has."""
    noise, data = denoise(x, _level(x, log_snr))
    if clip is not None:
        data = clip(data)
        noise = (x - math.sqrt(_sigmoid(log_snr)) * data) / math.sqrt(_sigmoid(-log_snr))
    return noise, data


def _level(x: Tensor, log_snr: float) -> Tensor:
    return torch.full((len(x),), log_snr, dtype=x.dtype, device=x.device)


def _wide(values: Tensor, like: Tensor) -> Tensor:
    """(B,) -> (B, 1, ...)."""
    return values.view(-1, *[1] * (like.dim() - 1))


def _normal(like: Tensor, generator: Generators) -> Tensor:
    return normal_noise(like.shape, generator, device=like.device, dtype=like.dtype)


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value > -700 else 0.0
