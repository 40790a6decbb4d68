"""Densities in the plane and maximum likelihood: the box on the world map, heat maps, fits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from generative.training.ranges import Checked, Range
from scripts.explored.common import Subject

if TYPE_CHECKING:
    from generative.known.densities import WorldMap
    from generative.known.quadrature import Density


@dataclass(frozen=True)
class Settings(Checked):
    """Densities in the plane; there is no model."""

    points: Annotated[int, Range(2, 2**30)] = 200
    """Points on land that the box is fitted to."""
    fit_points: Annotated[int, Range(2, 2**30)] = 100_000
    """Points that Gaussian and box are fitted to."""
    worlds: Annotated[int, Range(2, 2**30)] = 200
    """Boxes fitted to other points, to see how accuracy and coverage grow with their number."""
    samples: Annotated[int, Range(2, 2**30)] = 2000
    """Points of each density in its picture."""


SIZES = (5, 10, 20, 50, 100, 200, 500)
"""Numbers of points of the curve of accuracy and coverage."""


def explore(subject: Subject, settings: Settings) -> dict[str, Any]:
    """Pictures; returns accuracy and coverage of the box, and what fits lose.

    That is, for every density what a Gaussian and a box of maximum likelihood lose against the
    truth, in nats.
    """
    import torch

    from generative.known.densities import (
        Standardised,
        TwoMoons,
        WorldMap,
        eight_gaussians,
        grid_25,
    )

    world = WorldMap()
    generator = torch.Generator().manual_seed(subject.seed)
    figure, found = world_map(world, settings.points, generator)
    subject.save_figure("world-map", figure)
    subject.save_figure("coverage", growth(world, settings.worlds, generator))

    densities: dict[str, Density] = {
        "two-moons": Standardised(TwoMoons()),
        "eight-gaussians": Standardised(eight_gaussians()),
        "grid-25": Standardised(grid_25()),
    }
    fits = {
        name: fit(density, settings.fit_points, generator) for name, density in densities.items()
    }
    subject.save_figure("densities", heat_maps(densities, settings.samples, generator))
    return {"world": found, "fits": fits}


def world_map(world: WorldMap, n: int, generator):
    """Figure, and what the book finds wrong with a box that is fitted to n points on land.

    A: the model's points at sea, which it should not make. B: land outside the box, which it
    never makes a point. C: land inside, possible under both.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    from generative.known.densities import Box
    from generative.known.quadrature import log_likelihood

    x = world.sample(n, generator)
    box = Box.fit(x)
    accuracy, coverage = world.accuracy_and_coverage(box)
    drawn, land = box.sample(n, generator), world.sample(n, generator)
    groups = {
        "A: made, but at sea": (drawn[~world.is_land(drawn)], "tab:red", "x"),
        "B: land, but never made": (land[~box.contains(land)], "tab:orange", "^"),
        "C: made, and on land": (drawn[world.is_land(drawn)], "tab:green", "o"),
    }
    figure = Figure(figsize=(13, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axis in (left, right):
        axis.set_xlim(-180, 180)
        axis.set_ylim(-90, 90)
        axis.set_xlabel("longitude")
        axis.set_ylabel("latitude")
        width, height = box.high[1] - box.low[1], box.high[0] - box.low[0]
        axis.add_patch(Rectangle((box.low[1], box.low[0]), width, height, fill=False, lw=2))
    left.scatter(x[:, 1], x[:, 0], c="black", s=8)
    left.set_title(f"{n} points, and the box of maximum likelihood")
    for part in world.boxes:
        corner = (part.low[1], part.low[0])
        sides = (part.high[1] - part.low[1], part.high[0] - part.low[0])
        right.add_patch(Rectangle(corner, *sides, color="0.85"))
    for label, (points, colour, marker) in groups.items():
        right.scatter(points[:, 1], points[:, 0], c=colour, marker=marker, s=14, label=label)
    figure.legend(loc="outside lower center", ncols=3)
    right.set_title(f"accuracy {accuracy:.1%}, coverage {coverage:.1%}")
    per_point = log_likelihood(box.log_prob, x) / n
    return figure, {
        "points": n,
        "accuracy": accuracy,
        "coverage": coverage,
        "log_likelihood_per_point": per_point,
        "best_possible": -world.entropy(),
    }


def growth(world: WorldMap, worlds: int, generator):
    """Figure: accuracy and coverage of boxes fitted to more and more points, mean and 90 % range.

    More points make the box larger, so it covers all land in the end, and most of the sea.
    """
    import numpy as np
    from matplotlib.figure import Figure

    from generative.known.densities import Box

    found = np.array(
        [
            [world.accuracy_and_coverage(Box.fit(world.sample(n, generator))) for n in SIZES]
            for _ in range(worlds)
        ]
    )
    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.subplots()
    for i, (name, colour) in enumerate((("accuracy", "tab:blue"), ("coverage", "tab:orange"))):
        low, high = np.quantile(found[:, :, i], (0.05, 0.95), axis=0)
        axis.plot(SIZES, found[:, :, i].mean(0), color=colour, label=name)
        axis.fill_between(SIZES, low, high, color=colour, alpha=0.2)
    axis.set_xscale("log")
    axis.set_ylim(0, 1)
    axis.set_xlabel("points the box is fitted to")
    axis.legend()
    return figure


def fit(density: Density, n: int, generator) -> dict[str, float]:
    """KL divergence of the density from the likeliest Gaussian and box of n points, nats.

    The excess of a Gaussian tends to log(2 pi e) minus the entropy where the axes are standardised
    and uncorrelated; the box's has no limit below, and is infinite where it misses a point.
    """
    from generative.known.densities import Box, Gaussian
    from generative.known.quadrature import divergence

    x = density.sample(n, generator)
    gaussian, box = Gaussian.fit(x), Box.fit(x)
    fresh = density.sample(n, generator)
    return {
        "entropy": density.entropy(),
        "gaussian_excess": divergence(density, gaussian.log_prob),
        "box_excess_on_its_points": -float(box.log_prob(x).mean()) - density.entropy(),
        "share_the_box_misses": float((~box.contains(fresh)).double().mean()),
    }


def heat_maps(
    densities: dict[str, Density], n: int, generator, side: int = 300, reach: float = 2.6
):
    """Figure: densities (their roots) above, n points of each below, in the square +- reach."""
    import torch
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(densities), 8), layout="constrained")
    axes = figure.subplots(2, len(densities), squeeze=False)
    ticks = torch.linspace(-reach, reach, side, dtype=torch.float64)
    y, x = torch.meshgrid(ticks, ticks, indexing="ij")
    for (above, below), (name, density) in zip(axes.T, densities.items(), strict=True):
        log_p = density.log_prob(torch.stack([x, y], 2).flatten(0, 1)).view(side, side)
        extent = (-reach, reach, -reach, reach)
        above.imshow(log_p.exp().sqrt(), origin="lower", extent=extent, cmap="magma")
        above.set_title(f"{name}, entropy {density.entropy():.3f} nats")
        below.scatter(*density.sample(n, generator).T.numpy(), s=2, c="black", alpha=0.5)
        below.set_xlim(-reach, reach)
        below.set_ylim(-reach, reach)
        below.set_aspect("equal")
    return figure
