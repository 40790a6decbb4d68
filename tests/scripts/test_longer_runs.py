"""Runs of the families that are made longer: `--resume RUN --steps MORE`."""

import importlib
import json
from dataclasses import replace

import pytest
import torch

from generative.training.cli import parse
from generative.training.files import read_json
from generative.training.metrics import read_metrics
from scripts import train_gpt, train_rbm
from tests.generative.families import FAMILIES

torch.set_num_threads(1)

SCRIPTS = sorted({family.script for family in FAMILIES.values() if family.script})


@pytest.mark.parametrize("script", [*SCRIPTS, "fine_tune_bert", "train_mdnrnn", "train_vae"])
def test_every_familys_run_can_be_given_more_steps(script):
    module = importlib.import_module(f"scripts.{script}")
    assert "steps" in next(iter(module.PRESETS.values())).resumable_fields


def resumed(module, run, steps: int):
    """Settings of a run with more steps, as the command line gives them."""
    return parse(module.PRESETS, argv=["--resume", str(run), "--steps", str(steps)], prog="train")


@pytest.mark.parametrize("module", [train_rbm, pytest.param(train_gpt, marks=pytest.mark.nightly)])
def test_finished_run_goes_on_and_may_be_killed_there(module, tmp_path, monkeypatch):
    """20 steps, then up to 40, once in one go and once with a stop in between."""

    class Killed(BaseException):
        pass

    smoke, weights = module.PRESETS["smoke"], {}
    for name in ("in one go", "killed"):
        run = tmp_path / name
        module.main(replace(smoke, out=run, device="cpu"))
        assert (run / "result.json").exists()
        if name == "killed":
            from generative.training import loop

            def update(values, step, *rest, add=loop._Window.add):
                if step == 33:
                    raise Killed
                add(values, step, *rest)

            with monkeypatch.context() as patch:
                patch.setattr(loop._Window, "add", update)
                with pytest.raises(Killed):
                    module.main(resumed(module, run, 40))
            assert not (run / "result.json").exists()
        module.main(resumed(module, run, 40))
        assert read_metrics(run)[-1]["step"] == 40
        assert read_json(run / "config.json")["settings"]["steps"] == 40
        weights[name] = (run / "model" / "model.safetensors").read_bytes()
    assert weights["in one go"] == weights["killed"]


def test_fewer_steps_than_were_made_change_nothing(tmp_path):
    run = tmp_path / "run"
    train_rbm.main(replace(train_rbm.PRESETS["smoke"], out=run))
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file() and "lock" not in p.name}
    with pytest.raises(ValueError, match="has had 20 steps, more than the 10 asked for"):
        train_rbm.main(resumed(train_rbm, run, 10))
    after = {p: p.read_bytes() for p in run.rglob("*") if p.is_file() and "lock" not in p.name}
    assert after == before
    assert json.loads((run / "result.json").read_text())


def test_layers_of_a_network_share_its_steps_which_stay(tmp_path, capsys):
    run = tmp_path / "run"
    stack = replace(train_rbm.PRESETS["smoke"].stack, shape=(1, 4, 4), hidden_dims=(4, 3))
    train_rbm.main(replace(train_rbm.PRESETS["smoke"], out=run, kind="dbn", stack=stack))
    with pytest.raises(SystemExit):
        resumed(train_rbm, run, 40)
    assert "steps: stays 20, not 40" in capsys.readouterr().err
