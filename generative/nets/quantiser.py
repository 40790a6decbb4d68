"""Quantisers: vectors are replaced by codes, whose gradient passes straight through.

    quantiser = VectorQuantiser(QuantiserConfig(num_codes=64, dim=16))
    found = quantiser(z)                    # z (..., 16)
    found.codes                             # int64 (...), the nearest of 64 vectors
    found.q                                 # (..., 16), these vectors; d loss / d z = d loss / d q
    quantiser.observe(z, found.codes)       # after a training step: averages, unused codes
    quantiser.lookup(codes)                 # codes -> vectors, to decode what a prior has drawn

Quantisation is what makes the latent space of a VQ-VAE a grid of words (van den Oord et al. 2017).
`FSQ` has the same verbs and no list that could collapse (Mentzer et al. 2024).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.nets.config import FSQConfig, QuantiserConfig
from generative.training.checks import at_least_float32, check_dtype

__all__ = [
    "FSQ",
    "FSQConfig",
    "Quantised",
    "QuantiserConfig",
    "VectorQuantiser",
    "count_codes",
    "make_quantiser",
    "perplexity",
]

MAX_DISTANCES = 2**24
"""Distances that are computed at once, at most, unless there are more codes."""


class Quantised(NamedTuple):
    """Result of a quantiser."""

    q: Tensor
    """The vectors of the codes, (..., dim). Their gradient is handed to what was replaced."""
    codes: Tensor
    """int64 (...)."""
    loss: Tensor
    """Scalar that pulls codes and vectors together; 0 where there is nothing to pull."""


class VectorQuantiser(nn.Module):
    """Replaces each vector by the nearest of a list; by the cosine, both sides have length 1.

    The list is a parameter where it learns by a loss, and a buffer where it is averaged.

    Args:
        config: see `QuantiserConfig`.
    """

    counts: Tensor
    sums: Tensor
    unused: Tensor

    def __init__(self, config: QuantiserConfig):
        super().__init__()
        self.config, self.num_codes, self.dim = config, config.num_codes, config.dim
        vectors = torch.randn(config.num_codes, config.dim) / config.dim**0.5
        if config.learning == "loss":
            self.vectors = nn.Parameter(vectors)
        else:
            self.register_buffer("vectors", vectors)
            self.register_buffer("counts", torch.zeros(config.num_codes))
            self.register_buffer("sums", torch.zeros(config.num_codes, config.dim))
        if config.revive:
            # All count as unused at first, so that the first batch says where codes begin.
            unused = torch.full((config.num_codes,), config.revive, dtype=torch.int64)
            self.register_buffer("unused", unused)

    def forward(self, z: Tensor) -> Quantised:
        """z (..., dim) -> the nearest vectors, their numbers, and the loss.

        The loss is beta |z - sg(e)|^2, and |sg(z) - e|^2 where the list learns by it, each a mean
        over all numbers (van den Oord et al. 2017, equation 3). What is decoded from q has no
        gradient in the list.
        """
        z = self._compared(check_dtype(z, "vectors", self))
        codes = self._nearest(z)
        e = F.embedding(codes, self.table)
        loss = self.config.beta * F.mse_loss(z, e.detach())
        if self.config.learning == "loss":
            loss = loss + F.mse_loss(e, z.detach())
        # The difference is exactly 0, so q is bit for bit what `lookup` gives.
        return Quantised(e.detach() + (z - z.detach()), codes, loss)

    @property
    def table(self) -> Tensor:
        """The vectors as they are compared, (num_codes, dim)."""
        return self._compared(self.vectors)

    def encode(self, z: Tensor) -> Tensor:
        """Vectors (..., dim) -> the numbers of the nearest in the list, int64 (...)."""
        return self._nearest(self._compared(check_dtype(z, "vectors", self)))

    def lookup(self, codes: Tensor) -> Tensor:
        """Codes, int64 (...) -> their vectors (..., dim)."""
        return F.embedding(codes, self.table)

    @torch.no_grad()
    def observe(self, z: Tensor, codes: Tensor, revive: bool = True) -> None:
        """Take in what a training step has quantised: move averages, replace unused codes.

        A code that was not used for `config.revive` steps is put on a vector of this batch, drawn
        in proportion to its squared distance from its code, as k-means++ places its centres
        (Arthur & Vassilvitskii 2007). Drawn evenly, most would land on what there is most of, and
        that has a code already.

        Args:
            z, codes: vectors (..., dim) and what `forward` made of them.
            revive: False near the end of training, so that what is decoded can settle.
        """
        z, codes = self._compared(z).reshape(-1, self.dim), codes.flatten()
        num = count_codes(codes, self.num_codes)
        if self.config.learning == "average":
            weight = 1 - self.config.decay
            self.counts.lerp_(num.to(z.dtype), weight)
            self.sums.lerp_(torch.zeros_like(self.sums).index_add_(0, codes, z), weight)
            seen = self.counts > 1e-12
            self.vectors[seen] = self.sums[seen] / self.counts[seen, None]
        if not self.config.revive:
            return
        self.unused.add_(1).masked_fill_(num > 0, 0)
        dead = (self.unused >= self.config.revive).nonzero()[:, 0]
        away = (z - F.embedding(codes, self.table)).to(at_least_float32(z)).square().sum(1)
        # Vectors that are not finite are left for the loss to tell.
        if not revive or not len(dead) or not len(z) or not bool(away.isfinite().all()):
            return
        rows = torch.multinomial(away + 1e-12, len(dead), replacement=len(dead) > len(z))
        self.vectors[dead] = z[rows]
        self.unused[dead] = 0
        if self.config.learning == "average":
            self.counts[dead], self.sums[dead] = 0, 0

    def _compared(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=-1) if self.config.distance == "cosine" else x

    @torch.no_grad()
    def _nearest(self, z: Tensor) -> Tensor:
        table, rows = self.table, max(1, MAX_DISTANCES // self.num_codes)
        lengths = table.square().sum(1)
        # |z - e|^2 without |z|^2, which is the same for all codes.
        parts = [
            (lengths - 2 * part @ table.t()).argmin(1)
            for part in z.reshape(-1, self.dim).split(rows)
        ]
        return torch.cat(parts).view(z.shape[:-1])


class FSQ(nn.Module):
    """Rounds each number of a vector to one of its levels, within bounds that a tanh sets.

    Finite scalar quantisation (Mentzer et al. 2024, section 3): no list, no loss, nothing to
    revive; the code is the number whose digits are the levels.

    Args:
        config: see `FSQConfig`.
    """

    levels: Tensor
    places: Tensor
    steps: Tensor

    def __init__(self, config: FSQConfig):
        super().__init__()
        self.config, self.num_codes, self.dim = config, config.num_codes, config.dim
        levels = torch.tensor(config.levels)
        self.register_buffer("levels", levels, persistent=False)
        self.register_buffer("places", levels.cumprod(0) // levels, persistent=False)
        # Of the type in which the model computes, so that `lookup` is too.
        steps = (levels // 2).to(torch.get_default_dtype())
        self.register_buffer("steps", steps, persistent=False)

    def forward(self, z: Tensor) -> Quantised:
        """z (..., dim) -> the rounded vectors within [-1, 1], their numbers, and no loss."""
        bounded = self._bounded(check_dtype(z, "vectors", self))
        q = (bounded.detach().round() + (bounded - bounded.detach())) / self.steps
        return Quantised(q, self._number(bounded), z.new_zeros(()))

    def encode(self, z: Tensor) -> Tensor:
        """Vectors (..., dim) -> codes, int64 (...)."""
        return self._number(self._bounded(check_dtype(z, "vectors", self)))

    def lookup(self, codes: Tensor) -> Tensor:
        """Codes, int64 (...) -> their vectors (..., dim)."""
        return (codes[..., None] // self.places % self.levels - self.levels // 2) / self.steps

    def _bounded(self, z: Tensor) -> Tensor:
        """Squeeze each number so that rounding it gives one of its levels."""
        levels = self.levels.to(z.dtype)
        half = (levels - 1) * (1 + 1e-3) / 2
        # An even number of levels has none in the middle.
        offset = (1 - levels % 2) / 2
        return (z + (offset / half).atanh()).tanh() * half - offset

    def _number(self, bounded: Tensor) -> Tensor:
        return ((bounded.detach().round().long() + self.levels // 2) * self.places).sum(-1)


def make_quantiser(config: QuantiserConfig | FSQConfig) -> VectorQuantiser | FSQ:
    """The quantiser of these settings."""
    return VectorQuantiser(config) if isinstance(config, QuantiserConfig) else FSQ(config)


def count_codes(codes: Tensor, num_codes: int) -> Tensor:
    """Count of each code, int64 (...) -> int64 (num_codes,)."""
    return torch.bincount(codes.flatten(), minlength=num_codes)


def perplexity(counts: Tensor) -> Tensor:
    """exp of the entropy of the shares of counts (num_codes,): how many codes are used, in effect.

    It is the number of codes where all are used alike, and 1 where only one is. That of a batch is
    smaller than that of all data.
    """
    share = counts.double() / counts.sum().clamp_min(1)
    return torch.special.entr(share).sum().exp()
