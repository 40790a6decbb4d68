"""The commands of the diffusion models, beyond what the smoke preset does."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from generative.diffusion import Diffusion
from generative.diffusion.config import ImageDiffusionConfig, PointDiffusionConfig, UNetConfig
from generative.known.points import load_density
from generative.training.run import read_result
from scripts import explore, train_diffusion
from scripts.explored import diffusion as explored

torch.set_num_threads(1)
TINY = PointDiffusionConfig(hidden_dim=8, num_hidden=1, steps=4, ode_steps=4)


def test_points_are_scored_against_the_best_there_is(tmp_path):
    args = replace(
        train_diffusion.PRESETS["eight-gaussians"],
        out=tmp_path / "run", point=TINY, steps=10, batch_size=64, samples=100,
    )  # fmt: skip
    model = Diffusion.from_pretrained(train_diffusion.main(args))
    result = read_result(tmp_path / "run")
    assert result["gap"] == pytest.approx(result["nll"] - result["floor"])
    assert result["simple_excess"] > 0
    assert (tmp_path / "run" / "images" / "samples-000010.png").exists()
    density = load_density("eight-gaussians")
    # The same by the errors themselves, with their noise.
    x = density.sample(60_000, torch.Generator().manual_seed(5))
    squared = replace(args.loss, error="squared", levels="time")
    with torch.no_grad():
        found = model.loss(x, squared, torch.Generator().manual_seed(6)).noise_mse
    assert float(found) == pytest.approx(result["simple_loss"], rel=0.02)


def test_exploration_of_images(tmp_path):
    torch.manual_seed(0)
    config = ImageDiffusionConfig((3, 32, 32), UNetConfig((4, 8), depth=1), steps=3)
    config.build().save_pretrained(tmp_path / "model")
    args = replace(
        explore.PRESETS["smoke"],
        folder=tmp_path / "model", pictures=tmp_path / "out", data="sprites",
    )  # fmt: skip
    explore.main(args)
    pictures = {path.stem: np.asarray(Image.open(path)) for path in (tmp_path / "out").iterdir()}
    assert set(pictures) == {
        "noising", "samples", "denoising", "steps", "interpolation", "there-and-back",
        "schedules", "embedding",
    }  # fmt: skip
    cell = 64 + 2  # pixels are doubled; a gap of 2 between images
    assert pictures["noising"].shape == (2 * cell - 2, 3 * cell - 2, 3)
    assert pictures["steps"].shape == (2 * cell - 2, 3 * cell - 2, 3)
    assert pictures["interpolation"].shape == (cell - 2, 11 * cell - 2, 3)


@pytest.mark.nightly
def test_exploration_of_points(tmp_path):
    torch.manual_seed(0)
    TINY.build().save_pretrained(tmp_path / "model")
    tiny = replace(
        train_diffusion.PRESETS["two-moons"],
        point=TINY, steps=2, batch_size=8, samples=20, log_every=1,
    )  # fmt: skip
    runs = tuple(tmp_path / name for name in ("one", "other"))
    for seed, run in enumerate(runs):
        train_diffusion.main(replace(tiny, out=run, seed=seed))
    args = replace(
        explore.PRESETS["smoke"], data="two-moons",
        folder=tmp_path / "model", pictures=tmp_path / "out",
        diffusion=explored.Settings(steps=(1, 2), images=3, pairs=1, points=100, runs=runs),
    )  # fmt: skip
    explore.main(args)
    assert {path.stem for path in (tmp_path / "out").iterdir()} == {
        "noising-linear", "noising-cosine", "denoising", "steps", "there-and-back", "density",
        "schedules", "embedding", "runs", "results",
    }  # fmt: skip
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [found[name]["seed"] for name in ("one", "other")] == [0, 1]
    assert found["one"]["gap"] == read_result(runs[0])["gap"]


def test_exploration_tells_what_is_missing(tmp_path):
    TINY.build().save_pretrained(tmp_path / "model")
    args = explore.Args(tmp_path / "model", tmp_path / "out", "sprites")
    with pytest.raises(ValueError, match=r"a model of points and data is 'sprites'; pass what it"):
        explore.main(args)
    with pytest.raises(ValueError, match=r"a model of points and no run tells its data; pass"):
        explore.main(replace(args, data=""))
    with pytest.raises(ValueError, match="pairs is 0, and must be at least 1"):
        explored.Settings(pairs=0)
    assert not (tmp_path / "out").exists()


def test_stages_of_a_strip():
    assert explored.chosen(20, 4) == [4, 9, 14, 19]
    assert explored.chosen(3, 8) == [0, 1, 2]
