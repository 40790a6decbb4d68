"""`fit`: stopped anywhere and continued, it ends as if it had never stopped."""

import contextlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from generative.training.checkpoint import Checkpoints
from generative.training.loop import NonFiniteError, fit
from generative.training.metrics import read_metrics
from generative.training.run import Run
from tests.generative.training import linear_run
from tests.generative.training.linear_run import Args, LinearLearner

STEPS = 40


def outcome(out: Path) -> tuple[dict, list[dict]]:
    """Result and metrics of a run, without the wall clock."""
    lines = read_metrics(out)
    for line in lines:
        del line["time"]
    return json.loads((out / "result.json").read_text()), lines


@pytest.fixture(scope="module")
def never_stopped(tmp_path_factory) -> tuple[dict, list[dict]]:
    out = tmp_path_factory.mktemp("whole") / "run"
    linear_run.main(out, STEPS)
    return outcome(out)


def test_metrics_are_window_means(never_stopped, tmp_path):
    lines = never_stopped[1]
    assert [line["step"] for line in lines] == [7, 14, 21, 28, 35, 40]
    losses = []
    learner = LinearLearner()
    with Run.open(Args(out=tmp_path / "r", steps=7), kind="linear") as run:
        for step in range(7):
            torch.manual_seed(run.seed_for("step", step))
            batch = torch.from_numpy(run.rng("batch", step).normal(size=(8, 3))).float()
            losses.append(learner.update(batch)["loss"].item())
    assert lines[0]["loss"] == pytest.approx(np.mean(losses), rel=1e-12)


@pytest.fixture(scope="module")
def processes():
    """Starts processes that have torch loaded already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.generative.training.linear_run"])
    return context


def start_and_wait_for_a_checkpoint(processes, out: Path):
    before = Checkpoints(out / "checkpoints").steps()[-1:]
    process = processes.Process(target=linear_run.main, args=(out, STEPS, 0.001))
    process.start()
    while Checkpoints(out / "checkpoints").steps()[-1:] == before and process.is_alive():
        time.sleep(0.001)
    return process


def test_killed_at_random_moments_and_continued(never_stopped, tmp_path, processes):
    out = tmp_path / "run"
    rng, killed = random.Random(5), 0
    for _ in range(10):
        process = start_and_wait_for_a_checkpoint(processes, out)
        time.sleep(rng.uniform(0, 0.03))  # about the time of a step and its checkpoint
        process.kill()
        process.join()
        killed += process.exitcode == -signal.SIGKILL
    assert killed >= 3  # a quick machine may do all steps before the tenth
    linear_run.main(out, STEPS)
    assert outcome(out) == never_stopped


def test_interrupted_inside_a_window_and_inside_a_step(never_stopped, tmp_path):
    """Stops after every count of steps; the last step before each stop is repeated."""

    class Interrupted(Exception):
        pass

    class Interrupting(LinearLearner):
        calls = 0

        def update(self, batch):
            self.calls += 1
            if self.calls > 9:
                raise Interrupted
            return super().update(batch)

    out = tmp_path / "run"
    while not (out / "result.json").exists():
        with (
            contextlib.suppress(Interrupted),
            Run.open(Args(out=out, steps=STEPS), kind="linear") as run,
        ):
            learner = Interrupting()
            fit(learner, batches_of(run), run, STEPS, log_every=7, checkpoint_every_seconds=0)
            shutil.copytree(out / "checkpoints", tmp_path / "end")
            run.finish({"weights": hex_weights(learner)})
    assert outcome(out) == never_stopped
    assert Checkpoints(tmp_path / "end").steps() == [STEPS - 1, STEPS]


def batches_of(run):
    return lambda step: torch.from_numpy(run.rng("batch", step).normal(size=(8, 3))).float()


def hex_weights(learner):
    weights = torch.cat([p.detach().flatten() for p in learner.model.parameters()])
    return [value.hex() for value in weights.double().tolist()]


def test_damaged_last_checkpoint_costs_steps_but_not_the_result(never_stopped, tmp_path, capsys):
    out = tmp_path / "run"
    linear_run.main(out, 20, 0.0001)
    newest = Checkpoints(out / "checkpoints").path(20)
    data = bytearray((newest / "state.safetensors").read_bytes())
    data[-1] ^= 1
    (newest / "state.safetensors").write_bytes(data)
    # The schedule and the batches do not depend on the budget, so 20 + 20 steps equal 40.
    linear_run.main(out, STEPS)
    assert "000020/state.safetensors" in capsys.readouterr().err
    result, lines = outcome(out)
    assert result == never_stopped[0]
    assert [line["step"] for line in lines] == [7, 14, 21, 28, 35, 40]


def test_stop_signals_save_and_exit(never_stopped, tmp_path, processes):
    out = tmp_path / "run"
    for number, status in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        process = start_and_wait_for_a_checkpoint(processes, out)
        os.kill(process.pid, number)
        process.join()
        assert process.exitcode == status
        assert not (out / "result.json").exists()
    linear_run.main(out, STEPS)
    assert outcome(out) == never_stopped


def test_signal_in_the_last_step_is_not_lost(tmp_path, capsys):
    class Last(LinearLearner):
        def update(self, batch):
            os.kill(os.getpid(), signal.SIGTERM)
            return super().update(batch)

    with Run.open(Args(out=tmp_path / "run"), kind="linear") as run:
        with pytest.raises(SystemExit) as caught:
            fit(Last(), batches_of(run), run, 1, what="fitting V")
        assert caught.value.code == 143
        assert "fitting V: saved at step 1 of 1 (SIGTERM)" in capsys.readouterr().err
        fit(Last(), batches_of(run), run, 1)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_loss_stops_and_is_never_saved(tmp_path, value):
    class Bad(LinearLearner):
        calls = 0

        def update(self, batch):
            self.calls += 1
            values = super().update(batch)
            return values if self.calls != 9 else {**values, "loss": torch.tensor(value)}

    out = tmp_path / "run"
    with Run.open(Args(out=out, seed=12), kind="linear") as run:
        with pytest.raises(
            NonFiniteError, match=r"fitting V: loss is (nan|inf) at step 8, seed 12"
        ):
            fit(Bad(), batches_of(run), run, STEPS, log_every=5, what="fitting V")
        assert [line["step"] for line in read_metrics(out)] == [5]
        with pytest.raises(NonFiniteError):
            fit(Bad(), batches_of(run), run, STEPS, log_every=5, checkpoint_every_seconds=0)
        assert Checkpoints(out / "checkpoints").steps()[-1] == 8


def test_metrics_that_appear_only_now_and_then(tmp_path):
    class Critic(LinearLearner):
        calls = 0

        def update(self, batch):
            self.calls += 1
            values = {"critic": float(self.calls)}
            return values | ({"generator": 10.0 * self.calls} if self.calls % 5 == 0 else {})

    with Run.open(Args(out=tmp_path / "run"), kind="linear") as run:
        fit(Critic(), batches_of(run), run, 20, log_every=10)
        lines = read_metrics(run.path)
    assert [(line["critic"], line["generator"]) for line in lines] == [(5.5, 75.0), (15.5, 175.0)]


def test_nothing_to_do_and_too_small_a_budget(tmp_path):
    out = tmp_path / "run"
    linear_run.main(out, 10)
    with Run.open(Args(out=out, steps=10), kind="linear") as run:
        learner = LinearLearner()
        learner.update = None
        fit(learner, batches_of(run), run, 10)
        with pytest.raises(ValueError, match="has had 10 steps, more than the 6 asked for"):
            fit(learner, batches_of(run), run, 6)


def test_random_numbers_do_not_depend_on_what_was_drawn_before(tmp_path):
    drawn = []

    class Drawing(LinearLearner):
        def update(self, batch):
            drawn.append(torch.rand(1).item())
            return {"loss": 0.0}

    for name in "ab":
        torch.rand(len(drawn) * 7)
        with Run.open(Args(out=tmp_path / name), kind="linear") as run:
            fit(Drawing(), batches_of(run), run, 5)
    assert drawn[:5] == drawn[5:]
    assert len(set(drawn)) == 5
