"""Posterior of what stands for a picture, given its caption, where all that fit are listed.

A prior of DALL.E 2 draws the embedding of a picture for a caption. In the micro-world the pictures
that fit a caption are known and equally likely, so with any encoder the embedding is one of a list,
and everything about it is a sum over this list:

    world = ListedCaptions(CaptionedScenes())
    images = torch.randn(len(world.cells), 8)        # (N, D): an embedding of each picture
    which, picture = world.draw(256, generator)      # captions and pictures that fit, by number
    exact = world.posterior(which, images)           # of the embedding, given each caption
    x_t, log_snr = torch.randn(256, 8), torch.zeros(256)
    exact.denoise(x_t, log_snr)                      # E[z | x_t, caption], (256, D)
    exact.variance(x_t, log_snr)                     # least squared error there, (256,)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from generative.known.captioned_scenes import CaptionedScenes
from generative.known.captions import fitting
from generative.known.scenes import CELLS, CONTENTS, draw
from generative.training.checks import checked
from generative.training.ranges import CountOrZero

__all__ = ["ListedCaptions", "ListedPosterior"]

CHUNK = 256
"""Captions whose lists are in memory at a time."""


@dataclass(frozen=True, eq=False)
class ListedPosterior:
    """Vectors z, each equally likely to be any of its own list of points.

    Args:
        points: (N, D), float64; those that the lists are made of.
        rows: the lists, int64 (B, K): numbers of points, -1 where a list is shorter.
    Raises:
        ValueError: a list is empty, or names a point that is not there.
    """

    points: Tensor
    rows: Tensor

    def __post_init__(self) -> None:
        if self.points.ndim != 2 or self.rows.ndim != 2:
            raise ValueError(
                f"got points {tuple(self.points.shape)} and rows {tuple(self.rows.shape)}; give "
                "(N, D) and (B, K)"
            )
        if len(self.rows) and not bool((self.rows >= 0).any(1).all()):
            raise ValueError("a list has no points; give at least one to each row")
        if self.rows.numel() and int(self.rows.max()) >= len(self.points):
            raise ValueError(
                f"a list names point {int(self.rows.max())}, and there are {len(self.points)}"
            )

    @property
    def counts(self) -> Tensor:
        """Length of each list, int64 (B,)."""
        return (self.rows >= 0).sum(1)

    def draw(self, generator: torch.Generator | None = None) -> Tensor:
        """Draw z of each list, (B, D)."""
        return self.points[_choose(self.rows, self.counts, generator)]

    def denoise(self, x: Tensor, log_snr: Tensor) -> Tensor:
        """E[z | x_t] for x_t = signal z + noise eps at log_snr (B,); float64 (B, D).

        A softmax over the list weighs its points by exp(-|x_t - signal z|^2 / (2 noise^2)).
        """
        return self._moments(x, log_snr)[0]

    def variance(self, x: Tensor, log_snr: Tensor) -> Tensor:
        """Trace of the covariance of z given x_t, float64 (B,): E|z - E[z | x_t]|^2, which no
        estimate's squared error is below in the mean."""
        return self._moments(x, log_snr)[1]

    def _moments(self, x: Tensor, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        if x.shape != (len(self.rows), self.points.shape[1]) or log_snr.shape != x.shape[:1]:
            raise ValueError(
                f"got x {tuple(x.shape)} and log_snr {tuple(log_snr.shape)}; give "
                f"({len(self.rows)}, {self.points.shape[1]}) and ({len(self.rows)},), a row for "
                "each list"
            )
        means, spreads = [x.new_empty(0, x.shape[1]).double()], [x.new_empty(0).double()]
        chunks = zip(
            *(part.split(CHUNK) for part in (x.double(), log_snr.double(), self.rows)), strict=True
        )
        for x_t, level, rows in chunks:
            z = self.points.double()[rows.clamp_min(0)]
            signal, noise = (rate[:, None] for rate in _rates(level))
            distance = (x_t[:, None] - signal[..., None] * z).square().sum(2)
            log_p = (-0.5 * distance / noise.square()).masked_fill(rows < 0, -math.inf)
            p = log_p.softmax(1)[..., None]
            mean = (p * z).sum(1)
            means.append(mean)
            spreads.append((p * (z - mean[:, None]).square()).sum((1, 2)))
        return torch.cat(means), torch.cat(spreads)


class ListedCaptions:
    """All captions of a world without signs by number, with all pictures that fit each.

    Args:
        world: its captions and their probabilities.
    Raises:
        ValueError: the world has signs, of which pictures have too many letters to be numbered.
    """

    def __init__(self, world: CaptionedScenes):
        if "sign" in world.weights:
            raise ValueError("the mix has signs; give it a weight of 0 for them")
        self.world, self.captions = world, world.captions
        self.cells = world.pictures()[0]
        """Scenes that are drawn, int64 (N, 9)."""
        log_prior = [world.log_prior(text) for text in self.captions]
        self.probabilities = torch.tensor(log_prior, dtype=torch.float64).exp()
        """Probability of each caption, (C,)."""
        known, order = _numbers(self.cells).sort()
        lists = [
            order[torch.searchsorted(known, _numbers(fitting(text)))] for text in self.captions
        ]
        self.rows = torch.nn.utils.rnn.pad_sequence(lists, batch_first=True, padding_value=-1)
        """Pictures that fit each caption, int64 (C, K), filled up with -1."""
        self._counts = (self.rows >= 0).sum(1)

    def __repr__(self) -> str:
        return f"ListedCaptions({len(self.captions):,} captions, {len(self.cells):,} pictures)"

    def pictures(self, rows: Tensor) -> Tensor:
        """Pictures by number, float32 (n, 3, H, W) in [0, 1]."""
        return draw(self.cells[rows], self.world.border)

    @checked
    def draw(
        self, n: CountOrZero, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draw n captions and a picture that fits each, both by number, int64 (n,)."""
        u = torch.rand(n, generator=generator, dtype=torch.float64)
        bounds = self.probabilities.cumsum(0)
        which = torch.searchsorted(bounds[:-1], u * bounds[-1], right=True)
        return which, _choose(self.rows[which], self._counts[which], generator)

    def posterior(self, which: Tensor, points: Tensor) -> ListedPosterior:
        """Law of the point of a picture, given each of some captions.

        Args:
            which: captions by number, int64 (B,).
            points: (N, D), what stands for each picture, such as its embedding.
        Raises:
            ValueError: there are not as many points as pictures.
        """
        if len(points) != len(self.cells):
            raise ValueError(
                f"got {len(points)} points for {len(self.cells)} pictures; give one for each"
            )
        return ListedPosterior(points, self.rows[which])


def _numbers(cells: Tensor) -> Tensor:
    """A number for each scene (n, 9), int64 (n,)."""
    return (cells * CONTENTS ** torch.arange(CELLS, device=cells.device)).sum(1)


def _choose(rows: Tensor, counts: Tensor, generator: torch.Generator | None) -> Tensor:
    """One entry of each row (B, K), evenly among its first counts (B,)."""
    u = torch.rand(len(rows), generator=generator, dtype=torch.float64).to(rows.device)
    place = (u * counts).long().clamp(max=counts - 1)
    return rows.gather(1, place[:, None])[:, 0]


def _rates(log_snr: Tensor) -> tuple[Tensor, Tensor]:
    """Signal and noise rate, of which the squares sum to 1."""
    return log_snr.sigmoid().sqrt(), (-log_snr).sigmoid().sqrt()
