"""Random numbers for many lanes: from one generator, or from one for each lane.

With a generator of its own, a lane's dream depends on nothing but that lane's seed; one generator
for all of them is faster.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["Random", "dropout_mask", "gumbel", "normal", "uniform"]

Random = torch.Generator | Sequence[np.random.Generator] | None
"""A generator for all lanes (None: torch's own), or one of NumPy for each lane."""


def uniform(n: int, shape: tuple[int, ...], random: Random, kind: dict[str, Any]) -> Tensor:
    """Uniform numbers in [0, 1), (n, *shape); `kind` is their device and dtype."""
    if random is None or isinstance(random, torch.Generator):
        return torch.rand((n, *shape), generator=random, **kind)
    return _stacked([rng.random(shape) for rng in random], kind)


def normal(n: int, shape: tuple[int, ...], random: Random, kind: dict[str, Any]) -> Tensor:
    """Standard normal numbers, (n, *shape)."""
    if random is None or isinstance(random, torch.Generator):
        return torch.randn((n, *shape), generator=random, **kind)
    return _stacked([rng.standard_normal(shape) for rng in random], kind)


def gumbel(n: int, shape: tuple[int, ...], random: Random, kind: dict[str, Any]) -> Tensor:
    """Standard Gumbel numbers, (n, *shape)."""
    if random is None or isinstance(random, torch.Generator):
        u = uniform(n, shape, random, kind).clamp_min(torch.finfo(kind["dtype"]).tiny)
        return -(-u.log()).log()
    return _stacked([rng.gumbel(size=shape) for rng in random], kind)


def dropout_mask(n: int, dim: int, share: float, random: Random, kind: dict[str, Any]) -> Tensor:
    """Factors of each lane's h for a whole dream, (n, dim): 0, or 1 / (1 - share)."""
    keep = 1.0 - share
    if random is None or isinstance(random, torch.Generator):
        return (uniform(n, (dim,), random, kind) < keep).to(kind["dtype"]) / keep
    return _stacked([(rng.random(dim) < keep) / keep for rng in random], kind)


def _stacked(rows: list[Any], kind: dict[str, Any]) -> Tensor:
    return torch.from_numpy(np.asarray(rows, np.float32)).to(**kind)
