"""`fit`: stopped anywhere and continued, it ends as if it had never stopped."""

import contextlib
import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from generative.training.checkpoint import (
    Checkpoints,
    DamagedFileError,
    check_finite,
    load_state,
    save_state,
)
from generative.training.loop import NonFiniteError, fit
from generative.training.metrics import read_metrics
from generative.training.optimisation import Optimisation
from generative.training.run import Run
from tests.generative.training import linear_run
from tests.generative.training.linear_run import Args, LinearLearner
from tests.warm import fork_server

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
    return fork_server()


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


def lose_a_line(lines: list[bytes]) -> list[bytes]:
    return lines[:1] + lines[2:]


def change_a_number(lines: list[bytes]) -> list[bytes]:
    return [lines[0].replace(b'"loss": ', b'"loss": 1'), *lines[1:]]


def swap(lines: list[bytes]) -> list[bytes]:
    return [lines[1], lines[0], *lines[2:]]


DAMAGES = {
    "cut": lambda lines: [*lines[:-1], lines[-1][:9]],
    "cut in the first line": lambda lines: [lines[0][:9]],
    "a line lost": lose_a_line,
    "the last line lost": lambda lines: lines[:-1],
    "a number changed": change_a_number,
    "out of order": swap,
    "twice": lambda lines: [*lines[:1], *lines],
    "no JSON": lambda lines: [b"{\n", *lines[1:]],
    "binary": lambda lines: [bytes(range(256))],
    "empty": lambda lines: [],
    "NaN": lambda lines: [b'{"step": 7, "time": 1.0, "loss": NaN}\n', *lines[1:]],
    "missing": None,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_metrics_are_mended_to_the_last_number(never_stopped, tmp_path, capsys, damage):
    out = tmp_path / "run"
    linear_run.main(out, 20, 0.0001)
    file = out / "metrics.jsonl"
    before = file.read_bytes()
    file.unlink()
    if damage is not None:
        file.write_bytes(b"".join(damage(before.splitlines(keepends=True))))
    linear_run.main(out, STEPS)
    assert str(file) in capsys.readouterr().err
    # The window of the first run ended with its budget.
    assert file.read_bytes().startswith(before)
    result, lines = outcome(out)
    assert result == never_stopped[0]
    assert [line["step"] for line in lines] == [7, 14, 20, 21, 28, 35, 40]


def test_checkpoints_that_changed_places_are_not_taken(never_stopped, tmp_path, capsys):
    out = tmp_path / "run"
    with (
        contextlib.suppress(ZeroDivisionError),
        Run.open(Args(out=out, steps=STEPS), kind="linear") as run,
    ):
        learner = LinearLearner()
        fit(learner, stopping(run, 30), run, STEPS, log_every=7, checkpoint_every_seconds=0)
    kept = Checkpoints(out / "checkpoints")
    last, newest = kept.steps()
    kept.path(last).rename(tmp_path / "aside")
    kept.path(newest).rename(kept.path(last))
    (tmp_path / "aside").rename(kept.path(newest))
    with pytest.raises(DamagedFileError) as caught:
        linear_run.main(out, STEPS)
    assert f"{kept.path(newest)}: is the checkpoint of step {last}" in str(caught.value)
    assert f"{kept.path(last)}: is the checkpoint of step {newest}" in str(caught.value)
    assert "Delete that folder" in str(caught.value)
    shutil.rmtree(kept.folder)
    linear_run.main(out, STEPS)
    assert outcome(out) == never_stopped


def stopping(run, step):
    """Batches up to a step, at which an error ends the run."""
    batches = batches_of(run)
    return lambda s: batches(s) if s < step else 1 / 0


@pytest.mark.parametrize("other", [{"seed": 4}, {"kind": "quadratic"}])
def test_a_checkpoint_of_another_run_is_not_taken(never_stopped, tmp_path, capsys, other):
    out, kind = tmp_path / "run", other.pop("kind", "linear")
    for folder, args, name in (
        (out, Args(out=out, steps=STEPS), "linear"),
        (tmp_path / "b", Args(out=tmp_path / "b", steps=STEPS, **other), kind),
    ):
        with contextlib.suppress(ZeroDivisionError), Run.open(args, kind=name) as run:
            fit(LinearLearner(), stopping(run, 20), run, STEPS, log_every=7,
                checkpoint_every_seconds=0)  # fmt: skip
        assert Checkpoints(folder / "checkpoints").steps() == [19, 20]
    place = out / "checkpoints" / "000020"
    shutil.rmtree(place)
    (tmp_path / "b/checkpoints/000020").rename(place)
    linear_run.main(out, STEPS)
    told = capsys.readouterr().err
    assert f"damaged checkpoint: {place}: belongs to " in told
    assert ("seed 4, not 3" if other else "a run of quadratic") in told
    assert outcome(out) == never_stopped


def test_a_run_that_is_moved_and_extended_knows_its_checkpoints(tmp_path, capsys):
    linear_run.main(tmp_path / "a", 20)
    assert "going on" not in capsys.readouterr().out
    (tmp_path / "a").rename(tmp_path / "b")
    linear_run.main(tmp_path / "b", STEPS)
    assert f"going on at step 20 of {STEPS}" in capsys.readouterr().out
    linear_run.main(tmp_path / "whole", STEPS)
    assert outcome(tmp_path / "b")[0] == outcome(tmp_path / "whole")[0]


def test_checkpoints_of_earlier_versions_are_read(never_stopped, tmp_path):
    out = tmp_path / "run"
    with (
        contextlib.suppress(ZeroDivisionError),
        Run.open(Args(out=out, steps=STEPS), kind="linear") as run,
    ):
        fit(LinearLearner(), stopping(run, 20), run, STEPS, log_every=7, checkpoint_every_seconds=0)
    for folder in (out / "checkpoints").iterdir():
        save_state(folder, load_state(folder)["state"])  # which was all that they held
    (out / "metrics.jsonl").write_text((out / "metrics.jsonl").read_text() + '{"step": 2')
    linear_run.main(out, STEPS)
    assert outcome(out) == never_stopped


@pytest.mark.parametrize("how", ["moved", "deleted"])
def test_a_run_folder_that_goes_away_is_told_once(tmp_path, how):
    out, there = tmp_path / "run", tmp_path / "there"

    def batches(step):
        if step == 5:
            shutil.rmtree(out) if how == "deleted" else out.rename(there)
        return torch.zeros(8, 3)

    with (
        pytest.raises(FileNotFoundError, match=f"^{out} was moved or deleted") as caught,
        Run.open(Args(out=out, steps=STEPS), kind="linear") as run,
    ):
        fit(LinearLearner(), batches, run, STEPS, log_every=7, checkpoint_every_seconds=0)
    assert caught.value.__suppress_context__
    assert os.listdir(tmp_path) == (["there"] if how == "moved" else [])
    if how == "moved":
        linear_run.main(there, STEPS)


def test_stop_signals_save_and_exit(never_stopped, tmp_path, processes):
    out = tmp_path / "run"
    for number, status in ((signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)):
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


class Summing:
    """Learner of one weight whose loss is a sum, and the gradient of which a test may spoil."""

    def __init__(self, spoiled: int = -1, values=None, scale: float = 1.0):
        self.model = torch.nn.Linear(3, 1)
        adam = torch.optim.Adam(self.model.parameters(), lr=0.01)
        self.optimisation = Optimisation(self.model, adam, STEPS, name="line")
        self.values, self.spoiled, self.scale, self.calls = values or {}, spoiled, scale, 0
        self.model.weight.register_hook(self.spoil)

    def spoil(self, gradient):
        return gradient * float("nan") if self.calls == self.spoiled else gradient

    def update(self, batch):
        fit_of = self.model(batch).square().mean()
        loss = fit_of * self.scale
        self.optimisation.step(loss)
        added = {name: value for name, (step, value) in self.values.items() if step <= self.calls}
        self.calls += 1
        return {"loss": fit_of.detach(), "fit": fit_of.detach(), **added}

    def state_dict(self):
        return self.optimisation.state_dict()

    def load_state_dict(self, state):
        self.optimisation.load_state_dict(state)


NAN = float("nan")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        # A weight that is NaN spoils all that is logged from the step after.
        ({"spoiled": 3}, r"gradient of the line is nan at step 3, seed 12; its loss was finite.*"),
        # Logged first, but not what was NaN first.
        ({"values": {"early": (6, NAN), "late": (4, NAN)}}, r"late is nan at step 4, seed 12"),
        ({"values": {"first": (4, NAN), "second": (4, NAN)}}, r"first is nan at step 4"),
        # A sum is logged before its parts.
        ({"values": {"loss": (4, NAN), "part": (4, NAN)}}, r"part is nan at step 4"),
        ({"spoiled": 4, "values": {"part": (4, NAN)}}, r"gradient of the line is nan at step 4"),
        ({"spoiled": 5, "values": {"part": (4, NAN)}}, r"part is nan at step 4"),
        # Everything that is logged is finite, and their weighted sum is not.
        ({"scale": 1e39}, r"loss of the line is inf at step 0, seed 12; lower the weights"),
    ],
)
@pytest.mark.parametrize("every", [0.0, 60.0])
def test_what_was_not_finite_first_is_named(tmp_path, settings, message, every):
    torch.manual_seed(0)
    out = tmp_path / "run"
    with Run.open(Args(out=out, seed=12), kind="linear") as run:
        with pytest.raises(NonFiniteError, match=rf"fitting V: {message}"):
            fit(
                Summing(**settings), batches_of(run), run, 10,
                log_every=8, checkpoint_every_seconds=every, what="fitting V",
            )  # fmt: skip
        saved = run.checkpoints.load_latest()
    assert (saved is None) == (every > 0 or "scale" in settings)
    if saved is not None:
        check_finite(saved[1], "fitting V", saved[0], 12)


@pytest.mark.parametrize("what", ["weight", "buffer"])
def test_weights_that_are_not_finite_are_never_saved_though_the_loss_is(tmp_path, what):
    """The step ends in NaN, of which its own loss knows nothing yet."""

    class Bad(LinearLearner):
        def __init__(self):
            super().__init__()
            self.model.register_buffer("scale", torch.ones(2))
            self.calls = 0

        def update(self, batch):
            values = super().update(batch)
            self.calls += 1
            if self.calls == 9:
                bad = self.model.scale if what == "buffer" else self.model[2].weight
                bad.data.view(-1)[1] = float("nan")
            return values

    out = tmp_path / "run"
    name = "model.scale" if what == "buffer" else "model.2.weight"
    with Run.open(Args(out=out, seed=12), kind="linear") as run:
        fit(Bad(), batches_of(run), run, 4)
        saved = {p: p.read_bytes() for p in (out / "checkpoints").rglob("*") if p.is_file()}
        with pytest.raises(
            NonFiniteError, match=rf"fitting V: {name} is not finite after step 9, seed 12.*rate"
        ):
            again = Bad()
            again.calls = 4
            fit(again, batches_of(run), run, 9, what="fitting V")
    assert {p: p.read_bytes() for p in (out / "checkpoints").rglob("*") if p.is_file()} == saved


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
