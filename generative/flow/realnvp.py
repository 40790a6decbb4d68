"""Real-valued non-volume-preserving flow: couplings, exact density, sampling.

Each coupling changes half of the numbers by a map whose parameters are computed from the other
half, so it is inverted without inverting a network, and its Jacobian is triangular (Dinh,
Sohl-Dickstein & Bengio 2017):

    flow = RealNVP.from_pretrained("runs/realnvp/model")
    flow.log_prob(x)                     # (B, 2) -> (B,), nats
    flow.sample(1000)                    # (1000, 2)

`RealNVP` takes vectors. `ImageRealNVP` puts it behind dequantisation, for small images of few
levels; the paper's multi-scale form for larger ones is a setting of `generative.flow.glow`.
"""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from generative.flow.chain import (
    ActNorm,
    Dequantiser,
    FlowLosses,
    ImageFlowLosses,
    Layer,
    image_flow_losses,
    rational_quadratic,
    standard_normal_log_prob,
)
from generative.flow.config import ImageRealNVPConfig, RealNVPConfig
from generative.nets.embeddings import Waves
from generative.nets.init import glorot_
from generative.training.checks import check_images, check_some, check_vectors, checked, placed
from generative.training.gradients import graph_if_wanted
from generative.training.pretrained import Pretrained
from generative.training.ranges import Count, CountOrZero

__all__ = [
    "AffineCoupling",
    "ImageRealNVP",
    "ImageRealNVPConfig",
    "RealNVP",
    "RealNVPConfig",
    "SplineCoupling",
    "make_mask",
]


# ---------------------------------------------------------------------------------------------
# Couplings
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


class AffineCoupling(nn.Module):
    """z = x where masked, (x - t) exp(-s) elsewhere; s and t see the masked numbers only.

    This is the book's program: two networks, s with tanh at its end, and the direction
    in which data are divided by exp(s). Dinh et al. write the inverse of it.
    """

    mask: Tensor

    def __init__(self, mask: Tensor, config: RealNVPConfig):
        super().__init__()
        # Buffers that the config gives are not saved with the weights.
        mask = mask.to(torch.get_default_dtype())
        self.register_buffer("mask", mask, persistent=False)
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

    def __init__(self, mask: Tensor, config: RealNVPConfig):
        super().__init__()
        kept, changed = mask.nonzero().flatten(), (~mask).nonzero().flatten()
        self.register_buffer("kept", kept, persistent=False)
        self.register_buffer("changed", changed, persistent=False)
        self.bound, self.num_bins = config.bound, config.num_bins
        self.waves = Waves(math.pi / config.bound, config.num_waves)
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
        # In the type of x: see RealNVP.encode.
        weights = {name: w.to(x.dtype) for name, w in self.network.named_parameters()}
        raw = functional_call(self.network, weights, self.waves(x[:, self.kept]))
        raw = raw.unflatten(1, (len(self.changed), -1))
        return rational_quadratic(x[:, self.changed], raw, self.bound, inverse)


def _mlp(in_dim: int, out_dim: int, config: RealNVPConfig) -> nn.Sequential:
    activation = {"relu": nn.ReLU, "silu": nn.SiLU}[config.activation]
    layers: list[nn.Module] = []
    width = in_dim
    for _ in range(config.num_hidden):
        layers += [nn.Linear(width, config.hidden_dim), activation()]
        if config.dropout:
            layers.append(nn.Dropout(config.dropout))
        width = config.hidden_dim
    network = nn.Sequential(*layers, nn.Linear(width, out_dim))
    glorot_(network)
    if config.zero_init:
        nn.init.zeros_(cast("nn.Linear", network[-1]).weight)
    return network


# ---------------------------------------------------------------------------------------------
# The flow
# ---------------------------------------------------------------------------------------------


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
        return self._encode_log_det(check_vectors(x, self.dim, "points", self))

    def encode(self, x: Tensor) -> Tensor:
        """x (B, D) -> z (B, D), standard normal if x is drawn from the model.

        Splines and their networks are computed in float64, here and in `decode`. The way back
        stretches a point a hundredfold at a hard edge, and with it the roundings of networks that
        see a point which is a rounding off; so the only one that is left is that of z.
        """
        x = check_vectors(x, self.dim, "points", self)
        return self._encode_log_det(self._wide(x))[0].to(x)

    def decode(self, z: Tensor) -> Tensor:
        """z (B, D) -> x (B, D), the inverse of `encode`."""
        x = self._wide(check_vectors(z, self.dim, "z", self))
        for layer in self._layers():
            x = layer.decode(x)
        return x.to(z)

    def log_prob(self, x: Tensor) -> Tensor:
        """log density of each point, (B, D) -> (B,), nats."""
        z, log_det = self.encode_log_det(x)
        return standard_normal_log_prob(z) + log_det

    def loss(self, x: Tensor) -> FlowLosses:
        """Mean negative log-likelihood of (B, D)."""
        z, log_det = self.encode_log_det(check_some(x, self))
        latent = -standard_normal_log_prob(z).mean()
        return FlowLosses(latent - log_det.mean(), latent, log_det.mean())

    @checked
    @torch.no_grad()
    def sample(self, n: CountOrZero, generator: torch.Generator | None = None) -> Tensor:
        """n points (n, D): `decode` of standard normal z."""
        return self.decode(torch.randn(n, self.dim, generator=generator, **placed(self)))

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Set every `ActNorm` from a first batch (B, D); without them there is nothing to do."""
        x = check_some(check_vectors(x, self.dim, "points", self), self)
        for layer in reversed(self._layers()):
            if isinstance(layer, ActNorm):
                layer.initialise(x)
            x, _ = layer.encode(x)

    def _encode_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        log_det = x.new_zeros(len(x))
        for layer in reversed(self._layers()):
            x, part = layer.encode(x)
            log_det = log_det + part
        return x, log_det

    def _wide(self, x: Tensor) -> Tensor:
        return x.double() if self.config.coupling == "spline" else x

    def _layers(self) -> list[Layer]:
        return cast("list[Layer]", list(self.layers))


class ImageRealNVP(Pretrained, nn.Module):
    """Flow on images (B, C, H, W) in [0, 1] whose pixels have few levels; see `Dequantiser`."""

    config_class = ImageRealNVPConfig
    capabilities: ClassVar[frozenset[str]] = frozenset(
        {"loss", "sample", "bound", "encode", "decode"}
    )

    def __init__(self, config: ImageRealNVPConfig | None = None):
        super().__init__()
        self.config = config = config or ImageRealNVPConfig()
        self.flow = RealNVP(config.flow)
        self.dequantiser = Dequantiser(config.levels, config.margin)

    def loss(self, x: Tensor, generator: torch.Generator | None = None) -> ImageFlowLosses:
        """Mean negative log-likelihood of images (B, C, H, W), with fresh noise."""
        x = check_some(self._check(x), self)
        log_prob = self._noisy_log_prob(self.dequantiser.noisy(x, generator))
        return image_flow_losses(log_prob, self.flow.dim)

    @graph_if_wanted
    @checked
    def bound(
        self, x: Tensor, num_draws: Count = 16, generator: torch.Generator | None = None
    ) -> Tensor:
        """Lower bound of the log probability of each image, (B, C, H, W) -> (B,), nats.

        The average of log p over `num_draws` draws of the noise. Divide by -log(2) * C * H * W for
        bits per dimension.
        """
        x = self._check(x)
        noisy = (self.dequantiser.noisy(x, generator) for _ in range(num_draws))
        return torch.stack([self._noisy_log_prob(y) for y in noisy]).mean(0)

    def encode(self, x: Tensor) -> Tensor:
        """Images -> z (B, C*H*W), every pixel taken in the middle of its level."""
        v, _ = self.dequantiser.squash(self.dequantiser.centred(self._check(x)))
        return self.flow.encode(v.flatten(1))

    def decode(self, z: Tensor) -> Tensor:
        """z (B, C*H*W) -> images whose pixels are levels; of the z of an image, that image."""
        check_vectors(z, self.flow.dim, "z", self)
        v = self.flow.decode(z).unflatten(1, self.config.flow.shape)
        return self.dequantiser.images(v)

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n images (n, C, H, W) whose pixels are levels, in [0, 1]."""
        v = self.flow.sample(n, generator).unflatten(1, self.config.flow.shape)
        return self.dequantiser.images(v)

    def initialise(self, x: Tensor) -> None:
        """Set every `ActNorm` from a first batch of images."""
        v, _ = self.dequantiser.squash(self.dequantiser.noisy(self._check(x)))
        self.flow.initialise(v.flatten(1))

    def _check(self, x: Tensor) -> Tensor:
        return check_images(x, self.config.flow.shape, self)

    def _noisy_log_prob(self, y: Tensor) -> Tensor:
        """log density of level + noise, given y = (level + noise) / levels; (B,), nats."""
        v, log_det = self.dequantiser.squash(y)
        return self.flow.log_prob(v.flatten(1)) + log_det
