"""Training and exploring of energies, Boltzmann machines and scores, beyond their smoke presets."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from generative.energy.config import ConvEnergyConfig, LangevinConfig
from generative.rbm import RBM
from generative.rbm.config import DBNConfig, RBMConfig
from generative.score_matching.config import ScoreConfig
from scripts import explore, train_energy, train_rbm, train_score

torch.set_num_threads(1)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Twelve grey images."""
    for i in range(12):
        pixels = np.random.default_rng(i).integers(256, size=(16, 16), dtype=np.uint8)
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{i}.png")
    return tmp_path / "images"


def result(run: Path) -> dict:
    return json.loads((run / "result.json").read_text())


def drawn(model: Path, out: Path) -> set[str]:
    """Names of the pictures, all of which can be opened."""
    explore.main(replace(explore.PRESETS["smoke"], folder=model, pictures=out))
    assert all(Image.open(path).size[0] > 10 for path in out.iterdir())
    return {path.stem for path in out.iterdir()}


def test_energy_of_images(tmp_path, folder):
    args = replace(
        train_energy.PRESETS["smoke"],
        data="folder",
        data_dir=folder,
        out=tmp_path / "run",
        model=ConvEnergyConfig((1, 16, 16), (4, 4), 8, LangevinConfig(steps=3)),
        steps=4,
        log_every=2,
        picture_every=2,
    )
    model = train_energy.main(args)
    found = result(tmp_path / "run")
    assert found["val_cdiv"] == pytest.approx(found["val_noise"] - found["val_real"])
    assert found["distance_samples"] > 0
    names = drawn(model, tmp_path / "pictures")
    assert names == {"walks", "samples", "buffer", "energies", "curves"}


def test_energy_of_points(tmp_path):
    args = replace(
        train_energy.PRESETS["smoke"],
        out=tmp_path / "run",
        data="eight-gaussians",
        loss=replace(train_energy.PLANE, langevin=LangevinConfig(2), buffer_size=50),
    )
    model = train_energy.main(args)
    found = result(tmp_path / "run")
    assert found["nll"] == pytest.approx(found["floor"] + found["gap"])
    assert 0 < found["gap"] < 3
    assert drawn(model, tmp_path / "pictures") == {"landscape", "energies", "curves"}


def test_rbm_of_bars_and_stripes(tmp_path):
    args = replace(train_rbm.PRESETS["smoke"], out=tmp_path / "run")
    model = train_rbm.main(args)
    found = result(tmp_path / "run")
    assert math.log(30) < found["test_nll"] < 12  # 16 log 2 = 11.1 for random bits
    assert found["ais_log_partition"] == pytest.approx(found["log_partition"], abs=0.1)
    assert RBM.from_pretrained(model).sample(2).shape == (2, 1, 4, 4)
    names = drawn(model, tmp_path / "pictures")
    assert names == {"receptive_fields", "gibbs_chains", "reconstructions", "curves"}


def test_rbm_too_large_to_enumerate_has_an_estimate(tmp_path, folder):
    args = replace(
        train_rbm.PRESETS["smoke"], data="folder", data_dir=folder, out=tmp_path / "run",
        model=RBMConfig((1, 8, 8), 30, sample_steps=2), steps=3,
    )  # fmt: skip
    train_rbm.main(args)
    assert {"test_nll_estimate"} == {
        k for k in result(tmp_path / "run") if k.startswith("test_nll")
    }


def test_deep_belief_network(tmp_path):
    args = replace(
        train_rbm.PRESETS["smoke"], kind="dbn", out=tmp_path / "run",
        stack=DBNConfig((1, 4, 4), (6, 4), sample_steps=3),
    )  # fmt: skip
    model = train_rbm.main(args)
    assert math.log(30) < result(tmp_path / "run")["test_nll_at_most"] < 20
    names = drawn(model, tmp_path / "pictures")
    assert names == {"units_of_layer_1", "units_of_layer_2", "samples", "curves"}


def test_score_of_images(tmp_path, folder):
    args = replace(
        train_score.PRESETS["smoke"], data="folder", data_dir=folder, out=tmp_path / "run",
        model=ScoreConfig((1, 8, 8), hidden_dim=4, num_hidden=1, num_levels=3, sample_steps=2),
        steps=3,
    )  # fmt: skip
    model = train_score.main(args)
    assert 0 < result(tmp_path / "run")["test_loss"] < 10
    assert drawn(model, tmp_path / "pictures") == {"walks", "curves"}


@pytest.mark.nightly
def test_score_of_points(tmp_path):
    args = replace(train_score.PRESETS["smoke"], out=tmp_path / "run", data="two-moons")
    model = train_score.main(args)
    found = result(tmp_path / "run")
    assert 0 < found["energy_p"] <= 1
    assert found["denoising_loss"] == pytest.approx(found["loss_floor"] + found["loss_excess"])
    assert drawn(model, tmp_path / "pictures") == {"walks", "score_field", "curves"}


def test_a_model_without_its_run_is_explored_too(tmp_path):
    torch.manual_seed(0)
    RBM(RBMConfig((1, 4, 4), 3)).save_pretrained(tmp_path / "alone")
    assert drawn(tmp_path / "alone", tmp_path / "out") == {"receptive_fields", "gibbs_chains"}
