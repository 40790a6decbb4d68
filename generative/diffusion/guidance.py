"""Classifier-free guidance: away from what a model expects of anything, towards what it is told.

A network that was trained with its condition left out now and then estimates the noise with it and
without. Guidance goes on along the difference (Ho & Salimans 2022), which has two ways of writing:

    eps = eps(nothing) + s (eps(c) - eps(nothing))        s = 1 is plain sampling: `scale`
    eps = (1 + w) eps(c) - w eps(nothing)                 w = 0 is plain sampling: `Guidance.of(w)`

so s = 1 + w. GLIDE, Imagen and Stable Diffusion give s, the first publication gives w.

    model.sample(16, context=told, guidance=Guidance(nothing, 3.0))

Guided sampling does not draw from p(x | c)^s p(x)^(1 - s): the product of the two densities at each
noise level is not what noising makes of their product. For Gaussians what it does draw is known in
closed form (`tests/generative/diffusion/test_guidance.py`).

Guidance multiplies the errors of the estimate that is told nothing, too. Where the picture itself
says what the condition says, they are all that is left of the difference; an interval of noise
levels leaves those steps alone (Kynkäänniemi et al. 2024), and saves their second estimate:

    Guidance(nothing, 3.0, interval=(-20.0, 0.0))         log SNR: while noise exceeds the data
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from generative.diffusion.samplers import Denoiser

__all__ = ["Guidance", "drop_context", "guided"]

Interval: TypeAlias = tuple[float, float]
"""Lowest and highest log SNR."""


@dataclass(frozen=True)
class Guidance:
    """Settings of guidance.

    Args:
        null: condition of nothing, as the network takes it, of as many examples.
        scale: s, 1 for plain sampling; 0 leaves the condition out.
        interval: lowest and highest log SNR at which there is guidance; elsewhere sampling is
            plain. None: everywhere.
    Raises:
        ValueError: the scale is no finite number.
    """

    null: Any
    scale: float = 1.0
    interval: Interval | None = None

    def __post_init__(self) -> None:
        _check_scale(self.scale)

    @classmethod
    def of(cls, null: Any, w: float, interval: Interval | None = None) -> Guidance:
        """Guidance by the weight w of the first publication, scale 1 + w."""
        return cls(null, 1.0 + w, interval)


def guided(
    conditional: Denoiser,
    unconditional: Denoiser,
    scale: float,
    interval: Interval | None = None,
) -> Denoiser:
    """Denoiser between two others, and beyond: unconditional + scale (conditional - unconditional).

    Noise, data and velocity are linear in one another at a given x_t, with weights that sum to 1,
    so it is the same for all of them. With scale 1 or 0, and outside the interval, only one of the
    two is asked, and the result equals its own bit for bit.

    Args:
        conditional, unconditional: (x_t, log_snr) -> (noise, data).
        scale: s; see the module.
        interval: see `Guidance`.
    Raises:
        ValueError: the scale is no finite number, or the interval has no width.
    """
    _check_scale(scale)
    if interval is not None and not interval[0] < interval[1]:
        raise ValueError(
            f"interval is {interval}; give the lowest and the highest log SNR with guidance"
        )
    if scale == 1:
        return conditional
    if interval is not None:
        return _within(interval, guided(conditional, unconditional, scale), conditional)
    if scale == 0:
        return unconditional

    def denoise(x: Tensor, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        noise, data = conditional(x, log_snr)
        null_noise, null_data = unconditional(x, log_snr)
        return null_noise + scale * (noise - null_noise), null_data + scale * (data - null_data)

    return denoise


def _check_scale(scale: float) -> None:
    if not math.isfinite(scale):
        raise ValueError(
            f"scale is {scale}; guidance needs a finite one: 1 is plain sampling, more follows the "
            "condition more closely"
        )


def _within(interval: Interval, inside: Denoiser, outside: Denoiser) -> Denoiser:
    """One denoiser at the noise levels of an interval and another at the rest."""
    low, high = interval

    def denoise(x: Tensor, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        there = (low <= log_snr) & (log_snr <= high)
        if there.all():
            return inside(x, log_snr)
        if not there.any():
            return outside(x, log_snr)
        there = there.view(-1, *[1] * (x.dim() - 1))
        pairs = zip(inside(x, log_snr), outside(x, log_snr), strict=True)
        noise, data = (torch.where(there, *pair) for pair in pairs)
        return noise, data

    return denoise


def drop_context(
    context: Any, null: Any, share: float, generator: torch.Generator | None = None
) -> Any:
    """Condition in which some examples, drawn at random, have that of nothing.

    Args:
        context, null: tensors (B, ...) of equal shapes, or tuples of such tensors, in which None
            stands for an absent part.
        share: of the examples that are told nothing.
    Raises:
        ValueError: the two have other parts or shapes.
    """
    first = next((part for part in _parts(context) if part is not None), None)
    if first is None or not share:
        return context
    drawn = torch.rand(len(first), generator=generator, device=first.device) < share
    return _choose(drawn, null, context)


def _choose(drawn: Tensor, null: Any, context: Any) -> Any:
    """Null where drawn (B,) is True."""
    parts, nulls = _parts(context), _parts(null)
    shapes = [[None if x is None else tuple(x.shape) for x in both] for both in (nulls, parts)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"the condition of nothing has parts {shapes[0]}, that of the examples {shapes[1]}; "
            "give both the same"
        )

    def one(nothing: Tensor | None, given: Tensor | None) -> Tensor | None:
        if nothing is None or given is None:
            return given
        return torch.where(drawn.view(-1, *[1] * (given.dim() - 1)), nothing, given)

    found = [one(*both) for both in zip(nulls, parts, strict=True)]
    if isinstance(context, Tensor):
        return found[0]
    make: Callable[..., Any] = getattr(type(context), "_make", tuple)
    return make(found)


def _parts(context: Any) -> list[Tensor | None]:
    return [context] if isinstance(context, Tensor) else list(context)
