"""Rows of things of which each has only some, so that they come again more often.

A model of such rows finds out much earlier that it has to look back (Chan et al. 2022), and what it
has to answer to what came before is the same as in even rows:

    rows = draw_things(100, 12, of=8, bursts=True)   # int64 (100, 12), from 0 to 7
    log_prob_of(different=3, length=12, of=8, bursts=True)   # ln p of a row with three things
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["counts", "draw_things", "entropy_of", "log_prob_of", "seen_so_far"]


def draw_things(
    n: int, length: int, of: int, bursts: bool, generator: torch.Generator | None = None
) -> Tensor:
    """n rows of things from 0 to `of` - 1, int64 (n, length), each drawn by itself.

    Args:
        bursts: each row draws from k of the things, k even from 1 to `of`; else from all.
    """
    things = torch.randint(of, (n, length), generator=generator)
    if not bursts:
        return things
    occur = torch.rand(n, of, generator=generator).argsort(1)
    count = torch.randint(1, of + 1, (n, 1), generator=generator)
    place = torch.rand(n, length, generator=generator) * count
    return occur.gather(1, place.long())


def log_prob_of(different: int, length: int, of: int, bursts: bool) -> float:
    """ln p of a row of so many things, of which so many are different, in nats."""
    if not bursts:
        return -length * math.log(of)
    # k of the things hold the different ones with probability C(of - d, k - d) / C(of, k).
    p = sum(
        math.comb(of - different, k - different) / math.comb(of, k) / k**length / of
        for k in range(max(1, different), of + 1)
    )
    return math.log(p)


def counts(of: int, bursts: bool) -> range:
    """Numbers of things that a row may draw from, equally likely."""
    return range(1 if bursts else of, of + 1)


def seen_so_far(k: int, length: int) -> list[list[float]]:
    """P_n(d): probability that d of k things are among the first n, n from 0 to length.

    P_(n+1)(d) = P_n(d) d / k + P_n(d - 1) (k - d + 1) / k.
    """
    rows = [[1.0] + [0.0] * k]
    for _ in range(length):
        old = rows[-1]
        rows.append(
            [old[d] * d / k + (old[d - 1] * (k - d + 1) / k if d else 0.0) for d in range(k + 1)]
        )
    return rows


def entropy_of(length: int, of: int, bursts: bool) -> float:
    """Nats of a row of so many things."""
    sizes = counts(of, bursts)
    return -sum(
        seen_so_far(k, length)[length][d] * log_prob_of(d, length, of, bursts) / len(sizes)
        for k in sizes
        for d in range(1, k + 1)
    )
