"""A flow as a chain of layers: the change of variables, the layers' protocol, `ActNorm`.

A flow turns data x into z of the same size, by a chain of layers that are easy to invert, and so
has an exact density:

    log p(x) = log N(f(x); 0, I) + log |det df/dx|

Every layer has `encode(x)`, from data to latent, which gives z and log |det dz/dx| (B,), and its
inverse `decode(z)`. Any list of layers is a flow:

    flow = Chain([ActNorm(2), AffineCoupling(mask, config), ActNorm(2)], (2,))
    flow.log_prob(x)                     # (B, 2) -> (B,), nats
    flow.sample(1000)                    # (1000, 2)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import ClassVar, NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn

from generative.flow.config import RealNVPConfig
from generative.training.checks import check_batch, check_some, check_vectors, checked, placed
from generative.training.pretrained import Pretrained
from generative.training.ranges import CountOrZero

__all__ = ["ActNorm", "Chain", "Flatten", "FlowLosses", "FlowLayer", "standard_normal_log_prob"]


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


# ---------------------------------------------------------------------------------------------
# Layers
# ---------------------------------------------------------------------------------------------


class FlowLayer(Protocol):
    """Part of a chain.

    One with `wide` set is inverted in float64.
    """

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


class Flatten(nn.Module):
    """Images (B, C, H, W) as vectors (B, C*H*W); as the last of a chain, what data enter by."""

    def __init__(self, shape: tuple[int, ...]):
        super().__init__()
        self.shape = shape

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """log |det| is 0."""
        return x.flatten(1), x.new_zeros(len(x))

    def decode(self, z: Tensor) -> Tensor:
        """The inverse."""
        return z.unflatten(1, self.shape)


# ---------------------------------------------------------------------------------------------
# The flow
# ---------------------------------------------------------------------------------------------


class Chain(Pretrained, nn.Module):
    """Flow of any layers that ends in vectors z (B, D).

    `RealNVPConfig().build()` is one whose config is saved with it, with 2,383,896 parameters at the
    book's sizes. A chain that is put together by hand is saved by its weights: put it together
    again and call `load_weights(folder)`.

    Args:
        layers: in the order from latent to data, as in the book.
        shape: of an example, (D,) or (C, H, W).
        config: the recipe of the chain, if it has one.
    """

    builds: ClassVar[Mapping[str, type]] = {"RealNVP": RealNVPConfig}

    def __init__(
        self,
        layers: Iterable[nn.Module],
        shape: tuple[int, ...],
        config: RealNVPConfig | None = None,
    ):
        super().__init__()
        self.config, self.shape, self.dim = config, shape, math.prod(shape)
        self.layers = nn.ModuleList(layers)

    def encode_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, *shape) -> z (B, D) and log |det dz/dx| (B,).

        Raises:
            ValueError: another shape, or integers.
        """
        return self._encode_log_det(self._check(x))

    def encode(self, x: Tensor) -> Tensor:
        """x (B, *shape) -> z (B, D), standard normal if x is drawn from the model.

        Splines and their networks are computed in float64, here and in `decode`. The way back
        stretches a point a hundredfold at a hard edge, and with it the roundings of networks that
        see a point which is a rounding off; so the only one that is left is that of z.
        """
        x = self._check(x)
        return self._encode_log_det(self._wide(x))[0].to(x)

    def decode(self, z: Tensor) -> Tensor:
        """z (B, D) -> x (B, *shape), the inverse of `encode`."""
        x = self._wide(check_vectors(z, self.dim, "z", self))
        for layer in self._layers():
            x = layer.decode(x)
        return x.to(z)

    def log_prob(self, x: Tensor) -> Tensor:
        """log density of each example, (B, *shape) -> (B,), nats."""
        z, log_det = self.encode_log_det(x)
        return standard_normal_log_prob(z) + log_det

    def loss(self, x: Tensor) -> FlowLosses:
        """Mean negative log-likelihood of (B, *shape)."""
        z, log_det = self.encode_log_det(check_some(x, self))
        latent = -standard_normal_log_prob(z).mean()
        return FlowLosses(latent - log_det.mean(), latent, log_det.mean())

    @checked
    @torch.no_grad()
    def sample(self, n: CountOrZero, generator: torch.Generator | None = None) -> Tensor:
        """n examples (n, *shape): `decode` of standard normal z."""
        return self.decode(torch.randn(n, self.dim, generator=generator, **placed(self)))

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Set every layer that has an `initialise`, such as `ActNorm`, from a first batch."""
        x = check_some(self._check(x), self)
        for layer in reversed(self._layers()):
            initialise = getattr(layer, "initialise", None)
            if initialise is not None:
                initialise(x)
            x, _ = layer.encode(x)

    def _check(self, x: Tensor) -> Tensor:
        if len(self.shape) == 1:
            return check_vectors(x, self.dim, "points", self)
        return check_batch(x, self.shape, "examples", self)

    def _encode_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        log_det = x.new_zeros(len(x))
        for layer in reversed(self._layers()):
            x, part = layer.encode(x)
            log_det = log_det + part
        return x, log_det

    def _wide(self, x: Tensor) -> Tensor:
        is_wide = any(getattr(layer, "wide", False) for layer in self.layers)
        return x.double() if is_wide else x

    def _layers(self) -> list[FlowLayer]:
        return cast("list[FlowLayer]", list(self.layers))
