"""What the flows share: the change of variables, layers and splines, noise on levels, the learner.

A flow turns data x into z of the same size, by a chain of layers that are easy to invert, and so
has an exact density:

    log p(x) = log N(f(x); 0, I) + log |det df/dx|

Every layer has `encode(x)`, from data to latent, which gives z and log |det dz/dx| (B,), and its
inverse `decode(z)`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.flow.config import FlowLossConfig
from generative.training.checks import to_levels
from generative.training.optimisation import Optimisation, matrices, parameter_groups

__all__ = [
    "ActNorm",
    "Dequantiser",
    "FlowLearner",
    "FlowLossConfig",
    "FlowLosses",
    "ImageFlowLosses",
    "Layer",
    "image_flow_losses",
    "rational_quadratic",
    "standard_normal_log_prob",
]


M = TypeVar("M", bound=nn.Module)


def standard_normal_log_prob(z: Tensor) -> Tensor:
    """log N(z; 0, I) of each row, (B, D) -> (B,), nats."""
    return -0.5 * (z.square().sum(1) + z.shape[1] * math.log(2 * math.pi))


class FlowLosses(NamedTuple):
    """Means over the batch, in nats: loss = latent - log_det."""

    loss: Tensor
    latent: Tensor
    """-log N(z; 0, I)."""
    log_det: Tensor
    """log |det dz/dx|."""


class ImageFlowLosses(NamedTuple):
    """Means over the batch."""

    loss: Tensor
    """Negative log-likelihood of the image with noise, nats."""
    bits_per_dim: Tensor
    """The same in bits per number, the unit of the papers."""


def image_flow_losses(log_prob: Tensor, dim: int) -> ImageFlowLosses:
    """Of the log densities (B,), in nats, of images of `dim` numbers each."""
    nats = -log_prob.mean()
    return ImageFlowLosses(nats, nats.detach() / (math.log(2) * dim))


# ---------------------------------------------------------------------------------------------
# Layers
# ---------------------------------------------------------------------------------------------


class Layer(Protocol):
    """What a chain is made of."""

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x -> z and log |det dz/dx| (B,)."""
        ...

    def decode(self, z: Tensor) -> Tensor:
        """The inverse."""
        ...


class ActNorm(nn.Module):
    """z = (x - shift) * exp(-log_scale), per axis or channel (Kingma & Dhariwal 2018, 3.1)."""

    def __init__(self, dim: int):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(dim))
        self.log_scale = nn.Parameter(torch.zeros(dim))

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Choose shift and scale so that this batch comes out with mean 0 and deviation 1."""
        values = x.movedim(1, -1).flatten(0, -2)
        self.shift.copy_(values.mean(0))
        self.log_scale.copy_(values.std(0, correction=0).clamp_min(1e-3).log())

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, D) or (B, C, H, W) -> z of the same shape, log |det| (B,)."""
        z = (x - self._fit(self.shift, x)) * self._fit((-self.log_scale).exp(), x)
        places = math.prod(x.shape[2:])
        return z, (-places * self.log_scale.sum()).expand(len(x))

    def decode(self, z: Tensor) -> Tensor:
        """The inverse."""
        return z * self._fit(self.log_scale.exp(), z) + self._fit(self.shift, z)

    @staticmethod
    def _fit(values: Tensor, x: Tensor) -> Tensor:
        return values.reshape(-1, *[1] * (x.dim() - 2))


# ---------------------------------------------------------------------------------------------
# Splines
# ---------------------------------------------------------------------------------------------


MIN_WIDTH = 1e-3
"""Smallest share of a piece in the width and in the height of a spline."""
MIN_SLOPE = 1e-3
"""Smallest slope of a spline at a knot."""
UNIT_SLOPE = math.log(math.expm1(1 - MIN_SLOPE))
"""Unconstrained value that gives slope 1."""


def rational_quadratic(
    x: Tensor, raw: Tensor, bound: float, inverse: bool = False
) -> tuple[Tensor, Tensor]:
    """Monotone rational-quadratic spline, and the logarithm of its slope.

    Durkan et al. (2019), equations 4 to 8, with linear tails.

    Args:
        x: any shape.
        raw: (*x.shape, 3K - 1), unconstrained: K widths, K heights, K - 1 slopes at the inner
            knots. Zeros give the identity.
        bound: the spline maps [-bound, bound] onto itself and is the identity outside.
        inverse: compute x from y; the slope is then that of the inverse.
    Returns:
        y and log |dy/dx|, both of the shape of x.
    """
    num_bins = (raw.shape[-1] + 1) // 3
    widths, heights, slopes = raw.split([num_bins, num_bins, num_bins - 1], -1)
    xs, ys = _knots(widths, bound), _knots(heights, bound)
    # The offset makes raw = 0 a slope of 1, and the ends join the identity smoothly.
    slopes = F.pad(MIN_SLOPE + F.softplus(slopes + UNIT_SLOPE), (1, 1), value=1.0)

    inside = (x > -bound) & (x < bound)
    point = x.clamp(-bound, bound)
    knots = ys if inverse else xs
    k = torch.searchsorted(knots[..., 1:-1].contiguous(), point[..., None].contiguous())
    x0, x1, y0, y1, d0, d1 = (
        values.gather(-1, index).squeeze(-1) for values in (xs, ys, slopes) for index in (k, k + 1)
    )
    # In float64: where the spline is flat its inverse magnifies every rounding.
    x0, x1, y0, y1, d0, d1, point = (v.double() for v in (x0, x1, y0, y1, d0, d1, point))
    width, height = x1 - x0, y1 - y0
    s = height / width
    bend = d0 + d1 - 2 * s
    if inverse:
        rise = point - y0
        a = height * (s - d0) + rise * bend
        b = height * d0 - rise * bend
        c = -s * rise
        # The root in [0, 1], in the form that does not cancel.
        xi = 2 * c / (-b - (b.square() - 4 * a * c).clamp_min(0).sqrt())
        y = x0 + width * xi
    else:
        xi = (point - x0) / width
        y = y0 + height * (s * xi.square() + d0 * xi * (1 - xi)) / (s + bend * xi * (1 - xi))
    numerator = d1 * xi.square() + 2 * s * xi * (1 - xi) + d0 * (1 - xi).square()
    log_slope = 2 * s.log() + numerator.log() - 2 * (s + bend * xi * (1 - xi)).log()
    log_slope = -log_slope if inverse else log_slope
    return torch.where(inside, y.to(x), x), torch.where(inside, log_slope.to(x), 0.0)


def _knots(raw: Tensor, bound: float) -> Tensor:
    """(..., K) unconstrained -> (..., K + 1) rising from -bound to bound."""
    num_bins = raw.shape[-1]
    shares = MIN_WIDTH + (1 - MIN_WIDTH * num_bins) * raw.softmax(-1)
    inner = bound * (2 * shares.cumsum(-1)[..., :-1] - 1)
    # The ends exactly, free of the rounding of the sum.
    return F.pad(F.pad(inner, (1, 0), value=-bound), (0, 1), value=bound)


# ---------------------------------------------------------------------------------------------
# Images of few levels
# ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Dequantiser:
    """Images of few levels as points that have a density, and back.

    A pixel of level l gets uniform noise, y = (l + u) / levels, so that the images have a density
    and no flow can win by putting spikes on the levels (Theis et al. 2016, section 3.1). E log p of
    the noisy image is then a lower bound of the log probability of the image.

    Args:
        levels: values a pixel can have.
        margin: 0 for v = y - 1/2, else v = logit(margin + (1 - 2 margin) y), which takes pixels
            off the edges of their range (Dinh et al. 2017, section 4.1).
    """

    levels: int
    margin: float

    def noisy(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Images (B, C, H, W) in [0, 1] -> (level + uniform noise) / levels, in [0, 1).

        Raises:
            ValueError: pixels that are no levels.
        """
        level = to_levels(x, self.levels)
        u = torch.rand(level.shape, generator=generator, device=x.device, dtype=x.dtype)
        return (level + u) / self.levels

    def centred(self, x: Tensor) -> Tensor:
        """The same without chance: every pixel in the middle of its level."""
        return (to_levels(x, self.levels) + 0.5) / self.levels

    def squash(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """y in (0, 1) -> v, and log |det| (B,) of the way from level + noise to v."""
        per_level = -math.log(self.levels)
        if not self.margin:
            v = y - 0.5
            return v, y.new_full((len(y),), per_level * math.prod(y.shape[1:]))
        v = torch.logit(self.margin + (1 - 2 * self.margin) * y)
        # dv/dy = (1 - 2 margin) / (p (1 - p)) with p = sigmoid(v).
        log_slope = math.log1p(-2 * self.margin) - F.logsigmoid(v) - F.logsigmoid(-v)
        return v, (log_slope + per_level).flatten(1).sum(1)

    def images(self, v: Tensor) -> Tensor:
        """v (B, C, H, W) -> images in [0, 1] whose pixels are levels."""
        y = (v.sigmoid() - self.margin) / (1 - 2 * self.margin) if self.margin else v + 0.5
        level = (y * self.levels).floor().clamp(0, self.levels - 1)
        return level / (self.levels - 1)


# ---------------------------------------------------------------------------------------------
# Training
# ---------------------------------------------------------------------------------------------


class FlowLearner(Generic[M]):
    """Adam on a flow's loss; `kept` holds the weights to keep: their average, if there is one.

    Args:
        model: any flow with a `loss`.
        config: see `FlowLossConfig`.
        steps: over which the learning rate falls.
        loss: what to minimise, the field `loss` of what it returns; `model.loss` if not given.
    """

    def __init__(
        self,
        model: M,
        config: FlowLossConfig,
        steps: int,
        loss: Callable[[Tensor], Any] | None = None,
    ):
        self.model, self.config = model, config
        self._loss = loss or cast("Any", model).loss
        optimizer = torch.optim.AdamW(
            parameter_groups(model, config.weight_decay), lr=config.lr, eps=config.adam_eps
        )
        self.optimisation = Optimisation(
            model, optimizer, steps, config.final_lr, config.clip, config.ema
        )

    @property
    def kept(self) -> M:
        """A copy of the model with the weights that sampling and scoring should use."""
        return self.optimisation.kept

    def update(self, x: Tensor) -> dict[str, Tensor]:
        """One step on a batch, points (B, D) or images (B, C, H, W) as the model takes them."""
        losses = self._loss(x)
        loss = losses.loss
        if self.config.l2:
            loss = loss + self.config.l2 * sum(w.square().sum() for w in matrices(self.model))
        self.optimisation.step(loss)
        return {name: value.detach() for name, value in losses._asdict().items()}

    def state_dict(self) -> dict:
        return self.optimisation.state_dict()

    def load_state_dict(self, state: dict) -> None:
        self.optimisation.load_state_dict(state)
