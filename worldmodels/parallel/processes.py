"""Workers that are processes of one thread each; they end with the process that started them."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import multiprocessing.connection
import multiprocessing.resource_tracker
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from generative.training.progress import progress
from generative.training.signals import STOPPING, exit_on_signals
from worldmodels.configs import ParallelConfig
from worldmodels.parallel.scheduler import (
    Died,
    Done,
    Event,
    Failed,
    Ready,
    Report,
    Scheduler,
    Steps,
)

__all__ = [
    "ProcessPool",
    "Workers",
    "become_worker",
    "one_thread",
    "starting_workers",
    "portable",
    "run_jobs",
]

J = TypeVar("J")
R = TypeVar("R")

THREAD_VARIABLES = tuple(
    f"{library}_NUM_THREADS" for library in ("OMP", "MKL", "OPENBLAS", "NUMBA")
)
ONCE = ParallelConfig(attempts=1, straggler=0.0)
"""For jobs that write files: none is begun twice."""


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


class ProcessPool(Generic[J, R]):
    """Processes that run `function(job, report)` for one job after another.

    multiprocessing.Pool hangs when a worker is killed, and the workers of both it and
    ProcessPoolExecutor can outlive a killed parent, and write on in its run folder.

    Args:
        function: importable in a new process.
        count: processes.
    """

    def __init__(self, function: Callable[[J, Report], R], count: int):
        self._function, self._count = function, count
        self._context = multiprocessing.get_context("spawn")
        self._numbers = itertools.count()
        self._workers: dict[int, tuple[Any, Any]] = {}  # number -> (process, our end of the pipe)
        try:
            with starting_workers():
                for _ in range(count):
                    self._start()
        except BaseException:
            self.close()
            raise

    def send(self, worker: int, ticket: int, job: J) -> None:
        """Give a worker a job."""
        with contextlib.suppress(OSError):  # it has died; `wait` notices
            self._workers[worker][1].send((ticket, job))

    def wait(self, seconds: float) -> list[Event]:
        """What happened within so many seconds."""
        numbers = {pipe: number for number, (_, pipe) in self._workers.items()}
        events = []
        for pipe in multiprocessing.connection.wait(list(numbers), seconds):
            number = numbers[pipe]
            try:
                kind, *values = pipe.recv()  # type: ignore[attr-defined]  # pipes, not integers
                events.append(_EVENTS[kind](number, *values))
            except (EOFError, OSError, pickle.UnpicklingError):
                process, _ = self._workers[number]
                process.join(5)  # it may still be on its way out, with an exit code of its own
                self._end(number)
                with starting_workers():
                    self._start()
                events.append(Died(number, f"exit code {process.exitcode}"))
        return events

    def kill(self, worker: int) -> None:
        """End a worker and begin another."""
        self._end(worker)
        with starting_workers():
            self._start()

    def why_none(self) -> str:
        """In words."""
        return f"{self._count} worker processes were started, and none is ready yet"

    def close(self) -> None:
        """End the processes, whatever they do."""
        for process, pipe in self._workers.values():
            pipe.close()
            process.kill()
        for process, _ in self._workers.values():
            process.join()
        self._workers.clear()

    def _start(self) -> None:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_work, args=(theirs, self._function), daemon=True)
        process.start()
        theirs.close()
        self._workers[next(self._numbers)] = process, ours

    def _end(self, number: int) -> None:
        process, pipe = self._workers.pop(number)
        pipe.close()
        process.kill()
        process.join()


_EVENTS: dict[str, Any] = {"ready": Ready, "steps": Steps, "done": Done, "failed": Failed}
"""What a worker's messages are called."""


class Workers(Scheduler[J, R]):
    """Processes that run `function(job, report)`, each job once.

    Args:
        function: importable in a new process.
        count: processes.
    """

    def __init__(self, function: Callable[[J, Report], R], count: int):
        super().__init__(ProcessPool(function, count), ONCE)


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
def starting_workers() -> Iterator[None]:
    """Processes that are started here have one thread each, and leave signals to this one.

    Numerical libraries read their variables when the process imports them. That takes seconds in
    which a signal to the whole group would end it: they are blocked until `become_worker`.
    """
    variables = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    multiprocessing.resource_tracker.ensure_running()  # started with the first, it would unblock
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in variables.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _work(pipe: Any, function: Callable[[Any, Report], Any]) -> None:
    """A worker: jobs in, what `_EVENTS` has out."""
    become_worker()
    with contextlib.suppress(EOFError, OSError):
        pipe.send(("ready",))
        while True:
            ticket, job = pipe.recv()
            try:
                message = ("done", ticket, function(job, lambda n: pipe.send(("steps", n))))
            except Exception as error:
                message = ("failed", ticket, portable(error))
            pipe.send(message)


def become_worker() -> None:
    """Called first in a new process: from now on it lives as long as the one that started it."""
    for number in STOPPING:  # the parent's to handle: it ends its workers
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
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
