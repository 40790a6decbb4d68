"""Editing with any denoiser: fill in a part of an example, or go on from a noised one.

for step in inpainting_path(denoise, known, hole, z, schedule.steps(50)):
    ...                                  # outside the hole every step.x is the noised `known`
for step in denoising_path(denoise, *noised(known, eps, stations, strength=0.6)):
    ...                                  # from a noised example on, not from pure noise
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from generative.diffusion.samplers import (
    Clip,
    Denoiser,
    Generators,
    SamplerStep,
    denoising_path,
    normal_noise,
)
from generative.diffusion.schedules import signal_and_noise
from generative.training.checks import checked
from generative.training.ranges import Count, Probability

__all__ = ["inpainting_path", "noised"]


@checked
@torch.no_grad()
def inpainting_path(
    denoise: Denoiser,
    known: Tensor,
    hole: Tensor,
    z: Tensor,
    log_snrs: Sequence[float],
    eta: Probability = 0.0,
    generator: Generators = None,
    clip: Clip | None = None,
    repeats: Count = 1,
) -> Iterator[SamplerStep]:
    """Every step of sampling what is in a hole, given what is around it.

    Before each step all numbers outside the hole are set to those of `known` with the noise of that
    level, so that the denoiser sees them. What it draws fits them only as far as it has seen them
    at that level: with `repeats` a step is taken back by fresh noise and taken again (RePaint;
    Lugmayr et al. 2022).

    Args:
        denoise: (x_t, log_snr) -> (noise, data).
        known: examples (B, ...); what is in the hole has no influence.
        hole: bool, broadcastable to known, True where it is to be filled.
        z: standard normal noise (B, ...).
        log_snrs, eta, clip: as for `denoising_path`.
        repeats: times each step is taken.
    Raises:
        ValueError: the hole does not fit the examples.
    """
    pairs = itertools.zip_longest(reversed(hole.shape), reversed(known.shape), fillvalue=0)
    fits = all(side in (0, 1, wanted) for side, wanted in pairs)
    if hole.dtype != torch.bool or not fits:
        raise ValueError(
            f"got a hole {tuple(hole.shape)} of {hole.dtype}; it has to be bool and fit examples "
            f"{tuple(known.shape)}, True where they are to be filled in"
        )
    x = z
    for level, target in itertools.pairwise(log_snrs):
        for again in reversed(range(repeats)):
            x = torch.where(hole, x, _noised(known, _normal(known, generator), level))
            (step,) = denoising_path(denoise, x, (level, target), eta, generator, clip)
            x = step.x
            if again:
                x = _back(x, target, level, generator)
        filled = torch.where(hole, x, known) if target == math.inf else x
        yield SamplerStep(filled, torch.where(hole, step.data, known))


@checked
def noised(
    x: Tensor, eps: Tensor, log_snrs: Sequence[float], strength: Probability
) -> tuple[Tensor, list[float]]:
    """Examples with noise, and the stations that are left to take it away again.

    Args:
        x, eps: examples and standard normal noise, (B, ...).
        log_snrs: stations from noise to data; see `Schedule.steps`.
        strength: share of the steps that are taken: 1 forgets all but the faintest traces of x, 0
            takes the last step alone.
    """
    steps = len(log_snrs) - 1
    left = list(log_snrs[steps - max(1, round(strength * steps)) :])
    return _noised(x, eps, left[0]), left


def _noised(x: Tensor, eps: Tensor, log_snr: float) -> Tensor:
    signal, rate = signal_and_noise(torch.tensor(log_snr, dtype=torch.float64))
    return float(signal) * x + float(rate) * eps


def _back(x: Tensor, log_snr: float, target: float, generator: Generators) -> Tensor:
    """From a level to one with more noise, as noising does it."""
    levels = torch.tensor([log_snr, target], dtype=torch.float64).sigmoid()
    share = float(levels[1] / levels[0])
    return math.sqrt(share) * x + math.sqrt(1 - share) * _normal(x, generator)


def _normal(like: Tensor, generator: Generators) -> Tensor:
    return normal_noise(like.shape, generator, device=like.device, dtype=like.dtype)
