"""Searches of CMA-ES, killed at any moment, here and on Ray: the same command continues them.

Whatever happened on the way, and wherever candidates were scored, journal, weights and metrics are
those of an undisturbed run in one process.
"""

import hashlib
import json
import os
import signal
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from tests.commands import ROOT, alive, children, crash, once, read_lines, run_script, shared_base
from tests.warm import Program

KILL, TERM, INT = signal.SIGKILL, signal.SIGTERM, signal.SIGINT
SIZES = ("--evolution.popsize", 4, "--evolution.generations", 5, "--evolution.test-every", 2)
DREAM = (*SIZES, "--evaluation.episodes", 2, "--evolution.test-episodes", 4)
REAL = ("--where", "real", "--action-repeat", 3, "--evolution.popsize", 2)
REAL = (*REAL, "--evolution.generations", 3, "--evaluation.episodes", 1)
PHASES = {
    "dream": (DREAM, ("--workers", 2)),
    "real": (REAL, ("--workers", 2)),
    "dream on ray": (DREAM, ("--backend", "ray", "--workers", 2)),
}


def train(smoke_run: Path, out: Path, words, **env: str) -> subprocess.CompletedProcess:
    parts = smoke_run / "round-00"
    return run_script(
        "train_controller", "smoke", "--out", out, "--vision", parts / "vision" / "model",
        "--memory", parts / "memory" / "model", "--encoded", parts / "encode" / "data",
        *words, **env,
    )  # fmt: skip


def outcome(run: Path) -> dict:
    """All that a run came to, but for the time it took."""
    files = ["search-0/journal.jsonl", *(f"model-0/{n}" for n in ("model.safetensors",))]
    metrics = [dict(line, time=None) for line in read_lines(run / "search-0" / "metrics.jsonl")]
    assert not [path for path in run.rglob("*") if ".tmp" in path.name]
    return {
        "files": {n: hashlib.sha256((run / n).read_bytes()).hexdigest() for n in files},
        "metrics": metrics,
        "result": json.loads((run / "result.json").read_text()),
    }


@pytest.fixture
def undisturbed(smoke_run, tmp_path_factory, phase):
    """Folder of a run in one process; `operations` beside it counts its file operations."""

    def make(folder):
        log = folder.parent / f"operations of {folder.name}"
        done = train(smoke_run, folder, PHASES[phase][0], **crash(folder, log))
        assert done.returncode == 0, done.stderr

    return once(shared_base(tmp_path_factory), f"a search, {phase}".replace(" on ray", ""), make)


def operations(run: Path) -> int:
    return int((run.parent / f"operations of {run.name}").read_text())


def strike(smoke_run, out, phase, share, undisturbed) -> None:
    """Run until that share of the file operations of a whole run, and be killed there."""
    at = max(1, int(share * operations(undisturbed)))
    words = [word for part in PHASES[phase] for word in part]
    done = train(smoke_run, out, words, **crash(out, out.parent / "struck", at))
    assert done.returncode == -KILL, done.stderr
    assert not (out / "result.json").exists()


def finish(smoke_run, out, phase) -> dict:
    done = train(smoke_run, out, [word for part in PHASES[phase] for word in part])
    assert done.returncode == 0, done.stderr
    return outcome(out)


@pytest.mark.nightly
@pytest.mark.parametrize("phase", PHASES)
def test_driver_killed_at_three_moments(smoke_run, tmp_path, phase, undisturbed):
    """The legs sum up to less than a whole run, so none of them gets to the end."""
    out, rng = tmp_path / "killed", np.random.default_rng(len(phase))
    for _ in range(3):
        strike(smoke_run, out, phase, rng.uniform(0.1, 0.3), undisturbed)
    assert finish(smoke_run, out, phase) == outcome(undisturbed)


@pytest.mark.nightly
@pytest.mark.parametrize("moment", range(40))
@pytest.mark.parametrize("phase", PHASES)
def test_driver_killed_at_a_moment(smoke_run, tmp_path, phase, moment, undisturbed):
    out, rng = tmp_path / "killed", np.random.default_rng([3, moment])
    strike(smoke_run, out, phase, 0.98 * (moment + rng.random()) / 40, undisturbed)
    assert finish(smoke_run, out, phase) == outcome(undisturbed)


@pytest.mark.parametrize("phase", ["dream"])
def test_other_numbers_of_workers_continue_it(smoke_run, tmp_path, phase, undisturbed):
    """Begun by one worker, gone on with by three, then on Ray, and finished in one process.

    Each is killed on its way. This is the quick form of the two nightly tests above.
    """
    out, run = tmp_path / "moved", []
    for words in (("--workers", 1), ("--workers", 3), ("--backend", "ray", "--workers", 1)):
        at = int(0.25 * operations(undisturbed))
        env = crash(out, tmp_path / "struck", at)
        run.append(train(smoke_run, out, [*PHASES[phase][0], *words], **env).returncode)
    done = train(smoke_run, out, PHASES[phase][0])
    assert done.returncode == 0, done.stderr
    assert run == [-KILL] * 3
    assert outcome(out) == outcome(undisturbed)


# ---------------------------------------------------------------------------------------------
# Signals
# ---------------------------------------------------------------------------------------------


@contextmanager
def searching(folder: Path, backend: str):
    """A search in a process group of its own, with its workers; it is in the midst of episodes."""
    script = ROOT / "tests" / "reliability" / "search.py"
    pids = set()
    with Program((script, folder, backend, 2, 0.3), cwd=ROOT, env={}, session=True) as process:
        try:
            end = time.monotonic() + 90
            while len(list(folder.glob("calls/*"))) < 4:
                assert process.poll() is None, process.stderr
                assert time.monotonic() < end
                time.sleep(0.05)
            pids |= children(process.pid)
            yield process, pids
        finally:
            for pid in alive({process.pid, *pids}):
                os.kill(pid, KILL)


def gone_within(seconds: float, pids: set[int]) -> None:
    end = time.monotonic() + seconds
    while left := alive(pids):
        assert time.monotonic() < end, left
        time.sleep(0.05)


def cases(quick: list[tuple], others: list[tuple]) -> list:
    """In every run each kind of signal is sent; all pairs, and those with Ray, every night. That
    nothing is left of a Ray is shown in every run by `test_a_ray_of_our_own_leaves_nothing_behind`,
    whose process is killed."""
    return [*quick, *(pytest.param(*case, marks=pytest.mark.nightly) for case in others)]


@pytest.mark.parametrize(
    ("backend", "number", "group"),
    cases(
        [("serial", TERM, False), ("processes", INT, True)],
        [
            ("serial", INT, True),
            ("processes", TERM, False),
            ("ray", TERM, False),
            ("ray", INT, True),
        ],
    ),
)
def test_a_signal_ends_a_search_and_all_its_processes(tmp_path, backend, number, group):
    with searching(tmp_path, backend) as (process, pids):
        assert len(pids) >= {"serial": 0, "processes": 2, "ray": 4}[backend]
        os.killpg(process.pid, number) if group else process.send_signal(number)
        assert process.wait(10) == 128 + number
        gone_within(5, pids)
        told = process.stderr
        assert f"stopped ({number.name})" in told
        assert "Traceback" not in told
    assert not (tmp_path / "result.npy").exists()


@pytest.mark.parametrize(
    ("backend", "numbers"),
    cases(
        [("processes", (TERM, TERM)), ("processes", (KILL,))],
        [("processes", (INT, INT)), *(("ray", n) for n in ((INT, INT), (TERM, TERM), (KILL,)))],
    ),
)
def test_a_second_signal_or_being_killed_ends_it_at_once(tmp_path, backend, numbers):
    with searching(tmp_path, backend) as (process, pids):
        for number in numbers:
            process.send_signal(number)
            time.sleep(0.3)
        # The second one may find it on its way out, with nobody left to handle a signal.
        assert process.wait(2) in (-numbers[0], 128 + numbers[0])
        gone_within(5, pids)
