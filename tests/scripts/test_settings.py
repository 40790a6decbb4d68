"""What every script's settings refuse before the command does anything."""

import dataclasses
import importlib
import typing
from pathlib import Path

import pytest

import scripts
from generative.training.cli import parse
from generative.training.ranges import Checked, Limit
from tests.commands import run_script

VERBS = [path.stem for path in Path(scripts.__file__).parent.glob("[!_]*.py")]
PLACES = {("compare_controllers", "round")}
"""Numbers that count from the end too; what they name is looked up."""


def limited(hint) -> bool:
    """Whether every number in an annotation has a limit."""
    if hint in (int, float):
        return False
    if any(isinstance(extra, Limit) for extra in getattr(hint, "__metadata__", ())):
        return True
    return all(limited(part) for part in typing.get_args(hint) if isinstance(part, type | object))


@pytest.mark.parametrize("verb", VERBS)
def test_every_number_and_device_has_its_range(verb):
    script = importlib.import_module(f"scripts.{verb}")
    kind = type(next(iter(script.PRESETS.values())))
    assert issubclass(kind, Checked)
    hints = typing.get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        if (verb, field.name) not in PLACES and not dataclasses.is_dataclass(hints[field.name]):
            assert limited(hints[field.name]), field.name
        assert field.name != "device" or hints["device"] is not str


@pytest.mark.parametrize(
    ("verb", "words", "told"),
    [
        ("evaluate", ["--episodes", "0"], "episodes is 0, and must be at least 1 and at most 100"),
        ("collect_rollouts", ["--workers", "-2"], "workers is -2, and must be at least 0"),
        ("train_vae", ["--threads", "-1"], "threads is -1, and must be at least 0"),
        ("train_vae", ["--batch-size", "0"], "batch_size is 0, and must be at least 1"),
        ("train_vae", ["--steps", "-5"], "steps is -5, and must be at least 1"),
        ("train_in_dream", ["--device", "gpux"], "device is 'gpux', and must be auto, cpu, cuda"),
        ("explore", ["--device", "cuda:x"], "device is 'cuda:x'"),
        ("render_dream", ["--out", "drive.avi"], "film is PosixPath('drive.avi'), and must be a"),
        ("render_dream", ["--gif", "drive.mp4"], "gif is PosixPath('drive.mp4')"),
        ("evaluate", ["--json", "scores.csv"], "a name that ends in .json"),
        ("explore", ["--out", "grid.png"], "pictures is PosixPath('grid.png')"),
        ("render_dream", ["--seconds", "nan"], "seconds is nan"),
        ("train_in_dream", ["--memory.steps", "0"], "steps is 0"),
    ],
)
def test_one_message_about_the_one_that_is_wrong(verb, words, told, capsys):
    script = importlib.import_module(f"scripts.{verb}")
    with pytest.raises(SystemExit) as caught:
        parse(script.PRESETS, getattr(script, "DEFAULT_PRESET", None), argv=words)
    assert caught.value.code == 2
    text = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert told in text
    assert text.count("must be") == 1


@pytest.mark.parametrize(
    ("verb", "told"),
    [
        ("train_mdnrnn", "data: no such folder; make it with `worldmodels encode_rollouts`"),
        ("evaluate", "carracing-dream: no such folder; make it with `worldmodels train_in_dream`"),
        ("explore", "carracing-dream/vision: no such folder; pass the folder of a run or of"),
        ("import_weights", "weights: no such folder; pass a clone of hardmaru/WorldModelsExp"),
    ],
)
def test_what_is_missing_is_said_before_torch_is_loaded(tmp_path, verb, told):
    done = run_script(verb, modules=True, cwd=tmp_path)
    assert done.returncode == 1
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert "torch" not in {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not list(tmp_path.rglob("*.json"))
