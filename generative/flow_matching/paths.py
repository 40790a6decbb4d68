"""Straight lines from noise to data: their points, their times and pairs, and diffusion's terms.

    x_t = (1 - t) noise + t data,    velocity = data - noise,    t from 0 (noise) to 1 (data)

Scaled to the length that diffusion gives it, x_t is diffusion's: x_t / sqrt(t^2 + (1 - t)^2) has
the signal-to-noise ratio t^2 / (1 - t)^2, and so log_snr = 2 log(t / (1 - t)). At x_t one estimate
of velocity, noise or data gives the other two. A network of either kind thus serves the samplers of
both (`as_denoiser`, `as_velocity`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from generative.assignment import assign
from generative.diffusion.samplers import Denoiser
from generative.diffusion.schedules import MAX_LOG_SNR
from generative.flow_matching.config import FlowMatchingLossConfig, MeanFlowLossConfig
from generative.training.checks import at_least_float32

__all__ = [
    "FIRST_TIME",
    "Pair",
    "VelocityField",
    "as_denoiser",
    "as_velocity",
    "draw_times",
    "from_diffusion",
    "interpolate",
    "noise_and_data",
    "optimal_noise",
    "to_diffusion",
    "velocity_from_data",
    "velocity_from_noise",
    "wide",
]

VelocityField = Callable[[Tensor, Tensor], Tensor]
"""(x_t (B, ...), t (B,)) -> velocity (B, ...)."""
FIRST_TIME = 1 / (1 + math.exp(MAX_LOG_SNR / 2))
"""Time at the least log_snr of diffusion, 0.0009; its last one is 1 less this."""


class Pair(NamedTuple):
    """Noise and examples that belong together, (B, ...) each."""

    noise: Tensor
    data: Tensor


def interpolate(noise: Tensor, data: Tensor, t: Tensor) -> Tensor:
    """Points x_t (B, ...) at times t (B,) of the lines from noise to data."""
    t = wide(t, data)
    return (1 - t) * noise + t * data


def noise_and_data(velocity: Tensor, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Estimates of (noise, data) from one of the velocity at x_t (B, ...)."""
    t = wide(t, x)
    return x - t * velocity, x + (1 - t) * velocity


def velocity_from_noise(noise: Tensor, x: Tensor, t: Tensor) -> Tensor:
    """Estimate of the velocity from one of the noise at x_t (B, ...), t above 0."""
    return (x - noise) / wide(t, x)


def velocity_from_data(data: Tensor, x: Tensor, t: Tensor) -> Tensor:
    """Estimate of the velocity from one of the data at x_t (B, ...), t below 1."""
    return (data - x) / (1 - wide(t, x))


def to_diffusion(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Points x_t (B, ...) on lines, t (B,) -> diffusion's x_t, and log_snr (B,)."""
    length = (t.square() + (1 - t).square()).sqrt()
    return x / wide(length, x), 2 * (t.log() - (-t).log1p())


def from_diffusion(x: Tensor, log_snr: Tensor) -> tuple[Tensor, Tensor]:
    """Diffusion's x_t (B, ...) and log_snr (B,) -> points on lines, and their times (B,)."""
    t = (log_snr / 2).sigmoid()
    return x * wide((t.square() + (1 - t).square()).sqrt(), x), t


def as_denoiser(velocity: VelocityField) -> Denoiser:
    """The denoiser that a velocity stands for, as diffusion's samplers take it."""

    def denoise(x: Tensor, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        x, t = from_diffusion(x, log_snr)
        return noise_and_data(velocity(x, t), x, t)

    return denoise


def as_velocity(denoise: Denoiser, first: float = FIRST_TIME) -> VelocityField:
    """The velocity of a denoiser of diffusion, data - noise.

    Args:
        first: the denoiser is asked for times from here to 1 - first; a nearer end takes its place.
    """

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        noise, data = denoise(*to_diffusion(x, t.clamp(first, 1 - first)))
        return data - noise

    return velocity


# ---------------------------------------------------------------------------------------------
# Training
# ---------------------------------------------------------------------------------------------


def draw_times(
    x: Tensor,
    config: FlowMatchingLossConfig | MeanFlowLossConfig,
    generator: torch.Generator | None = None,
    even: bool = False,
) -> Tensor:
    """A time for each example of x (B, ...), (B,), by the law of the config.

    Args:
        even: spread them evenly: one random shift of B equal distances, in rising order.
    """
    kind = {"device": x.device, "dtype": at_least_float32(x)}
    if even:
        u = torch.rand(1, generator=generator, **kind) + torch.arange(len(x), device=x.device)
        u = u / len(x)
    else:
        u = torch.rand(len(x), generator=generator, **kind)
    if config.times == "logit-normal":
        u = torch.special.ndtri(u.clamp(1e-6, 1 - 1e-6))
        u = (config.mean + config.std * u).sigmoid()
    return u.to(x.dtype)


@torch.no_grad()
def optimal_noise(noise: Tensor, data: Tensor) -> Tensor:
    """The same noise (B, ...) in the order of the cheapest pairing with data (B, ...).

    The sum of squared distances is least over all orders (minibatch optimal transport; Pooladian et
    al. 2023; Tong et al. 2024). In the mean over batches each noise still is standard normal.
    """
    flat = [part.flatten(1).double().cpu() for part in (data, noise)]
    # -2 <data, noise> orders the pairs as squared distances do.
    order = assign(-(flat[0] @ flat[1].T).numpy())
    return noise[torch.from_numpy(order).to(noise.device)]


def wide(values: Tensor, like: Tensor) -> Tensor:
    """(B,) -> (B, 1, ...), to multiply examples (B, ...)."""
    return values.view(-1, *[1] * (like.dim() - 1))
