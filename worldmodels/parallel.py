"""Independent jobs in processes of one thread each.

A job's result depends on its arguments alone, so it does not matter how many workers there are,
or which of them runs it. Workers end with the process that started them, however that ends.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import pickle
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, Self, TypeVar

from generative.training.progress import progress
from generative.training.signals import exit_on_signals

__all__ = [
    "Report",
    "WorkerDiedError",
    "Workers",
    "become_worker",
    "one_thread",
    "one_thread_each",
    "portable",
    "run_jobs",
]

J = TypeVar("J")
R = TypeVar("R")
Report = Callable[[int], None]
"""Called by a job with the number of steps done since the last call."""

THREAD_VARIABLES = tuple(
    f"{library}_NUM_THREADS" for library in ("OMP", "MKL", "OPENBLAS", "NUMBA")
)


class WorkerDiedError(RuntimeError):
    """A worker process ended in the middle of a job."""


def run_jobs(
    function: Callable[[J, Report], R],
    jobs: Sequence[J],
    workers: int,
    steps_per_job: int,
    what: str,
) -> list[R]:
    """`function(job, report)` for every job, in order, with one progress bar over all of them.

    Args:
        function: importable in a new process; calls `report(n)` as it advances by n steps.
        workers: processes; 0 runs in this one, on one thread too.
        steps_per_job: steps that a job reports in all, for the progress bar.
        what: shown beside it.
    Raises:
        SystemExit: SIGTERM (143) or Ctrl-C (130); the jobs' processes are gone by then.
        WorkerDiedError: a process was killed, by the system when memory ran out for example.
        Exception: what a job raised.
    """
    with exit_on_signals(), progress(steps_per_job * len(jobs), what) as bar:
        if workers == 0:
            with one_thread():
                return [function(job, bar.advance) for job in jobs]
        with Workers(function, min(workers, len(jobs))) as pool:
            return pool.run(jobs, bar.advance)


class Workers(Generic[J, R]):
    """Processes that run `function(job, report)` for one job after another.

    multiprocessing.Pool hangs when a worker is killed, and the workers of both it and
    ProcessPoolExecutor can outlive a killed parent, and write on in its run folder.

    Args:
        function: importable in a new process.
        count: processes.
    """

    def __init__(self, function: Callable[[J, Report], R], count: int):
        self._processes: dict[Any, Any] = {}  # our end of the pipe -> process
        context = multiprocessing.get_context("spawn")
        try:
            with one_thread_each():
                for _ in range(count):
                    ours, theirs = context.Pipe()
                    process = context.Process(target=_work, args=(theirs, function), daemon=True)
                    process.start()
                    theirs.close()
                    self._processes[ours] = process
        except BaseException:
            self.close()
            raise

    def run(self, jobs: Sequence[J], report: Report = lambda n: None) -> list[R]:
        """The results in the order of the jobs. After an error, `close` is all that is left to do.

        Args:
            report: told of the steps that jobs report.
        Raises:
            WorkerDiedError: a process ended in the middle of a job.
            Exception: what a job raised, with the worker's traceback as a note.
        """
        waiting = deque(range(len(jobs)))
        running: dict[Any, int] = {}  # pipe -> place in jobs
        results: dict[int, R] = {}
        while len(results) < len(jobs):
            for pipe in self._processes.keys() - running.keys():
                if waiting:
                    running[pipe] = waiting.popleft()
                    with contextlib.suppress(OSError):  # a dead worker; noticed as EOF below
                        pipe.send(jobs[running[pipe]])
            for pipe in multiprocessing.connection.wait(list(running)):
                try:
                    kind, value = pipe.recv()
                except (EOFError, OSError):
                    self._processes[pipe].join()
                    raise WorkerDiedError(
                        f"a worker died (exit code {self._processes[pipe].exitcode}) on job "
                        f"{running[pipe] + 1} of {len(jobs)}; -9 usually means that memory ran "
                        "out: try fewer workers"
                    ) from None
                if kind == "steps":
                    report(value)
                elif kind == "error":
                    raise value
                else:
                    results[running.pop(pipe)] = value
        return [results[place] for place in range(len(jobs))]

    def close(self) -> None:
        """End the processes, whatever they do."""
        for pipe, process in self._processes.items():
            pipe.close()
            process.kill()
        for process in self._processes.values():
            process.join()
        self._processes.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread, as in a worker: sums then have one order."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextlib.contextmanager
def one_thread_each() -> Iterator[None]:
    """Numerical libraries read their variables when a process that is started here imports them."""
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _work(pipe: Any, function: Callable[[Any, Report], Any]) -> None:
    """A worker: jobs in, ("steps" | "result" | "error", value) out."""
    become_worker()
    with contextlib.suppress(EOFError, OSError):
        while True:
            job = pipe.recv()
            try:
                message = ("result", function(job, lambda n: pipe.send(("steps", n))))
            except Exception as error:
                message = ("error", portable(error))
            pipe.send(message)


def become_worker() -> None:
    """Called first in a new process: from now on it lives as long as the one that started it."""
    for number in (signal.SIGINT, signal.SIGTERM):  # the parent's to handle; it ends its workers
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def portable(error: Exception) -> Exception:
    """The error as another process can read it, with this one's traceback as a note."""
    error.add_note("In a worker process:\n" + traceback.format_exc())
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}\n{error.__notes__[-1]}")
    return error
