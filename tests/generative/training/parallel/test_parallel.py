"""Jobs in worker processes: order, errors, deaths, and that nothing is left behind."""

import os
import signal
import time

import pytest
import torch

from generative.training.parallel import (
    ParallelConfig,
    Scheduler,
    WorkerDiedError,
    Workers,
    one_thread,
    run_jobs,
)
from generative.training.signals import stop_signals
from tests.commands import ROOT, alive, children, run_python
from tests.generative.training.parallel.jobs import chaotic, work
from tests.warm import Program

warm = pytest.mark.usefixtures("warm_workers")


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@warm
def test_results_are_in_the_order_of_the_jobs():
    jobs = [("sleep", 0.4), ("sleep", 0.0), ("sleep", 0.2), ("sleep", 0.0), ("sleep", 0.1)]
    results = run_jobs(work, jobs, 2, 0, "sleeping")
    assert [result[:2] for result in results] == jobs
    pids = {result[2] for result in results}
    assert len(pids) == 2
    assert os.getpid() not in pids
    assert not alive(pids)


@warm
def test_results_do_not_depend_on_the_number_of_workers(two_threads):
    found = [run_jobs(chaotic, [3, 1, 2], workers, 1, "multiplying") for workers in (0, 1, 2)]
    assert found[0] == found[1] == found[2]
    assert [threads for _, _, threads in found[0]] == [1, 1, 1]
    assert len({total for total, _, _ in found[0]}) == 3
    assert torch.get_num_threads() == 2
    assert "OMP_NUM_THREADS" in os.environ  # set by conftest.py, and put back


def test_no_jobs():
    assert run_jobs(work, [], 0, 1, "nothing") == []
    assert run_jobs(work, [], 2, 1, "nothing") == []


@warm
@pytest.mark.parametrize("workers", [0, 1])
def test_steps_are_counted(monkeypatch, workers):
    from generative.training.parallel import processes

    bars = []
    real = processes.progress
    monkeypatch.setattr(processes, "progress", lambda *a: bars.append(real(*a)) or bars[-1])
    run_jobs(work, [("count", 3), ("count", 4)], workers, 4, "counting")
    assert (bars[0].done, bars[0].total) == (7, 8)


@pytest.mark.parametrize("workers", [0, 1])
def test_what_a_job_raises_is_raised(workers):
    before = children(os.getpid())
    with pytest.raises(KeyError, match="the axle") as caught:
        run_jobs(work, [("sleep", 0), ("fail", "the axle")], workers, 0, "failing")
    if workers:
        assert "raise KeyError(value)" in caught.value.__notes__[0]  # where it was raised
    assert children(os.getpid()) == before


@warm
def test_an_error_that_cannot_travel_is_told_in_words():
    with pytest.raises(RuntimeError, match="OddError: it was 7"):
        run_jobs(work, [("fail oddly", 7)], 1, 0, "failing")


def test_a_killed_worker_is_an_error_and_no_hang():
    before = children(os.getpid())
    with pytest.raises(WorkerDiedError, match=r"exit code -9\) on job 2 of 3; .* fewer workers"):
        run_jobs(work, [("sleep", 0), ("die", signal.SIGKILL), ("sleep", 1000)], 2, 0, "dying")
    assert children(os.getpid()) == before


def test_a_job_that_hangs_is_named_and_one_that_reports_goes_on():
    pids = children(os.getpid())
    jobs = [("report", 3.0), ("sleep", 1000)]
    with pytest.raises(WorkerDiedError, match=r"no answer within the 2 s\) on the long sleep"):
        run_jobs(work, jobs, 2, 0, "hanging", deadline=2.0, name_of=lambda job: "the long sleep")
    assert run_jobs(work, jobs[:1], 1, 0, "reporting", deadline=2.0)[0][:2] == jobs[0]
    assert children(os.getpid()) == pids
    with pytest.raises(ValueError, match="workers is -2"):
        run_jobs(work, jobs, -2, 0, "hanging")


@warm
def test_a_worker_that_leaves_is_an_error():
    with pytest.raises(WorkerDiedError, match=r"exit code 3\) on job 1 of 1"):
        run_jobs(work, [("exit", 3)], 1, 0, "leaving")


@warm
def test_workers_can_be_used_again_and_again():
    with Workers(work, 1) as pool:
        first = pool.run([("sleep", 0), ("sleep", 0.01)])
        second = pool.run([("sleep", 0.02)])
    pids = {result[2] for result in first + second}
    assert len(pids) == 1
    assert not alive(pids)


def test_one_thread_is_put_back(two_threads):
    with pytest.raises(ZeroDivisionError), one_thread():
        assert torch.get_num_threads() == 1
        raise ZeroDivisionError
    assert torch.get_num_threads() == 2


def test_signals_while_workers_start_are_left_to_their_parent():
    with Workers(work, 2) as pool:
        for pid in children(os.getpid()):
            os.kill(pid, signal.SIGTERM)  # it still imports
        assert [value for _, value, _ in pool.run([("sleep", 0.0), ("sleep", 0.1)])] == [0.0, 0.1]
        assert pool.lost == 0


UNGUARDED = """
import numpy as np
from tests.worldmodels.problems import sphere
from worldmodels.scoring import Scoring
from generative.training.parallel import ParallelConfig
Scoring(sphere, None, ParallelConfig("processes", 2))(np.zeros((4, 3)), 0)
"""


def test_a_script_without_a_guard_is_told_what_is_missing(tmp_path):
    (tmp_path / "main.py").write_text(UNGUARDED)
    done = run_python(tmp_path / "main.py")
    assert done.returncode == 1
    assert 'wrap what your script does in `if __name__ == "__main__":`' in done.stderr
    assert done.stderr.count("Traceback") == 1


LEFT_OPEN = """
import numpy as np
import sys
from tests.generative.training.parallel.jobs import work
from tests.worldmodels.problems import sphere
from worldmodels.scoring import Scoring
from generative.training.parallel import ParallelConfig, Workers
if __name__ == "__main__":
    workers = Workers(work, 1)
    evaluate = Scoring(sphere, None, ParallelConfig("processes", 1))
    evaluate(np.zeros((2, 3)), 0)
    print(workers.run([("sleep", 0)])[0][2], flush=True)
    if sys.argv[1] == "error":
        raise ArithmeticError
"""


@pytest.mark.parametrize(("how", "status"), [("end", 0), ("error", 1)])
def test_workers_that_nobody_closed_end_with_the_script(tmp_path, how, status):
    (tmp_path / "main.py").write_text(LEFT_OPEN)
    done = run_python(tmp_path / "main.py", how)
    assert done.returncode == status
    assert not alive({int(done.stdout)})


def test_the_first_signal_ends_the_wait_for_workers(monkeypatch, capsys):
    class Nobody:
        def wait(self, seconds):
            os.kill(os.getpid(), signal.SIGINT)
            return []

        def why_none(self):
            return "nobody is there"

        def close(self):
            pass

    with pytest.raises(SystemExit) as caught, stop_signals():
        Scheduler(Nobody(), ParallelConfig()).run(["a job"])
    assert caught.value.code == 130
    assert "while there was no worker" in capsys.readouterr().err


SCRIPT = """
import sys
from tests.generative.training.parallel.jobs import work
from generative.training.parallel import run_jobs
if __name__ == "__main__":
    folder, workers = sys.argv[1], int(sys.argv[2])
    jobs = [("mark", f"{folder}/{i}") for i in range(max(1, workers))]
    run_jobs(work, jobs, workers, 1, "waiting")
"""


@pytest.mark.parametrize(
    ("number", "group", "workers"),
    [
        (signal.SIGTERM, False, 2),
        (signal.SIGTERM, True, 1),  # to all processes at once, as from `timeout` or a scheduler
        (signal.SIGINT, True, 1),  # as from a terminal
        (signal.SIGTERM, False, 0),
        (signal.SIGKILL, False, 1),
    ],
)
def test_signals_leave_no_worker(tmp_path, number, group, workers):
    (tmp_path / "main.py").write_text(SCRIPT)
    argv = (tmp_path / "main.py", tmp_path, workers)
    process = Program(argv, cwd=ROOT, env={}, session=True)
    pids = {process.pid}
    try:
        end = time.monotonic() + 60
        while not all((tmp_path / str(i)).exists() for i in range(max(1, workers))):
            assert process.poll() is None, process.stderr
            assert time.monotonic() < end
            time.sleep(0.02)
        pids |= children(process.pid)
        assert len(pids) == 1 + workers
        if group:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        process.wait(10)
        if number == signal.SIGKILL:
            assert process.poll() == -number
        else:
            assert process.poll() == 128 + number
            told = process.stderr
            assert f"stopped ({number.name})" in told
            assert "Traceback" not in told
        end = time.monotonic() + 5
        while alive(pids):
            assert number == signal.SIGKILL, "a worker outlived its parent"
            assert time.monotonic() < end
            time.sleep(0.02)
    finally:
        for pid in alive(pids):
            os.kill(pid, signal.SIGKILL)
        process.close()
