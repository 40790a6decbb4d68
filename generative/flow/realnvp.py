"""Couplings of vectors: RealNVP's affine ones and monotone splines.

Each coupling changes half of the numbers by a map whose parameters are computed from the other
half, so it is inverted without inverting a network, and its Jacobian is triangular (Dinh,
Sohl-Dickstein & Bengio 2017). `RealNVPConfig().build()` makes a `Chain` of them:

    flow = Chain.from_pretrained("runs/realnvp/model")
    flow.log_prob(x)                     # (B, 2) -> (B,), nats
    flow.sample(1000)                    # (1000, 2)

With `ImageRealNVPConfig` the chain stands behind dequantisation, for small images of few levels;
the paper's multi-scale form for larger ones is a setting of `generative.flow.glow`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import ClassVar, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from generative.flow.chain import ActNorm
from generative.flow.config import RealNVPConfig
from generative.flow.splines import rational_quadratic
from generative.nets.embeddings import Waves
from generative.nets.init import glorot_

__all__ = ["AffineCoupling", "SplineCoupling", "coupling_layers", "make_mask"]


def make_mask(kind: str, shape: tuple[int, ...]) -> Tensor:
    """Mask that is True for the numbers that a coupling leaves unchanged, (D,) or (C*H*W,).

    alternate: every second number. checkerboard: every second pixel, like black squares. rows,
    columns: every second line of pixels, which are the channels of a squeezed image (Dinh et al.
    2017, figure 3).
    """
    # Counted by NumPy: it is a pattern of places, and sizes of networks depend on it.
    if kind == "alternate":
        return torch.from_numpy(np.arange(math.prod(shape)) % 2 == 1)
    c, h, w = shape
    row, column = np.indices((h, w))
    line = {"checkerboard": row + column, "rows": row, "columns": column}[kind]
    return torch.from_numpy(line % 2 == 1).expand(c, h, w).flatten()


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

    wide: ClassVar[bool] = True
    """A chain with splines is inverted in float64, for the reason that `Chain.encode` gives."""
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
        # In the type of x: see Chain.encode.
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


def coupling_layers(config: RealNVPConfig) -> Iterator[nn.Module]:
    """The layers of a RealNVP, from latent to data."""
    for i in range(config.num_couplings):
        mask = make_mask(config.masks[(i // 2) % len(config.masks)], config.shape)
        kind = AffineCoupling if config.coupling == "affine" else SplineCoupling
        yield kind(mask if i % 2 == 0 else ~mask, config)
        if config.actnorm:
            yield ActNorm(math.prod(config.shape))
