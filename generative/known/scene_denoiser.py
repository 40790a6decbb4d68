"""The best denoiser of pictures there is, where all pictures are listed: with a caption or without.

Given x_t, the picture is one of those in the list, each with a known probability. Their mean is the
estimate on which no network can improve, and their variance the least loss.

    exact = SceneDenoiser.pairs()                          # of all pictures of two objects
    told = SceneDenoiser.of_caption("three red discs")     # of the 84 that fit
    noise, data = told(x_t, log_snr)                       # of pictures in [-1, 1]
    each = exact.given(["three red discs", ""])            # a caption for each row, "" for none
    floor(exact, -4.0, n=48, generator=generator)          # least loss at a noise level

A picture is nine cells of 25 templates, so nine additions of the distances of x_t to the templates
give its distance to a picture.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from generative.known.captions import fitting
from generative.known.scenes import CELL, CELLS, EMPTY, SIDE, draw, templates
from generative.known.scenes import pairs as all_pairs
from generative.training.checks import checked
from generative.training.ranges import Count, Finite, Positive, Size

__all__ = [
    "CellPosterior",
    "Floor",
    "SceneDenoiser",
    "by_caption",
    "cell_posterior",
    "floor",
    "small_posterior",
]

Denoise: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""x_t (B, ...) and log_snr (B,) -> estimates of noise and data."""

CHUNK = 2**21
"""Numbers in the largest temporary array."""


@dataclass(frozen=True, eq=False)
class SceneDenoiser:
    """E[noise | x_t] and E[data | x_t], for pictures of a list.

    Args:
        cells: scenes of the list, int64 (K, 9).
        log_weights: ln of their probabilities, normalised, (K,).
        scale, shift: pixels v in [0, 1] are scale * v + shift; with 2 and -1 they are in [-1, 1].
        border: black pixels around a scene.
    Raises:
        ValueError: the list is empty, or has no weight for each scene.
    """

    cells: Tensor
    log_weights: Tensor
    scale: float = 2.0
    shift: float = -1.0
    border: int = 0

    def __post_init__(self) -> None:
        if not len(self.cells) or self.log_weights.shape != self.cells.shape[:1]:
            raise ValueError(
                f"got cells {tuple(self.cells.shape)} and log_weights "
                f"{tuple(self.log_weights.shape)}; give at least one scene, (K, {CELLS}), and a "
                "weight for each, (K,)"
            )

    @classmethod
    def evenly(
        cls, cells: Tensor, scale: float = 2.0, shift: float = -1.0, border: int = 0
    ) -> SceneDenoiser:
        """For scenes (K, 9) that are equally likely."""
        even = torch.full((len(cells),), -math.log(max(1, len(cells))), dtype=torch.float64)
        return cls(cells, even, scale, shift, border)

    @classmethod
    def pairs(cls, scale: float = 2.0, shift: float = -1.0, border: int = 0) -> SceneDenoiser:
        """For all 20,736 scenes of two objects, equally likely."""
        return cls.evenly(all_pairs(), scale, shift, border)

    @classmethod
    def of_caption(
        cls, caption: str, scale: float = 2.0, shift: float = -1.0, border: int = 0
    ) -> SceneDenoiser:
        """For the scenes that fit a caption, equally likely.

        Raises:
            ValueError: it is no caption, see `generative.known.captions.parse`.
        """
        return cls.evenly(fitting(caption), scale, shift, border)

    def told(self, caption: str) -> SceneDenoiser:
        """The same form of pictures for a caption, or this list for an empty one.

        Raises:
            ValueError: it is no caption, see `generative.known.captions.parse`.
        """
        if not caption:
            return self
        told = SceneDenoiser.of_caption(caption, self.scale, self.shift, self.border)
        return told.to(self.cells.device)

    def given(self, captions: Sequence[str]) -> Denoise:
        """A denoiser of batches with a caption for each row, "" for none.

        Raises:
            ValueError: a text is no caption, see `generative.known.captions.parse`.
        """
        return by_caption(captions, self.told)

    def to(self, device: torch.device | str) -> SceneDenoiser:
        """The same on a device."""
        return replace(self, cells=self.cells.to(device), log_weights=self.log_weights.to(device))

    @property
    def side(self) -> int:
        """Pixels on a side of a picture."""
        return SIDE * CELL + 2 * self.border

    def pictures(self, rows: Tensor) -> Tensor:
        """Pictures of these rows of the list, float32 (n, 3, H, W), scaled and shifted."""
        return self.scale * draw(self.cells[rows], self.border) + self.shift

    # -----------------------------------------------------------------------------------------

    def __call__(self, x: Tensor, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        """x_t (B, 3, H, W) and log_snr (B,) -> (noise, data), of the shape and type of x_t."""
        data = self._picture(self.cell_posterior(x, log_snr))
        signal, noise = _rates(log_snr.double(), 4)
        return ((x.double() - signal * data) / noise).to(x), data.to(x)

    def posterior(self, x: Tensor, log_snr: Tensor) -> Tensor:
        """Probability of each picture of the list given x_t (B, 3, H, W); float64 (B, K).

        Raises:
            ValueError: x_t are of another shape than the pictures.
        """
        return torch.cat([self._weights(*both) for both in self._chunks(x, log_snr)])

    def cell_posterior(self, x: Tensor, log_snr: Tensor) -> Tensor:
        """Probability of what each cell holds given x_t; float64 (B, 9, 51), letters last.

        Raises:
            ValueError: x_t are of another shape than the pictures.
        """
        num = len(self._tiles)
        parts = []
        for both in self._chunks(x, log_snr):
            weights = self._weights(*both)
            found = weights.new_zeros(len(weights), CELLS, num)
            for place, things in enumerate(self.cells.T):
                found[:, place].index_add_(1, things, weights)
            parts.append(found)
        return torch.cat(parts)

    def data_variance(self, x: Tensor, log_snr: Tensor) -> Tensor:
        """Trace of the covariance of the data given x_t (B, 3, H, W); float64 (B,)."""
        p, tiles = self.cell_posterior(x, log_snr), self._tiles
        second = (p @ tiles.square().sum(1)).sum(1)
        return (second - (p @ tiles).square().sum((1, 2))).clamp(min=0)

    @property
    def _tiles(self) -> Tensor:
        """Templates as pictures have them, float64 (51, 192)."""
        tiles = templates(letters=True).flatten(1).double().to(self.cells.device)
        return self.scale * tiles + self.shift

    def _chunks(self, x: Tensor, log_snr: Tensor) -> zip[tuple[Tensor, Tensor]]:
        if x.ndim != 4 or tuple(x.shape[1:]) != (3, self.side, self.side):
            raise ValueError(
                f"x_t are {tuple(x.shape)}; pictures with a border of {self.border} are "
                f"(B, 3, {self.side}, {self.side})"
            )
        rows = max(1, CHUNK // len(self.cells))
        return zip(x.double().split(rows), log_snr.double().split(rows), strict=True)

    def _weights(self, x: Tensor, log_snr: Tensor) -> Tensor:
        """Posterior of the list (b, K): softmax of ln weight + (a x_t x - a^2 |x|^2 / 2) / s^2."""
        signal, noise = _rates(log_snr, 3)
        tiles = self._tiles
        inner = x[..., self.border : self.side - self.border, self.border : self.side - self.border]
        inner = inner.unflatten(3, (SIDE, CELL)).unflatten(2, (SIDE, CELL))
        inner = inner.permute(0, 2, 4, 1, 3, 5).reshape(-1, CELLS, tiles.shape[1])
        fit = signal * (inner @ tiles.T) - 0.5 * signal.square() * tiles.square().sum(1)
        fit = fit / noise.square()
        total = self.log_weights.double().expand(len(x), -1).clone()
        for place, things in enumerate(self.cells.T):
            total += fit[:, place, things]
        return total.softmax(1)

    def _picture(self, p: Tensor) -> Tensor:
        """Mean pictures (B, 3, H, W) of cells that hold what they hold with probability p."""
        tiles = (p @ self._tiles).view(-1, SIDE, SIDE, 3, CELL, CELL)
        inner = tiles.permute(0, 3, 1, 4, 2, 5).reshape(-1, 3, SIDE * CELL, SIDE * CELL)
        return F.pad(inner, (self.border,) * 4, value=self.shift)


def _rates(log_snr: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Signal and noise rate (B, 1, ..) of `dim` axes, as `generative.diffusion.schedules` has them.

    That folder knows this one, and must not be imported here.
    """
    wide = log_snr.view(-1, *[1] * (dim - 1))
    return wide.sigmoid().sqrt(), (-wide).sigmoid().sqrt()


def by_caption(captions: Sequence[str], told: Callable[[str], Denoise]) -> Denoise:
    """A denoiser of batches with a caption for each row, of a denoiser of each caption.

    Args:
        captions: one for each row, "" for none.
        told: makes the denoiser of a caption.
    """
    rows: dict[str, list[int]] = {}
    for row, caption in enumerate(captions):
        rows.setdefault(caption, []).append(row)
    every = {caption: told(caption) for caption in rows}

    def denoise(x: Tensor, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        if len(x) != len(captions):
            raise ValueError(
                f"got {len(x)} pictures for {len(captions)} captions; give one for each"
            )
        noise, data = torch.empty_like(x), torch.empty_like(x)
        for caption, found in rows.items():
            noise[found], data[found] = every[caption](x[found], log_snr[found])
        return noise, data

    return denoise


class Floor(NamedTuple):
    """Least loss at a noise level."""

    data: float
    """Mean squared error of a number of the data by the best estimate there is."""
    error: float
    """Its standard error."""
    noise: float
    """Mean squared error of a number of the noise by the same estimate: data * exp(log_snr)."""


@checked
def floor(
    exact: SceneDenoiser, log_snr: Finite, n: Count, generator: torch.Generator | None = None
) -> Floor:
    """Least loss of any denoiser at a noise level, over n noisy pictures of the list.

    The mean of the exact conditional variance, which varies less than the squared errors do.

    Args:
        generator: draws the pictures and the noise.
    """
    device = exact.cells.device
    rows = torch.multinomial(exact.log_weights.double().exp().cpu(), n, True, generator=generator)
    x = exact.pictures(rows.to(device)).double()
    level = torch.full((n,), log_snr, dtype=torch.float64, device=device)
    signal, noise = _rates(level, 4)
    eps = torch.randn(x.shape, generator=generator, dtype=torch.float64).to(device)
    each = exact.data_variance(signal * x + noise * eps, level) / x[0].numel()
    mean = float(each.mean())
    error = float(each.std()) / math.sqrt(n) if n > 1 else math.nan
    return Floor(mean, error, mean * math.exp(log_snr))


# ---------------------------------------------------------------------------------------------
# Upsamplers
# ---------------------------------------------------------------------------------------------


class CellPosterior(NamedTuple):
    """Result of `cell_posterior` on n small cells."""

    probability: Tensor
    """Probability of each object, (n, 24), rows sum to 1."""
    accuracy: Tensor
    """Probability of the likeliest, (n,): its mean is the accuracy that no upsampler exceeds."""
    entropy: Tensor
    """Nats, (n,)."""


@checked
def cell_posterior(cells: Tensor, noise: Positive, among: Tensor | None = None) -> CellPosterior:
    """Compute the posterior of the object in a cell, given the cell in a small, noisy picture.

    No upsampler can know more. All objects are equally likely; the small cell is the average over
    squares of pixels of the large one (values in [0, 1]), with Gaussian noise.

    Args:
        cells: (n, 3, side, side), side 1, 2, 4 or 8.
        noise: standard deviation.
        among: bool (24,), True at objects that there are; all if not given.
    Raises:
        ValueError: cells are of another shape.
    """
    if cells.ndim != 4 or cells.shape[1] != 3 or cells.shape[2] != cells.shape[3]:
        raise ValueError(f"cells are {tuple(cells.shape)}; they are (n, 3, side, side)")
    known = small_objects(cells.shape[-1]).flatten(1).to(cells.device)
    distance = torch.cdist(
        cells.flatten(1).double(), known, compute_mode="donot_use_mm_for_euclid_dist"
    )
    log_p = -0.5 * (distance / noise).square()
    if among is not None:
        log_p = log_p.masked_fill(~among.to(log_p.device), -math.inf)
    p = log_p.softmax(1)
    return CellPosterior(p, p.amax(1), torch.special.entr(p).sum(1))


@checked
def small_posterior(tiles: Tensor, noise: Positive, cells: Tensor, log_weights: Tensor) -> Tensor:
    """Compute the posterior of what each cell holds, given a whole small, noisy picture.

    `cell_posterior` knows one cell. What else is in a picture tells more where scenes are not
    equally likely: that two objects are equal, or that there are no more than two.

    Args:
        tiles: cells of small pictures, (n, 9, 3, side, side), side 1, 2, 4 or 8.
        noise: standard deviation.
        cells: scenes that there are, int64 (K, 9), without letters.
        log_weights: ln of their probabilities, normalised, (K,).
    Returns:
        float64 (n, 9, 25); 24 is the empty cell.
    Raises:
        ValueError: tiles are of another shape.
    """
    if tiles.ndim != 5 or tiles.shape[1:3] != (CELLS, 3) or tiles.shape[3] != tiles.shape[4]:
        raise ValueError(f"tiles are {tuple(tiles.shape)}; they are (n, {CELLS}, 3, side, side)")
    known = small_objects(tiles.shape[-1]).flatten(1).to(tiles.device)
    known = torch.cat([known, torch.zeros_like(known[:1])])  # an empty cell is black
    distance = torch.cdist(
        tiles.flatten(2).double(), known, compute_mode="donot_use_mm_for_euclid_dist"
    )
    found = []
    for fit in (-0.5 * (distance / noise).square()).split(max(1, CHUNK // len(cells))):
        total = log_weights.double().expand(len(fit), -1).clone()
        for place, things in enumerate(cells.T):
            total += fit[:, place, things]
        weights, part = total.softmax(1), torch.zeros_like(fit)
        for place, things in enumerate(cells.T):
            part[:, place].index_add_(1, things, weights)
        found.append(part)
    return torch.cat(found)


@checked
def small_objects(side: Size) -> Tensor:
    """Cells of the 24 objects as averages over squares of pixels; float64 (24, 3, side, side).

    Raises:
        ValueError: the side does not divide the 8 pixels of a cell.
    """
    if CELL % side:
        raise ValueError(
            f"a cell of {CELL} pixels has no {side}x{side} averages; give 1, 2, 4 or 8"
        )
    return F.avg_pool2d(templates()[:EMPTY].double(), CELL // side)
