"""train_in_dream.py killed at any moment: the same command continues it, to the same result."""

import hashlib
import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from tests.commands import ROOT, alive, children, command, crash, read_lines, run_script
from tests.warm import Program

KILL, TERM = signal.SIGKILL, signal.SIGTERM


def outcome(run: Path) -> dict:
    """All that a run came to, but for the time it took."""
    agent = run / "agent"
    weights = {
        str(path.relative_to(agent)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(agent.rglob("*"))
        if path.is_file() and path.name != "training.json"
    }
    rounds = [dict(record, seconds=None) for record in read_lines(run / "rounds.jsonl")]
    evaluation = json.loads((run / "evaluation.json").read_text())
    facts = json.loads((agent / "training.json").read_text())
    assert {f"{part}/model.safetensors" for part in ("vision", "memory", "controller")} <= set(
        weights
    )
    assert not [path for path in run.rglob("*") if ".tmp" in path.name]
    return {
        "weights": weights,
        "rounds": rounds,
        "evaluation": dict(evaluation, evaluation_seconds=None),
        "facts": dict(facts, wall_seconds=None),
    }


def operations(smoke_run: Path) -> int:
    return int((smoke_run / "operations").read_text())


@contextmanager
def started(run: Path, *words: object) -> Iterator[Program]:
    """The command in a process group of its own; nothing of it is left whatever the test finds."""
    argv = command("train_in_dream", "smoke", "--out", run, *words)[1:]
    with Program(argv, cwd=ROOT, env={}, session=True) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, KILL)


def wait_for(condition, seconds: float = 60.0):
    """Poll until condition() is true; returns what it gave."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.01)
    return found


def finish(run: Path, *words: object, **env: str) -> dict:
    done = run_script("train_in_dream", "smoke", "--out", run, *words, **env)
    assert done.returncode == 0, done.stderr
    assert "other versions" not in done.stderr
    return outcome(run)


# ---------------------------------------------------------------------------------------------
# Killed
# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "numbers",
    [(KILL, TERM), pytest.param((KILL, TERM, KILL, KILL), marks=pytest.mark.nightly)],
    ids=["two", "four"],
)
def test_stopped_at_moments(smoke_run, tmp_path, numbers):
    """The legs sum up to less than a whole run, so none of them gets to the end.

    Stages that are done are skipped, and with them what they did to torch's threads.
    """
    two_threads = {"OMP_NUM_THREADS": "2"}
    run, rng = tmp_path / "stopped", np.random.default_rng(7)
    for number in numbers:
        at = int(rng.uniform(0.08, 0.24) * operations(smoke_run))
        env = crash(run, tmp_path / "struck", at, number) | two_threads
        done = run_script("train_in_dream", "smoke", "--out", run, **env)
        ended = time.time()
        assert not (run / "result.json").exists()
        if number == KILL:
            assert done.returncode == -KILL, done.stderr
        else:
            assert done.returncode == 128 + number, done.stderr
            assert ended - float((tmp_path / "struck").read_text()) < 10
            assert f"({number.name}); the same command continues it" in done.stderr
            assert "Traceback" not in done.stderr
    assert finish(run, **two_threads) == outcome(smoke_run)


@pytest.mark.nightly
@pytest.mark.parametrize("moment", range(20))
def test_killed_at_a_moment(smoke_run, tmp_path, moment):
    """Spread over the run; every other one by the clock, which also finds the middle of a write."""
    run, rng = tmp_path / "killed", np.random.default_rng([9, moment])
    share = (moment + rng.random()) / 20
    if moment % 2:
        at = max(1, int(share * operations(smoke_run)))
        env = crash(run, tmp_path / "struck", at)
        done = run_script("train_in_dream", "smoke", "--out", run, **env)
        assert done.returncode == -KILL, done.stderr
    else:
        begun = (smoke_run / "config.json").stat().st_mtime
        duration = (smoke_run / "result.json").stat().st_mtime - begun
        with started(run) as process:
            wait_for(lambda: (run / "config.json").exists())
            time.sleep(share * duration)
            process.send_signal(KILL)
            assert process.wait(60) in (-KILL, 0)
    assert finish(run) == outcome(smoke_run)


# ---------------------------------------------------------------------------------------------
# With workers
# ---------------------------------------------------------------------------------------------


def in_stage_with_workers(run: Path, process: Program, stage: str, workers: int):
    """Wait until a stage works in processes of its own; returns them."""

    def found():
        assert process.poll() is None, process.stderr
        pids = children(process.pid)
        return len(pids) >= workers and (run / stage / "config.json").exists() and pids

    return wait_for(found)


def test_workers_end_with_a_terminated_run(tmp_path):
    run = tmp_path / "with workers"
    with started(run, "--workers", 2) as process:
        pids = in_stage_with_workers(run, process, "round-00/collect", 2)
        began = time.monotonic()
        process.send_signal(TERM)
        assert process.wait(10) == 128 + TERM, process.stderr
        assert time.monotonic() - began < 10
        assert not alive(pids)


@pytest.mark.nightly
@pytest.mark.parametrize("how", ["one killed", "one terminated", "all terminated"])
@pytest.mark.parametrize("stage", ["collect", "controller", "choose"])
def test_workers_end_with_a_run_in_every_stage(smoke_run, tmp_path, stage, how):
    """All: the whole process group gets the signal, as from `timeout` or a scheduler."""
    run = tmp_path / "with workers"
    with started(run, "--workers", 2) as process:
        pids = in_stage_with_workers(run, process, f"round-01/{stage}", 2)
        if how == "one killed":
            process.send_signal(KILL)
            process.wait(60)
            wait_for(lambda: not alive(pids), seconds=10)
        else:
            os.killpg(process.pid, TERM) if how == "all terminated" else process.send_signal(TERM)
            assert process.wait(10) == 128 + TERM, process.stderr
            assert not alive(pids)
    # No result depends on the number of workers, and so it may change.
    assert finish(run, "--workers", 1) == outcome(smoke_run)
