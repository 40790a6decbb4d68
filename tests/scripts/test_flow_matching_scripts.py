"""The command of flow matching and MeanFlow, beyond what the smoke preset does."""

import json
from dataclasses import replace

import pytest
import torch

from generative.flow_matching import (
    FlowMatching,
    FlowMatchingLossConfig,
    ImageFlowMatchingConfig,
    ImageMeanFlowConfig,
    MeanFlow,
    MeanFlowLossConfig,
    PointFlowMatchingConfig,
    PointMeanFlowConfig,
)
from generative.loading import load_model
from generative.nets.config import UNetConfig
from generative.training.run import read_result
from scripts import explore, train_flow_matching
from scripts.explored.flow_matching import Settings, straightness

torch.set_num_threads(1)
SMOKE = train_flow_matching.PRESETS["smoke"]
MEAN_SMOKE = train_flow_matching.PRESETS["mean-flow-smoke"]
UNET = UNetConfig((4, 8), depth=1, max_frequency=8.0)


def test_points_are_scored_against_the_best_there_is(tmp_path):
    args = replace(SMOKE, out=tmp_path / "run", steps=5)
    model = FlowMatching.from_pretrained(train_flow_matching.main(args))
    result = read_result(tmp_path / "run")
    assert result["gap"] == pytest.approx(result["nll"] - result["floor"])
    assert result["matching_loss"] > result["matching_floor"] > 0
    assert result["wasserstein_1_steps"] > result["wasserstein_of_data"] > 0
    assert (tmp_path / "run" / "images" / "samples-000005.png").exists()
    assert isinstance(load_model(tmp_path / "run"), FlowMatching)
    assert model.config == args.model


def test_a_mean_flow_is_scored_by_its_jumps(tmp_path):
    args = replace(MEAN_SMOKE, out=tmp_path / "run", steps=5)
    model = MeanFlow.from_pretrained(train_flow_matching.main(args))
    result = read_result(tmp_path / "run")
    assert result["mean_flow_size"] > 0.1
    assert result["mean_flow_error"] > 0.1
    assert "nll" not in result
    assert model.config == args.model


def test_a_density_without_a_floor_is_scored_without_one(tmp_path):
    args = replace(SMOKE, out=tmp_path / "run", data="checkerboard", steps=2, samples=20)
    train_flow_matching.main(args)
    result = read_result(tmp_path / "run")
    assert result["gap"] > 0
    assert "matching_floor" not in result


def test_reflow_goes_on_from_its_teacher(tmp_path):
    teacher = replace(SMOKE, out=tmp_path / "teacher", steps=2)
    train_flow_matching.main(teacher)
    args = replace(SMOKE, out=tmp_path / "run", teacher=tmp_path / "teacher", steps=2)
    again = replace(args, out=tmp_path / "again")
    first, second = (
        FlowMatching.from_pretrained(train_flow_matching.main(each)) for each in (args, again)
    )
    before = load_model(tmp_path / "teacher")
    for ours, theirs, old in zip(
        first.parameters(), second.parameters(), before.parameters(), strict=True
    ):
        assert torch.equal(ours, theirs)
        assert float((ours - old).detach().abs().max()) < 0.02
    result = read_result(tmp_path / "run")
    assert "matching_floor" not in result
    assert result["nll"] > result["floor"]


def test_what_does_not_fit_is_told(tmp_path):
    with pytest.raises(ValueError, match="give both of flow matching or both of MeanFlow"):
        replace(SMOKE, loss=MeanFlowLossConfig())
    with pytest.raises(ValueError, match="points need a model of points"):
        replace(SMOKE, data="digits")
    with pytest.raises(ValueError, match="leave teacher out"):
        replace(MEAN_SMOKE, teacher=tmp_path)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        train_flow_matching.main(replace(SMOKE, out=tmp_path / "run", teacher=tmp_path / "nothing"))
    assert not (tmp_path / "run").exists()
    PointMeanFlowConfig().build().save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match="holds a PointMeanFlow of other sizes or of another kind"):
        train_flow_matching.main(
            replace(SMOKE, out=tmp_path / "another", teacher=tmp_path / "other")
        )


@pytest.mark.parametrize("kind", ["flow", "mean"])
def test_images(kind, tmp_path):
    model = {
        "flow": ImageFlowMatchingConfig((1, 8, 8), UNET, steps=2),
        "mean": ImageMeanFlowConfig((1, 8, 8), UNET),
    }[kind]
    loss = {"flow": FlowMatchingLossConfig(), "mean": MeanFlowLossConfig(power=1.0)}[kind]
    args = replace(
        SMOKE, out=tmp_path / "run", data="digits", model=model, loss=loss, steps=2, log_every=1,
    )  # fmt: skip
    train_flow_matching.main(args)
    assert 0 < read_result(tmp_path / "run")["test_velocity_mse"] < 4
    folder = explore.main(
        replace(explore.PRESETS["smoke"], folder=tmp_path / "run", pictures=tmp_path / "out")
    )
    found = {path.stem for path in folder.iterdir()}
    assert found == {"samples", "steps", "path", "curves"}


@pytest.mark.parametrize("kind", ["flow", "mean"])
def test_exploration_of_points(kind, tmp_path):
    torch.manual_seed(0)
    config = {"flow": PointFlowMatchingConfig(ode_steps=4), "mean": PointMeanFlowConfig()}[kind]
    config.build().save_pretrained(tmp_path / "model")
    args = replace(
        explore.PRESETS["smoke"], data="eight-gaussians",
        folder=tmp_path / "model", pictures=tmp_path / "out",
    )  # fmt: skip
    folder = explore.main(args)
    density = {"density"} if kind == "flow" else set()
    assert {path.stem for path in folder.iterdir()} == {
        "paths", "steps", "velocity", "explore", *density
    }  # fmt: skip
    found = json.loads((folder / "explore.json").read_text())
    assert found["straightness"] == 0  # a fresh network has no velocity
    assert set(found["wasserstein"]) == {"1_steps", "2_steps", "of_data"}
    with pytest.raises(ValueError, match="steps is empty"):
        Settings(steps=())


def test_straightness_of_a_quarter_of_a_circle():
    """Of speed pi / 2 along an arc whose chord is sqrt(2) long."""
    angle = torch.linspace(0, torch.pi / 2, 2001, dtype=torch.float64)
    path = torch.stack([angle.cos(), angle.sin()], 1)[:, None]
    assert straightness(path) == pytest.approx((torch.pi / 2) ** 2 - 2, rel=1e-4)
    assert straightness(path[[0, -1]]) == pytest.approx(0)
