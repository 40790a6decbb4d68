"""Trackers: what is asked for gets the numbers, and a continued run is the same one."""

import importlib.machinery
import json
import sys
import types
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from generative.training import tracking
from generative.training.cli import parse
from generative.training.files import DamagedFileError
from generative.training.run import Run
from generative.training.settings import from_json, to_json
from scripts import train_ppo


@dataclass(frozen=True)
class Args:
    out: Path = Path("runs/x")
    rate: float = 0.5
    seed: int = 1


@pytest.fixture(autouse=True)
def _no_choice():
    yield
    tracking.choose_tracker("")


@pytest.fixture
def fake(request, monkeypatch):
    """A module in the place of W&B or trackio, which writes down its calls."""
    module = types.ModuleType(request.param)
    module.__spec__ = importlib.machinery.ModuleSpec(request.param, None)
    module.calls = []

    def init(**words):
        module.calls.append(("init", words))
        run = types.SimpleNamespace()
        run.log = lambda values, step: module.calls.append(("log", step, values))
        run.finish = lambda: module.calls.append(("finish",))
        return run

    module.init, module.Image = init, lambda array: ("image", array.shape)
    monkeypatch.setitem(sys.modules, request.param, module)
    return module


def work(folder: Path, step: int) -> None:
    with Run.open(Args(folder), kind="train_x") as run:
        run.metrics.log(step, {"loss": 0.25})
        run.metrics.log_event(step, "speed", 3.0)
        run.metrics.log_image(step, "seen", np.zeros((2, 3, 3), np.uint8))


@pytest.mark.parametrize("fake", tracking.REMOTE, indirect=True)
def test_a_continued_run_is_the_same_tracked_run(fake, tmp_path):
    folder = tmp_path / "run"
    parse({"a": Args()}, argv=["--track", fake.__name__])
    work(folder, 1)
    assert [call[0] for call in fake.calls] == ["init", "log", "log", "log", "finish"]
    assert fake.calls[1:4] == [
        ("log", 1, {"loss": 0.25}),
        ("log", 1, {"speed": 3.0}),
        ("log", 1, {"seen": ("image", (2, 3, 3))}),
    ]
    assert not (folder / "tensorboard").exists()
    config = {"command": "train_x", "out": str(folder), "rate": 0.5, "seed": 1}
    begun = fake.calls[0][1]
    assert begun["config"] == config
    tracking.choose_tracker("")  # another process, without the flag
    fake.calls.clear()
    work(folder, 2)
    assert fake.calls[0][1] == begun
    assert begun["resume"] == "allow"
    work(tmp_path / "other", 1)
    assert len([call for call in fake.calls if call[0] == "init"]) == 1  # that one is not tracked
    tracking.choose_tracker(fake.__name__)
    work(tmp_path / "third", 1)
    key = "id" if fake.__name__ == "wandb" else "name"
    assert fake.calls[-5][1][key] != begun[key]


@pytest.mark.parametrize("fake", ["wandb"], indirect=True)
def test_none_ends_the_tracking_and_results_do_not_depend_on_it(fake, tmp_path):
    lines = []
    for name in ("wandb", "none"):
        tracking.choose_tracker(name)
        work(tmp_path / name, 1)
        line = json.loads((tmp_path / name / "metrics.jsonl").read_text())
        lines.append({**line, "time": 0})
    assert lines[0] == lines[1]
    assert len([call for call in fake.calls if call[0] == "init"]) == 1
    assert not (tmp_path / "none" / "tracked.json").exists()
    assert not (tmp_path / "none" / "tensorboard").exists()


@pytest.mark.parametrize("fake", ["wandb"], indirect=True)
def test_a_run_that_logs_nothing_is_not_tracked(fake, tmp_path):
    tracking.choose_tracker("wandb")
    with Run.open(Args(tmp_path / "run"), kind="train_x") as run:
        assert run.metrics.text == ""
    assert fake.calls == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--track", "tensorbord"], "'tensorbord' is no tracker; choose one of tensorboard, wandb"),
        (["--track"], "is no tracker"),
        (["--track=absent"], "'absent' is no tracker"),
        (["--track", "trackio"], "trackio is not installed: pip install trackio"),
    ],
)
def test_a_wrong_tracker_is_told_in_one_line(words, told, capsys, monkeypatch):
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="2"):
        parse({"a": Args()}, argv=words)
    assert told in capsys.readouterr().err


def test_a_damaged_record_and_a_missing_package_are_named(tmp_path, monkeypatch):
    with Run.open(Args(tmp_path / "run"), kind="train_x"):
        (tmp_path / "run" / "tracked.json").write_text('{"by": "os", "id": "x"}')
    with pytest.raises(DamagedFileError, match=r"tracked.json: is no record of a tracker"):
        Run.open(Args(tmp_path / "run"), kind="train_x")
    (tmp_path / "run" / "tracked.json").write_text('{"by": "wandb", "id": "x"}')
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="is tracked by wandb: wandb is not installed"):
        Run.open(Args(tmp_path / "run"), kind="train_x")


def test_settings_of_older_policies_are_read():
    old = {**to_json(train_ppo.Args()), "tensorboard": False}
    assert from_json(train_ppo.Args, old) == train_ppo.Args()
