"""Exploring the densities: the pictures, and what a box and a Gaussian lose, in closed form."""

import json
import math
from dataclasses import replace

import pytest
import torch

from generative.known.densities import GaussianMixture, WorldMap
from scripts import explore
from scripts.explored.densities import fit, world_map

torch.set_num_threads(1)


def test_exploring(tmp_path):
    args = replace(
        explore.PRESETS["smoke"], folder=explore.DENSITIES, pictures=tmp_path / "pictures"
    )
    explore.main(args)
    names = {path.stem for path in (tmp_path / "pictures").glob("*.png")}
    assert names == {"world-map", "coverage", "densities"}
    found = json.loads((tmp_path / "pictures" / "explore.json").read_text())
    # Standardised axes: the likeliest Gaussian has entropy log(2 pi e) if they are uncorrelated.
    gaussian = found["fits"]["eight-gaussians"]
    expected = math.log(2 * math.pi * math.e) - gaussian["entropy"]
    assert gaussian["gaussian_excess"] == pytest.approx(expected, abs=0.02)


def test_box_on_the_world_map_by_monte_carlo():
    world = WorldMap()
    _, found = world_map(world, 50, torch.Generator().manual_seed(0))
    assert found["accuracy"] < found["coverage"]
    # Uniform over a box, the likelihood is the area of it, which holds land and sea.
    area = math.exp(-found["log_likelihood_per_point"])
    assert found["accuracy"] * area == pytest.approx(found["coverage"] * world.area)
    assert found["log_likelihood_per_point"] < found["best_possible"]


def test_a_gaussian_loses_nothing_on_a_gaussian():
    truth = GaussianMixture(((1.0, -1.0),), 0.5)
    found = fit(truth, 20_000, torch.Generator().manual_seed(0))
    assert 0 <= found["gaussian_excess"] < 1e-3
    assert found["box_excess_on_its_points"] > 1
    assert 0 < found["share_the_box_misses"] < 1e-3
