"""What the scripts of the flows do beyond their smoke presets."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from generative.flow import ImageFlow
from generative.flow.config import (
    FFJORDConfig,
    GlowConfig,
    ImageRealNVPConfig,
    RealNVPConfig,
)
from scripts import explore, train_ffjord, train_glow
from scripts.explored import flow as explored

torch.set_num_threads(1)


def tiny(kind: str):
    """An untrained flow of a kind."""
    torch.manual_seed(0)
    return {
        "RealNVP": lambda: RealNVPConfig(num_couplings=2, hidden_dim=4, num_hidden=1).build(),
        "FFJORD": FFJORDConfig(hidden_dim=4, num_hidden=1, fine_steps=4).build,
        "ImageRealNVP": lambda: ImageRealNVPConfig(
            RealNVPConfig((3, 8, 8), ("rows",), num_couplings=2, hidden_dim=4, num_hidden=1),
            levels=32,
        ).build(),
        "Glow": lambda: GlowConfig((3, 8, 8), 2, 1, hidden_dim=4, levels=32).build(),
    }[kind]()


def drawn(kind: str, folder, images: int = 3):
    tiny(kind).save_pretrained(folder / "model")
    args = replace(
        explore.PRESETS["smoke"], folder=folder / "model", pictures=folder / "out",
        data="two-moons" if kind in ("RealNVP", "FFJORD") else "sprites",
        flow=explored.Settings(points=200, side=20, images=images),
    )  # fmt: skip
    return explore.main(args)


PLANE = {"panels-before", "panels-after", "density", "grid"}


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("RealNVP", PLANE | {"couplings"}),
        ("FFJORD", PLANE | {"trajectory-points", "trajectory-density", "paths"}),
        ("Glow", {"temperatures", "between", "factor"}),
        ("ImageRealNVP", {"temperatures", "between", "factor"}),
    ],
)
def test_every_exploration_is_drawn(tmp_path, kind, names):
    out = drawn(kind, tmp_path)
    assert {path.stem for path in out.iterdir()} == names
    for path in out.iterdir():
        assert np.asarray(Image.open(path)).std() > 0, path


def test_density_is_drawn_with_the_second_axis_up():
    def log_prob(x):
        return -20 * (x - torch.tensor([1.5, 2.0])).square().sum(1)

    picture = explored.density_picture(log_prob, 60).astype(float).mean(2)
    row, column = np.argwhere(picture == picture.min()).mean(0)
    assert (row, column) == pytest.approx((9.5, 44.5), abs=0.5)  # a pixel is a tenth


@pytest.mark.parametrize("kind", ["Glow", pytest.param("ImageRealNVP", marks=pytest.mark.nightly)])
def test_ways_between_images_begin_and_end_at_them(tmp_path, kind):
    out = drawn(kind, tmp_path, images=2)
    from scripts.common.images import load_images

    test = load_images("sprites", tmp_path, (3, 8, 8), 32).part("test")
    picture = np.asarray(Image.open(out / "between.png"))
    tile = picture[3:64:8, 3:64:8].astype(float) / 255  # a pixel is 8x8
    np.testing.assert_allclose(tile, test.images[0] / 31, atol=0.01)


@pytest.mark.parametrize("preset", ["digits", "realnvp"])
def test_glow_on_digits(tmp_path, preset):
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    args = train_glow.PRESETS[preset]
    small = replace(
        args.model, num_steps=1, hidden_dim=4, checkerboard=min(1, args.model.checkerboard)
    )
    args = replace(args, out=tmp_path / "run", model=small, steps=2, batch_size=8)
    flow = ImageFlow.from_pretrained(train_glow.main(args))
    assert flow.sample(2).shape == (2, 1, 8, 8)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert 2 < result["test_bits_per_dim"] < 8
    assert (tmp_path / "run" / "images" / "samples-000002.png").exists()


def test_ffjord_without_matching_on_points_drawn_once(tmp_path):
    args = replace(
        train_ffjord.PRESETS["smoke"], out=tmp_path / "run", data="eight-gaussians", points=50,
        matching_steps=0, steps=3,
    )  # fmt: skip
    train_ffjord.main(args)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["nll"] == pytest.approx(result["floor"] + result["gap"])
    assert result["gap"] > 0
    assert result["kinetic"] >= 0
