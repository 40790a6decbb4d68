"""What a command says when its run has ended."""

import json
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest

from generative.training.cli import start
from generative.training.ending import NEXT, describe_run
from generative.training.run import Run
from scripts.__main__ import find_verbs


@dataclass(frozen=True)
class Args:
    out: Path = Path("run")
    steps: int = 1


def train(args: Args, kind: str = "train_realnvp") -> None:
    with Run.open(args, kind=kind) as run:
        if not run.done:
            run.metrics.log(1, {"loss": 2.0})
            (run.path / "model").mkdir()
            (run.path / "images").mkdir()
            run.finish({**run.metrics.last(), "nll": 1.25, "floor": 1.0, "gap": 0.25, "n": 1200})


def test_figures_beside_their_floor_places_and_what_to_try_next(tmp_path):
    run = tmp_path / "run"
    train(Args(run))
    assert describe_run(run).splitlines() == [
        f"{run} is complete",
        "  nll       1.25  (floor 1, 0.25 above)",
        "  n         1,200",
        "  training  loss 2",
        f"  model     {run / 'model'}",
        f"  pictures  {run / 'images'}",
        f"  curves    {run / 'curves.png'}",
        f"  next      worldmodels explore {run}",
    ]


def test_a_path_with_spaces_is_quoted_in_the_command(tmp_path):
    train(Args(tmp_path / "a run"))
    _, _, command = describe_run(tmp_path / "a run").rpartition("next ")
    assert shlex.split(command) == ["worldmodels", "explore", str(tmp_path / "a run")]


def test_damaged_metrics_leave_the_figures(tmp_path):
    train(Args(tmp_path / "run"))
    (tmp_path / "run" / "metrics.jsonl").write_text("{}\n")
    assert "  nll       1.25  (floor 1, 0.25 above)\n" in describe_run(tmp_path / "run")


def test_a_command_says_it_when_it_ends_and_when_it_had_ended(tmp_path, capsys):
    for _ in range(2):
        start(train, {"a": Args()}, argv=["--out", str(tmp_path / "run")], prog="worldmodels x")
        assert capsys.readouterr().out == describe_run(tmp_path / "run") + "\n"


def test_a_run_that_has_not_ended_says_nothing(tmp_path, capsys):
    def begin(args: Args) -> None:
        with Run.open(args, kind="x") as run:
            run.metrics.log(1, {"loss": 2.0})

    start(begin, {"a": Args()}, argv=["--out", str(tmp_path / "run")], prog="worldmodels x")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("kind", [kind for kind, command in NEXT.items() if command])
def test_the_next_command_is_one_that_exists(kind):
    """With options that it has."""
    import importlib

    from generative.training.cli import parse

    verbs = find_verbs()
    assert kind in verbs
    _, verb, *words = NEXT[kind].format(out="runs/x").split()
    script = importlib.import_module(f"scripts.{verb}")
    parse(script.PRESETS, getattr(script, "DEFAULT_PRESET", None), argv=words)


def test_what_train_in_dream_says_itself_is_not_said_again(tmp_path):
    with Run.open(Args(tmp_path / "run"), kind="train_in_dream") as run:
        run.finish({"real_mean": 900.0, "random_mean": -20.0})
    assert describe_run(tmp_path / "run") == ""
    with Run.open(Args(tmp_path / "ppo"), kind="train_ppo") as run:
        run.finish({"real_mean": 900.0, "random_mean": -20.0})
    text = describe_run(tmp_path / "ppo")
    assert "real_mean  900  (random actions -20, 920 above)" in text
    assert json.loads((tmp_path / "ppo" / "result.json").read_text())["random_mean"] == -20.0
