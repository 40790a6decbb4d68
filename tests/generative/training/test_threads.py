"""The choice of threads: made once, kept in the run, and without a trace in what is learned."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from generative.training import threads as module
from generative.training.files import DamagedFileError, read_json
from generative.training.loop import fit
from generative.training.run import Run
from tests.generative.training.linear_run import LinearLearner


@dataclass(frozen=True)
class Args:
    """Fit a line."""

    out: Path
    steps: int = 60
    threads: int = 0
    seed: int = 3
    tensorboard: bool = False


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def cost(monkeypatch):
    """Milliseconds that a step takes on 1 and on 2 threads, on a clock of our own."""
    cost, now = {1: 10, 2: 20}, [0.0]

    class Learner(LinearLearner):
        def update(self, batch):
            now[0] += cost[torch.get_num_threads()] / 1000
            self.seen = torch.get_num_threads()
            return super().update(batch)

    class Clock:
        @staticmethod
        def perf_counter():
            return now[0]

    monkeypatch.setattr(module, "time", Clock)
    cost["learner"] = Learner
    return cost


def train(cost, args: Args) -> LinearLearner:
    learner = cost["learner"]()
    with Run.open(args, kind="linear") as run:
        fit(
            learner,
            lambda step: torch.from_numpy(run.rng("batch", step).normal(size=(8, 3))).float(),
            run,
            args.steps,
            what="fitting a line",
        )
    assert torch.get_num_threads() == 2
    return learner


@pytest.mark.parametrize("best", [1, 2])
def test_the_quicker_is_taken_kept_and_told(tmp_path, cost, capsys, monkeypatch, best):
    cost[best] = 5
    other = 3 - best
    learner = train(cost, Args(tmp_path / "run"))
    assert learner.seen == best
    assert read_json(tmp_path / "run" / "threads.json") == {"threads": best}
    told = capsys.readouterr().out
    assert f"fitting a line: CPU threads: {best} (" in told
    assert f"5 ms a step on {best}" in told
    assert f"{cost[other]} ms a step on {other}" in told
    # The trial has left nothing behind, neither in the weights nor in the random numbers.
    monkeypatch.setattr(module, "_try", None)
    fixed = train(cost, Args(tmp_path / "fixed", threads=best))
    for ours, theirs in zip(learner.model.parameters(), fixed.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert not (tmp_path / "fixed" / "threads.json").exists()
    # And a run that goes on does not try again.
    assert train(cost, Args(tmp_path / "run")).model[0].weight.equal(learner.model[0].weight)


def test_short_runs_and_single_cores_try_nothing(tmp_path, cost, monkeypatch):
    monkeypatch.setattr(module, "_try", None)
    assert train(cost, Args(tmp_path / "short", steps=49)).seen == 2
    assert not (tmp_path / "short" / "threads.json").exists()


def test_a_damaged_choice_is_named(tmp_path, cost):
    args = Args(tmp_path / "run")
    train(cost, args)
    (tmp_path / "run" / "result.json").unlink(missing_ok=True)
    for wrong in ('{"threads": 0}', '{"threads": true}', "[]", "{"):
        (tmp_path / "run" / "threads.json").write_text(wrong)
        with pytest.raises(DamagedFileError, match=r"threads\.json"):
            train(cost, args)
