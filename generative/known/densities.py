"""Densities whose optimum is known.

A model of one of these can be compared with the best possible one: no density has a lower
cross-entropy to the data than the data's own entropy.

    moons = Standardised(TwoMoons(noise=0.05))
    x = moons.sample(256)                                # (256, 2)
    log_prob = lambda x: model.log_prob(x.float())       # of a model in single precision
    excess = divergence(moons, log_prob)                 # KL(moons || model), nats, by quadrature

Every density has `sample(n, generator)`, `log_prob(x)` in nats per point, `entropy()` in nats,
`mean` and `std` per axis; those in the plane also `grid(points_per_std)`, which covers all but
1e-14 of them. Everything is computed in float64; samples are float32, as models take them.

`sample(n, generator, even=True)` spreads the points evenly (a scrambled Sobol sequence). Each of
them still has the right distribution, but averages over all have much less noise, and so has the
gradient of a model in training (Buchholz, Wenzel & Mandt 2018).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from generative.known.quadrature import Density, Grid, grid_entropy
from generative.training.checks import checked
from generative.training.ranges import CountOrZero

__all__ = [
    "Box",
    "Boxes",
    "Gaussian",
    "GaussianMixture",
    "Standardised",
    "TwoMoons",
    "WorldMap",
    "checkerboard",
    "eight_gaussians",
    "grid_25",
    "ring",
]

MARGIN = 8.0
"""Margin of a grid around the outermost centres, in standard deviations; 1e-15 lie outside."""
CHUNK = 2**22
"""Numbers in the largest temporary array."""


@dataclass(frozen=True)
class TwoMoons:
    """Two half circles, uniform in the angle, blurred by Gaussian noise.

    scikit-learn's `make_moons` (and the book's chapter 6) without its fixed spacing: the upper arc
    is (cos a, sin a), the lower (1 - cos a, 1/2 - sin a), with a uniform in [0, pi].
    """

    noise: float = 0.05
    """Standard deviation of the noise on each axis."""

    def __post_init__(self) -> None:
        _positive("noise", self.noise)

    @property
    def mean(self) -> tuple[float, float]:
        """Centre of both arcs."""
        return (0.5, 0.25)

    @property
    def std(self) -> tuple[float, float]:
        """Standard deviation of each axis, from E cos^2 a = E sin^2 a = 1/2 and E sin a = 2/pi."""
        width = 0.5 + 0.25
        height = 0.5 - 4 / math.pi**2 + (2 / math.pi - 0.25) ** 2
        return (math.sqrt(width + self.noise**2), math.sqrt(height + self.noise**2))

    def sample(
        self, n: int, generator: torch.Generator | None = None, even: bool = False
    ) -> Tensor:
        """n points, (n, 2); each lies on either arc with probability 1/2."""
        u = _uniforms(n, 4, generator, even)
        angle, upper = math.pi * u[:, 0], u[:, 1] < 0.5
        x = torch.where(upper, angle.cos(), 1 - angle.cos())
        y = torch.where(upper, angle.sin(), 0.5 - angle.sin())
        return (torch.stack([x, y], 1) + self.noise * torch.special.ndtri(u[:, 2:])).float()

    def log_prob(self, x: Tensor) -> Tensor:
        """Log density by Gauss-Legendre quadrature over the angle, which defines the density."""
        x = _points(x, 2)
        # The lower arc is the upper one turned by half a circle about the common centre.
        turned = 2 * torch.tensor(self.mean, dtype=torch.float64) - x
        return torch.logaddexp(self._log_arc(x), self._log_arc(turned)) - math.log(2)

    def entropy(self) -> float:
        """Entropy by quadrature over the plane; 0.2892 nats at noise 0.05."""
        return grid_entropy(self)

    def grid(self, points_per_std: float) -> Grid:
        """Grid over both arcs and eight standard deviations around them."""
        return _cover([(-1.0, -0.5), (2.0, 1.0)], self.noise, points_per_std)

    @cached_property
    def _nodes(self) -> tuple[Tensor, Tensor]:
        """Angles and log weights; the integrand is a bump of width `noise` or more."""
        count = max(64, math.ceil(8 / self.noise))
        nodes, weights = np.polynomial.legendre.leggauss(count)
        angles = torch.from_numpy(nodes + 1) * (math.pi / 2)
        return angles, torch.from_numpy(np.log(weights / 2))

    def _log_arc(self, x: Tensor) -> Tensor:
        """log of the average over a of N(x; (cos a, sin a), noise^2 I)."""
        angles, log_weights = self._nodes
        arc = torch.stack([angles.cos(), angles.sin()], 1)
        parts = [
            torch.logsumexp(log_weights - _squared_distance(part, arc) / (2 * self.noise**2), 1)
            for part in x.split(max(1, CHUNK // len(angles)))
        ]
        return torch.cat(parts) - math.log(2 * math.pi * self.noise**2)


@dataclass(frozen=True)
class GaussianMixture:
    """Equal parts of round Gaussians around centres in the plane."""

    centres: tuple[tuple[float, float], ...]
    """Mean of each part."""
    scale: float
    """Standard deviation of every part on each axis."""

    def __post_init__(self) -> None:
        _positive("scale", self.scale)
        if not self.centres:
            raise ValueError("a mixture needs at least one centre, it got none")

    @property
    def mean(self) -> tuple[float, float]:
        """Average of the centres."""
        x, y = self._centres.mean(0).tolist()
        return (x, y)

    @property
    def std(self) -> tuple[float, float]:
        """Standard deviation of each axis, by the law of total variance."""
        x, y = (self._centres.var(0, correction=0) + self.scale**2).sqrt().tolist()
        return (x, y)

    def sample(
        self, n: int, generator: torch.Generator | None = None, even: bool = False
    ) -> Tensor:
        """n points, (n, 2)."""
        u = _uniforms(n, 3, generator, even)
        part = (len(self.centres) * u[:, 0]).long()
        return (self._centres[part] + self.scale * torch.special.ndtri(u[:, 1:])).float()

    def log_prob(self, x: Tensor) -> Tensor:
        """log (1/K) sum_k N(x; centre_k, scale^2 I)."""
        distance = _squared_distance(_points(x, 2), self._centres)
        constant = math.log(2 * math.pi * self.scale**2 * len(self.centres))
        return torch.logsumexp(-distance / (2 * self.scale**2), 1) - constant

    def entropy(self) -> float:
        """Entropy by quadrature over the plane."""
        return grid_entropy(self)

    def grid(self, points_per_std: float) -> Grid:
        """Grid over all centres and eight standard deviations around them."""
        return _cover(self.centres, self.scale, points_per_std)

    def modes_found(self, x: Tensor, within: float = 3.0) -> tuple[int, float]:
        """Number of centres with a point near them, and share of the points near a centre.

        Args:
            x: samples, (N, 2).
            within: largest distance that is near, in standard deviations; 98.9 % lie within 3.
        """
        distance, nearest = _squared_distance(_points(x, 2), self._centres).min(1)
        near = distance <= (within * self.scale) ** 2
        return len(nearest[near].unique()), float(near.double().mean())

    @cached_property
    def _centres(self) -> Tensor:
        return torch.tensor(self.centres, dtype=torch.float64)


def eight_gaussians() -> GaussianMixture:
    """Eight round Gaussians on a circle, in FFJORD's scale; floor 2.8319 nats.

    Radius 4 and standard deviation 0.5, all divided by 1.414 (Grathwohl et al. 2019).
    """
    return _on_a_circle(8, 4 / 1.414, 0.5 / 1.414)


def ring() -> GaussianMixture:
    """Eight narrow Gaussians on a circle of radius 2, deviation 0.1; floor 0.3121 nats.

    Neighbours are 15 standard deviations apart, so a model has to leave much space empty.
    """
    return _on_a_circle(8, 2.0, 0.1)


def _on_a_circle(num: int, radius: float, scale: float) -> GaussianMixture:
    angles = [2 * math.pi * k / num for k in range(num)]
    return GaussianMixture(
        tuple((radius * math.cos(a), radius * math.sin(a)) for a in angles), scale
    )


def grid_25(scale: float = 0.05) -> GaussianMixture:
    """A 5x5 grid of narrow Gaussians, 2 apart: the task that shows the loss of modes.

    Floor 0.0653 nats at scale 0.05 (Dumoulin et al. 2017; Srivastava et al. 2017).
    """
    return GaussianMixture(
        tuple((2.0 * i, 2.0 * j) for i in range(-2, 3) for j in range(-2, 3)), scale
    )


@dataclass(frozen=True)
class Standardised:
    """A density moved and scaled to mean 0 and standard deviation 1 on each axis.

    The moments are exact, not those of a sample: x -> (x - mean) / std, so that
    log p changes by sum log std (the change of variables).
    """

    density: Density

    @property
    def mean(self) -> tuple[float, ...]:
        """Zero."""
        return tuple(0.0 for _ in self.density.mean)

    @property
    def std(self) -> tuple[float, ...]:
        """One."""
        return tuple(1.0 for _ in self.density.std)

    def sample(
        self, n: int, generator: torch.Generator | None = None, even: bool = False
    ) -> Tensor:
        """n points, float32 (n, D)."""
        shift, scale = self._moments
        return ((self.density.sample(n, generator, even) - shift) / scale).float()

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(mean + std x) + sum log std."""
        shift, scale = self._moments
        return self.density.log_prob(x.double() * scale + shift) + scale.log().sum()

    def entropy(self) -> float:
        """Entropy of the density - sum log std; 1.1312 nats for the moons at noise 0.05."""
        return self.density.entropy() - float(self._moments[1].log().sum())

    def grid(self, points_per_std: float) -> Grid:
        """The density's grid, moved and scaled."""
        grid, (shift, scale) = self.density.grid(points_per_std), self._moments
        corners = torch.tensor([grid.low, grid.high], dtype=torch.float64)
        (x0, y0), (x1, y1) = ((corners - shift) / scale).tolist()
        return Grid((x0, y0), (x1, y1), grid.counts)

    @property
    def _moments(self) -> tuple[Tensor, Tensor]:
        moments = torch.tensor([self.density.mean, self.density.std], dtype=torch.float64)
        return moments[0], moments[1]


# Maximum likelihood in closed form


@dataclass(frozen=True)
class Gaussian:
    """A normal distribution in any number of dimensions, with its full covariance."""

    mean: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]

    @classmethod
    def fit(cls, x: Tensor) -> Gaussian:
        """The maximum-likelihood Gaussian: mean, and covariance divided by N (not N - 1).

        Raises:
            ValueError: the points lie in a plane of lower dimension; no density fits best then.
        """
        x = _points(x, x.shape[-1])
        mean = x.mean(0)
        covariance = (x - mean).T @ (x - mean) / len(x)
        if torch.linalg.matrix_rank(covariance, hermitian=True) < x.shape[1]:
            raise ValueError(
                f"{len(x)} points do not span their {x.shape[1]} dimensions, so the likelihood "
                "has no maximum; give more points or leave out constant columns"
            )
        return cls(tuple(mean.tolist()), tuple(tuple(row) for row in covariance.tolist()))

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of each axis."""
        return tuple(math.sqrt(row[i]) for i, row in enumerate(self.covariance))

    def sample(
        self, n: int, generator: torch.Generator | None = None, even: bool = False
    ) -> Tensor:
        """n points, float32 (n, D)."""
        eps = torch.special.ndtri(_uniforms(n, len(self.mean), generator, even))
        return (torch.tensor(self.mean, dtype=torch.float64) + eps @ self._root.T).float()

    def log_prob(self, x: Tensor) -> Tensor:
        """-(1/2) |L^-1 (x - mean)|^2 - log det L - (D/2) log 2 pi, with L L^T the covariance."""
        centred = _points(x, len(self.mean)) - torch.tensor(self.mean, dtype=torch.float64)
        white = torch.linalg.solve_triangular(self._root, centred.T, upper=False)
        constant = self._root.diagonal().log().sum() + 0.5 * len(self.mean) * math.log(2 * math.pi)
        return -0.5 * white.square().sum(0) - constant

    def entropy(self) -> float:
        """(1/2) log det (2 pi e covariance)."""
        size = len(self.mean)
        return 0.5 * size * math.log(2 * math.pi * math.e) + float(
            self._root.diagonal().log().sum()
        )

    @property
    def _root(self) -> Tensor:
        return torch.linalg.cholesky(torch.tensor(self.covariance, dtype=torch.float64))


@dataclass(frozen=True)
class Box:
    """The book's first model (chapter 1): uniform over an upright rectangle, zero elsewhere."""

    low: tuple[float, ...]
    """Lower left corner."""
    high: tuple[float, ...]
    """Upper right corner."""

    def __post_init__(self) -> None:
        if not all(a < b for a, b in zip(self.low, self.high, strict=True)):
            raise ValueError(f"box from {self.low} to {self.high}; each low must be below its high")

    @classmethod
    def fit(cls, x: Tensor) -> Box:
        """The maximum-likelihood box: the smallest that holds every point.

        Any larger one has a smaller density at every point, any other misses one.
        """
        x = _points(x, x.shape[-1])
        return cls(tuple(x.amin(0).tolist()), tuple(x.amax(0).tolist()))

    @property
    def area(self) -> float:
        """Product of the sides."""
        return math.prod(b - a for a, b in zip(self.low, self.high, strict=True))

    @property
    def mean(self) -> tuple[float, ...]:
        """Centre."""
        return tuple((a + b) / 2 for a, b in zip(self.low, self.high, strict=True))

    @property
    def std(self) -> tuple[float, ...]:
        """Side / sqrt(12)."""
        return tuple((b - a) / math.sqrt(12) for a, b in zip(self.low, self.high, strict=True))

    def contains(self, x: Tensor) -> Tensor:
        """Points (N, D) -> bool (N,), True inside and on the border."""
        x = _points(x, len(self.low))
        low, high = torch.tensor([self.low, self.high], dtype=torch.float64)
        return ((x >= low) & (x <= high)).all(1)

    def sample(
        self, n: int, generator: torch.Generator | None = None, even: bool = False
    ) -> Tensor:
        """n points, float32 (n, D)."""
        low, high = torch.tensor([self.low, self.high], dtype=torch.float64)
        return (low + (high - low) * _uniforms(n, len(self.low), generator, even)).float()

    def log_prob(self, x: Tensor) -> Tensor:
        """-log area inside, -inf outside."""
        return _uniform(self.contains(x), self.area)

    def entropy(self) -> float:
        """log area."""
        return math.log(self.area)


@dataclass(frozen=True)
class Boxes:
    """Uniform over upright rectangles in the plane that do not overlap, zero elsewhere."""

    boxes: tuple[Box, ...]
    """The rectangles; each has a share of the points in proportion to its area."""

    def __post_init__(self) -> None:
        for i, a in enumerate(self.boxes):
            for b in self.boxes[:i]:
                sides = zip(a.low, a.high, b.low, b.high, strict=True)
                if all(max(la, lb) < min(ha, hb) for la, ha, lb, hb in sides):
                    raise ValueError(f"{a} and {b} overlap; give rectangles that do not")

    @property
    def area(self) -> float:
        """Total area of the boxes."""
        return sum(box.area for box in self.boxes)

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of each axis."""
        return tuple(self._moment(i, 1) for i in range(2))

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of each axis."""
        return tuple(math.sqrt(self._moment(i, 2) - self._moment(i, 1) ** 2) for i in range(2))

    def contains(self, x: Tensor) -> Tensor:
        """Points (N, 2) -> bool (N,), True inside one of the boxes or on its border."""
        return torch.stack([box.contains(x) for box in self.boxes]).any(0)

    def sample(
        self, n: int, generator: torch.Generator | None = None, even: bool = False
    ) -> Tensor:
        """n points, float32 (n, 2)."""
        u = _uniforms(n, 3, generator, even)
        areas = torch.tensor([box.area for box in self.boxes], dtype=torch.float64)
        which = torch.searchsorted(areas.cumsum(0)[:-1] / areas.sum(), u[:, 0].contiguous())
        corners = torch.tensor([(box.low, box.high) for box in self.boxes], dtype=torch.float64)
        low, high = corners[which].unbind(1)
        return (low + (high - low) * u[:, 1:]).float()

    def log_prob(self, x: Tensor) -> Tensor:
        """-log area inside, -inf outside."""
        return _uniform(self.contains(x), self.area)

    def entropy(self) -> float:
        """log area."""
        return math.log(self.area)

    def grid(self, points_per_std: float) -> Grid:
        """Grid over all rectangles. An edge has no standard deviation; the 50th part of the
        shortest side takes its place, so that the grid resolves the edges of a model.

        Sums are exact only if cell borders lie on all edges, as on a checkerboard.
        """
        low = [min(box.low[i] for box in self.boxes) for i in range(2)]
        high = [max(box.high[i] for box in self.boxes) for i in range(2)]
        sides = [min(box.high[i] - box.low[i] for box in self.boxes) for i in range(2)]
        per_side = math.ceil(50 * points_per_std)
        counts = [
            math.ceil((b - a) / side * per_side - 1e-6)
            for a, b, side in zip(low, high, sides, strict=True)
        ]
        return Grid((low[0], low[1]), (high[0], high[1]), (counts[0], counts[1]))

    def _moment(self, axis: int, power: int) -> float:
        """E x^power of one axis."""
        total = 0.0
        for box in self.boxes:
            a, b = box.low[axis], box.high[axis]
            average = (b ** (power + 1) - a ** (power + 1)) / ((power + 1) * (b - a))
            total += box.area * average
        return total / self.area


def checkerboard() -> Boxes:
    """Every second of the 16 squares of side 2 in [-4, 4]^2; floor log 32 = 3.4657 nats.

    Hard edges and touching corners are the hardest for smooth models (Grathwohl et al. 2019).
    """
    corners = [(2.0 * i - 4, 2.0 * j - 4) for i in range(4) for j in range(4) if (i + j) % 2 == 0]
    return Boxes(tuple(Box((x, y), (x + 2, y + 2)) for x, y in corners))


@dataclass(frozen=True)
class WorldMap(Boxes):
    """Uniform over a world of rectangular continents; the book's box model is fitted to it.

    Points are (latitude, longitude) in degrees, areas square degrees. The outlines are coarse by
    intent: the density and its entropy are then exact. New York is land, the deepest sea is not.
    """

    boxes: tuple[Box, ...] = (
        Box((25.0, -125.0), (70.0, -65.0)),  # North America
        Box((-55.0, -80.0), (12.0, -40.0)),  # South America
        Box((-35.0, 10.0), (15.0, 42.0)),  # southern Africa
        Box((15.0, -17.0), (35.0, 35.0)),  # northern Africa
        Box((36.0, -10.0), (70.0, 60.0)),  # Europe
        Box((8.0, 60.0), (75.0, 140.0)),  # Asia
        Box((-39.0, 114.0), (-11.0, 153.0)),  # Australia
    )
    """Rectangles that do not overlap."""

    def is_land(self, x: Tensor) -> Tensor:
        """Points (N, 2) -> bool (N,), True on land."""
        return self.contains(x)

    def accuracy_and_coverage(self, model: Box) -> tuple[float, float]:
        """Share of the model's points that are on land, and share of the land the model reaches.

        Both show the faults of the box that the book names: it generates points at sea, and it
        never generates land outside itself. Both are exact.
        """
        overlap = 0.0
        for box in self.boxes:
            sides = zip(box.low, box.high, model.low, model.high, strict=True)
            overlap += math.prod(max(0.0, min(hb, hm) - max(lb, lm)) for lb, hb, lm, hm in sides)
        return overlap / model.area, overlap / self.area


def _points(x: Tensor, dim: int) -> Tensor:
    if x.dim() != 2 or x.shape[1] != dim:
        raise ValueError(f"got points of shape {tuple(x.shape)}; pass (N, {dim})")
    return x.double()


@checked
def _uniforms(n: CountOrZero, dim: int, generator: torch.Generator | None, even: bool) -> Tensor:
    """n points in the open unit cube, float64 (n, dim): independent, or spread evenly."""
    if even:
        seed = int(torch.randint(2**31, (), generator=generator))
        u = torch.quasirandom.SobolEngine(dim, scramble=True, seed=seed).draw(
            n, dtype=torch.float64
        )
    else:
        u = torch.rand(n, dim, generator=generator, dtype=torch.float64)
    least = 2.0**-32  # a Sobol coordinate can be 0, and the normal quantile of 0 is infinite
    return u.clamp(least, 1 - least)


def _uniform(inside: Tensor, area: float) -> Tensor:
    """log density of the uniform distribution over a region, float64."""
    density = torch.tensor(-math.log(area), dtype=torch.float64)
    return torch.where(inside, density, -math.inf)


def _positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} is {value}; it must be a positive number")


def _squared_distance(x: Tensor, y: Tensor) -> Tensor:
    """(N, 2), (K, 2) -> (N, K), without the cancellation of |x|^2 - 2 x y + |y|^2."""
    # A sum over an axis of two numbers takes several times as long.
    return (x[:, None, 0] - y[:, 0]).square() + (x[:, None, 1] - y[:, 1]).square()


def _cover(centres: Sequence[tuple[float, float]], noise: float, points_per_std: float) -> Grid:
    low = [min(c[i] for c in centres) - MARGIN * noise for i in range(2)]
    high = [max(c[i] for c in centres) + MARGIN * noise for i in range(2)]
    counts = [math.ceil((b - a) / noise * points_per_std) for a, b in zip(low, high, strict=True)]
    return Grid((low[0], low[1]), (high[0], high[1]), (counts[0], counts[1]))
