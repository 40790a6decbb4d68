"""Real-valued non-volume-preserving flow: couplings, exact density, sampling, learner.

A chain of layers that are easy to invert turns data x into z with a standard normal density, and
the change of variables gives the exact density of x (Dinh, Sohl-Dickstein & Bengio 2017):

    log p(x) = log N(f(x); 0, I) + log |det df/dx|

    flow = RealNVP.from_pretrained("runs/realnvp/model")
    flow.log_prob(x)                     # (B, 2) -> (B,), nats
    flow.sample(1000)                    # (1000, 2)

`RealNVP` takes vectors. `ImageRealNVP` puts it behind dequantisation, for images of few levels.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import ClassVar, NamedTuple, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel

from generative.checks import check_images, check_vectors
from generative.configs.flows import FlowLossConfig, ImageRealNVPConfig, RealNVPConfig
from generative.pretrained import Pretrained
from generative.training.average import warm_average

__all__ = [
    "ActNorm",
    "AffineCoupling",
    "FlowLearner",
    "FlowLossConfig",
    "FlowLosses",
    "ImageFlowLosses",
    "ImageRealNVP",
    "ImageRealNVPConfig",
    "RealNVP",
    "RealNVPConfig",
    "SplineCoupling",
    "make_mask",
    "rational_quadratic",
    "standard_normal_log_prob",
]


def standard_normal_log_prob(z: Tensor) -> Tensor:
    """log N(z; 0, I) of each row, (B, D) -> (B,), nats."""
    return -0.5 * (z.square().sum(1) + z.shape[1] * math.log(2 * math.pi))


# ---------------------------------------------------------------------------------------------
# Layers: `encode` goes from data to latent and returns log |det|, `decode` goes back
# ---------------------------------------------------------------------------------------------


def make_mask(kind: str, shape: tuple[int, ...]) -> Tensor:
    """Which of the numbers of an example pass a coupling unchanged; bool, (D,) or (C*H*W,).

    alternate: every second number. checkerboard: every second pixel, like black squares. rows,
    columns: every second line of pixels, which are the channels of a squeezed image (Dinh et al.
    2017, figure 3).
    """
    # On the CPU whatever the default is: a model that is only measured is built on "meta".
    if kind == "alternate":
        return torch.arange(math.prod(shape), device="cpu") % 2 == 1
    c, h, w = shape
    axes = torch.arange(h, device="cpu"), torch.arange(w, device="cpu")
    row, column = torch.meshgrid(*axes, indexing="ij")
    line = {"checkerboard": row + column, "rows": row, "columns": column}[kind]
    return (line % 2 == 1).expand(c, h, w).flatten()


class ActNorm(nn.Module):
    """z = (x - shift) * exp(-log_scale) per axis (Kingma & Dhariwal 2018, section 3.1)."""

    def __init__(self, dim: int):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(dim))
        self.log_scale = nn.Parameter(torch.zeros(dim))

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Choose shift and scale so that this batch comes out with mean 0 and deviation 1."""
        self.shift.copy_(x.mean(0))
        self.log_scale.copy_(x.std(0, correction=0).clamp_min(1e-3).log())

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, D) -> z (B, D), log |det| (B,)."""
        z = (x - self.shift) * (-self.log_scale).exp()
        return z, -self.log_scale.sum().expand(len(x))

    def decode(self, z: Tensor) -> Tensor:
        """The inverse."""
        return z * self.log_scale.exp() + self.shift


class AffineCoupling(nn.Module):
    """z = x where masked, (x - t) exp(-s) elsewhere; s and t see the masked numbers only.

    This is the book's program: two networks, s with tanh at its end, and the direction
    in which data are divided by exp(s). Dinh et al. write the inverse of it.
    """

    mask: Tensor

    def __init__(self, mask: Tensor, config: RealNVPConfig):
        super().__init__()
        # Buffers that the config gives are not saved with the weights.
        self.register_buffer("mask", mask.float(), persistent=False)
        dim = mask.numel()
        self.scale = _mlp(dim, dim, config).append(nn.Tanh())
        self.shift = _mlp(dim, dim, config)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, D) -> z (B, D), log |det| (B,)."""
        s, t = self._scale_shift(x)
        return self.mask * x + (1 - self.mask) * (x - t) * (-s).exp(), -s.sum(1)

    def decode(self, z: Tensor) -> Tensor:
        """The inverse."""
        s, t = self._scale_shift(z)
        return self.mask * z + (1 - self.mask) * (z * s.exp() + t)

    def _scale_shift(self, x: Tensor) -> tuple[Tensor, Tensor]:
        kept = self.mask * x
        return (1 - self.mask) * self.scale(kept), (1 - self.mask) * self.shift(kept)


class SplineCoupling(nn.Module):
    """z = x where masked, a monotone spline of x elsewhere whose shape depends on the masked part.

    Rational-quadratic pieces between -bound and bound, the identity outside (Durkan et al. 2019,
    Neural Spline Flows). It begins as the identity.
    """

    kept: Tensor
    changed: Tensor
    waves: Tensor

    def __init__(self, mask: Tensor, config: RealNVPConfig):
        super().__init__()
        kept, changed = mask.nonzero().flatten(), (~mask).nonzero().flatten()
        self.register_buffer("kept", kept, persistent=False)
        self.register_buffer("changed", changed, persistent=False)
        self.bound, self.num_bins = config.bound, config.num_bins
        waves = math.pi / config.bound * 2.0 ** torch.arange(config.num_waves)
        self.register_buffer("waves", waves, persistent=False)
        in_dim = len(kept) * (1 + 2 * config.num_waves)
        out_dim = len(changed) * (3 * config.num_bins - 1)
        self.network = _mlp(in_dim, out_dim, dataclasses.replace(config, zero_init=True))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, D) -> z (B, D), log |det| (B,)."""
        y, log_slope = self._spline(x, inverse=False)
        return x.index_copy(1, self.changed, y), log_slope.sum(1)

    def decode(self, z: Tensor) -> Tensor:
        """The inverse."""
        y, _ = self._spline(z, inverse=True)
        return z.index_copy(1, self.changed, y)

    def _spline(self, x: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        seen = x[:, self.kept]
        if len(self.waves):
            phases = (seen[:, :, None] * self.waves).flatten(1)
            seen = torch.cat([seen, phases.sin(), phases.cos()], 1)
        raw = self.network(seen).unflatten(1, (len(self.changed), -1))
        return rational_quadratic(x[:, self.changed], raw, self.bound, inverse)


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
    return torch.where(inside, y, x), torch.where(inside, log_slope, 0.0)


def _knots(raw: Tensor, bound: float) -> Tensor:
    """(..., K) unconstrained -> (..., K + 1) rising from -bound to bound."""
    num_bins = raw.shape[-1]
    shares = MIN_WIDTH + (1 - MIN_WIDTH * num_bins) * raw.softmax(-1)
    inner = bound * (2 * shares.cumsum(-1)[..., :-1] - 1)
    # The ends exactly, free of the rounding of the sum.
    return F.pad(F.pad(inner, (1, 0), value=-bound), (0, 1), value=bound)


def _mlp(in_dim: int, out_dim: int, config: RealNVPConfig) -> nn.Sequential:
    activation = {"relu": nn.ReLU, "silu": nn.SiLU}[config.activation]
    layers: list[nn.Module] = []
    width = in_dim
    for _ in range(config.num_hidden):
        layers += [nn.Linear(width, config.hidden_dim), activation()]
        if config.dropout:
            layers.append(nn.Dropout(config.dropout))
        width = config.hidden_dim
    last = nn.Linear(width, out_dim)
    for layer in [*layers, last]:
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)  # the book's framework begins so
            nn.init.zeros_(layer.bias)
    if config.zero_init:
        nn.init.zeros_(last.weight)
    return nn.Sequential(*layers, last)


Layer: TypeAlias = AffineCoupling | SplineCoupling | ActNorm


# ---------------------------------------------------------------------------------------------
# The flow
# ---------------------------------------------------------------------------------------------


class FlowLosses(NamedTuple):
    """Means over the batch, in nats: loss = latent - log_det."""

    loss: Tensor
    latent: Tensor
    """-log N(z; 0, I)."""
    log_det: Tensor
    """log |det dz/dx|."""


class RealNVP(Pretrained, nn.Module):
    """Flow on vectors (B, D); 2,383,896 parameters at the book's sizes.

    `layers` stand in the order from latent to data, as in the book.
    """

    config_class = RealNVPConfig
    capabilities: ClassVar[frozenset[str]] = frozenset(
        {"loss", "sample", "log_prob", "encode", "decode"}
    )

    def __init__(self, config: RealNVPConfig | None = None):
        super().__init__()
        self.config = config = config or RealNVPConfig()
        self.dim = math.prod(config.shape)
        self.layers = nn.ModuleList()
        for i in range(config.num_couplings):
            mask = make_mask(config.masks[(i // 2) % len(config.masks)], config.shape)
            kind = AffineCoupling if config.coupling == "affine" else SplineCoupling
            self.layers.append(kind(mask if i % 2 == 0 else ~mask, config))
            if config.actnorm:
                self.layers.append(ActNorm(self.dim))

    def encode_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, D) -> z (B, D) and log |det dz/dx| (B,).

        Raises:
            ValueError: another shape, or integers.
        """
        x = check_vectors(x, self.dim, "points", "this flow")
        log_det = x.new_zeros(len(x))
        for layer in reversed(self._layers()):
            x, part = layer.encode(x)
            log_det = log_det + part
        return x, log_det

    def encode(self, x: Tensor) -> Tensor:
        """x (B, D) -> z (B, D), standard normal if x is drawn from the model."""
        return self.encode_log_det(x)[0]

    def decode(self, z: Tensor) -> Tensor:
        """z (B, D) -> x (B, D), the inverse of `encode`."""
        z = check_vectors(z, self.dim, "z", "this flow")
        for layer in self._layers():
            z = layer.decode(z)
        return z

    def log_prob(self, x: Tensor) -> Tensor:
        """log density of each point, (B, D) -> (B,), nats."""
        z, log_det = self.encode_log_det(x)
        return standard_normal_log_prob(z) + log_det

    def loss(self, x: Tensor) -> FlowLosses:
        """Mean negative log-likelihood of (B, D)."""
        z, log_det = self.encode_log_det(x)
        latent = -standard_normal_log_prob(z).mean()
        return FlowLosses(latent - log_det.mean(), latent, log_det.mean())

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n points (n, D): `decode` of standard normal z."""
        parameter = next(self.parameters())
        z = torch.randn(n, self.dim, generator=generator, device=parameter.device)
        return self.decode(z.to(parameter.dtype))

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Set every `ActNorm` from a first batch (B, D); without them there is nothing to do."""
        for layer in reversed(self._layers()):
            if isinstance(layer, ActNorm):
                layer.initialise(x)
            x, _ = layer.encode(x)

    def _layers(self) -> list[Layer]:
        return cast("list[Layer]", list(self.layers))


class ImageFlowLosses(NamedTuple):
    """Means over the batch."""

    loss: Tensor
    """Negative log-likelihood of the image with noise, nats."""
    bits_per_dim: Tensor
    """The same in bits per number, the unit of the papers."""


class ImageRealNVP(Pretrained, nn.Module):
    """Flow on images (B, C, H, W) in [0, 1] whose pixels have few levels.

    A pixel of level l gets uniform noise, y = (l + u) / levels, so that the images have a density
    and no flow can win by putting spikes on the levels (Theis et al. 2016, section 3.1). E log p of
    the noisy image is then a lower bound of the log probability of the image.
    """

    config_class = ImageRealNVPConfig
    capabilities: ClassVar[frozenset[str]] = frozenset({"loss", "sample", "bound"})

    def __init__(self, config: ImageRealNVPConfig | None = None):
        super().__init__()
        self.config = config = config or ImageRealNVPConfig()
        self.flow = RealNVP(config.flow)

    def loss(self, x: Tensor, generator: torch.Generator | None = None) -> ImageFlowLosses:
        """Mean negative log-likelihood of images (B, C, H, W), with fresh noise."""
        nats = -self._noisy_log_prob(self._dequantise(x, generator)).mean()
        return ImageFlowLosses(nats, nats.detach() / (math.log(2) * self.flow.dim))

    def bound(
        self, x: Tensor, num_draws: int = 16, generator: torch.Generator | None = None
    ) -> Tensor:
        """Lower bound of the log probability of each image, (B, C, H, W) -> (B,), nats.

        The average of log p over `num_draws` draws of the noise. Divide by -log(2) * C * H * W for
        bits per dimension.
        """
        draws = [self._noisy_log_prob(self._dequantise(x, generator)) for _ in range(num_draws)]
        return torch.stack(draws).mean(0)

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n images (n, C, H, W) whose pixels are levels, in [0, 1]."""
        levels, margin = self.config.levels, self.config.margin
        y = (self.flow.sample(n, generator).sigmoid() - margin) / (1 - 2 * margin)
        level = (y * levels).floor().clamp(0, levels - 1)
        return (level / (levels - 1)).unflatten(1, self.config.flow.shape)

    def initialise(self, x: Tensor) -> None:
        """Set every `ActNorm` from a first batch of images."""
        self.flow.initialise(self._squash(self._dequantise(x, None)))

    def _dequantise(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        """Images -> (level + uniform noise) / levels, in [0, 1), (B, D)."""
        levels = self.config.levels
        level = check_images(x, self.config.flow.shape, "this flow").flatten(1) * (levels - 1)
        if not bool(((level - level.round()).abs() < 1e-3).all()):
            raise ValueError(
                f"got pixels between the levels; this flow needs multiples of 1/{levels - 1}, "
                f"one of {levels} levels: round them first"
            )
        u = torch.rand(level.shape, generator=generator, device=x.device, dtype=x.dtype)
        return (level.round() + u) / levels

    def _squash(self, y: Tensor) -> Tensor:
        margin = self.config.margin
        return torch.logit(margin + (1 - 2 * margin) * y)

    def _noisy_log_prob(self, y: Tensor) -> Tensor:
        """log density of level + noise (in [0, levels)), (B, D) -> (B,), nats."""
        margin = self.config.margin
        v = self._squash(y)
        # dv/dy = (1 - 2 margin) / (p (1 - p)) with p = sigmoid(v).
        log_slope = math.log1p(-2 * margin) - F.logsigmoid(v) - F.logsigmoid(-v)
        per_level = math.log(self.config.levels)
        return self.flow.log_prob(v) + (log_slope - per_level).sum(1)


# ---------------------------------------------------------------------------------------------
# Training
# ---------------------------------------------------------------------------------------------


class FlowLearner:
    """Adam on a flow's loss; `kept` holds the weights to keep: their average, if there is one."""

    def __init__(self, model: RealNVP | ImageRealNVP, config: FlowLossConfig, steps: int):
        self.model, self.config = model, config
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=config.lr, eps=config.adam_eps, weight_decay=config.weight_decay
        )
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
            self.optimizer, T_max=max(steps, 1), eta_min=config.final_lr
        )
        self.average = (
            AveragedModel(model, multi_avg_fn=warm_average(config.ema)) if config.ema else None
        )

    @property
    def kept(self) -> RealNVP | ImageRealNVP:
        """A copy of the model with the weights that sampling and scoring should use."""
        model = self.model if self.average is None else self.average.module
        return cast("RealNVP | ImageRealNVP", copy.deepcopy(model).eval())

    def update(self, x: Tensor) -> dict[str, Tensor]:
        """One step on a batch, points (B, D) or images (B, C, H, W) as the model takes them."""
        losses = self.model.loss(x)
        loss = losses.loss
        if self.config.l2:
            weights = (p for p in self.model.parameters() if p.dim() == 2)
            loss = loss + self.config.l2 * sum(w.square().sum() for w in weights)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.config.clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        self.optimizer.step()
        self.schedule.step()
        if self.average is not None:
            self.average.update_parameters(self.model)
        return {name: value.detach() for name, value in losses._asdict().items()}

    def state_dict(self) -> dict:
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
        }
        return state if self.average is None else {**state, "average": self.average.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
