"""Workers that are processes of one thread each; they end with the process that started them."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import multiprocessing.connection
import multiprocessing.resource_tracker
import multiprocessing.util
import os
import pickle
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from generative.training.parallel.config import ParallelConfig
from generative.training.parallel.scheduler import (
    Died,
    Done,
    Event,
    Failed,
    Ready,
    Report,
    Scheduler,
    Steps,
    WorkerDiedError,
)
from generative.training.platforms import STOPPING, blocked_signals, end_with, unblock_signals
from generative.training.progress import progress
from generative.training.signals import exit_on_signals

__all__ = [
    "ProcessPool",
    "Worker",
    "Workers",
    "one_thread",
    "portable",
    "run_jobs",
]

J = TypeVar("J")
R = TypeVar("R")

THREAD_VARIABLES = tuple(
    f"{library}_NUM_THREADS" for library in ("OMP", "MKL", "OPENBLAS", "NUMBA")
)
ONCE = ParallelConfig(attempts=1, straggler=0.0)
"""Settings for jobs that write files: none is begun twice."""
HEARTBEAT = 1.0
"""Seconds between heartbeats."""


def run_jobs(
    function: Callable[[J, Report], R],
    jobs: Sequence[J],
    workers: int,
    steps_per_job: int,
    what: str,
    *,
    attempts: int = 1,
    deadline: float = ParallelConfig.deadline,
    name_of: Callable[[J], str] | None = None,
) -> list[R]:
    """Run `function(job, report)` for every job; results in order, one progress bar for all.

    Args:
        function: importable in a new process; calls `report(n)` as it advances by n steps, and
            `report(0)` to show that it does not hang.
        workers: number of processes; 0 uses this one, on one thread too.
        steps_per_job: total steps that a job reports, for the progress bar.
        what: text beside the bar.
        attempts: lost workers after which a job fails; 1 if it must not be begun twice.
        deadline: seconds without a report or a result after which a job's worker is ended.
        name_of: name of a job in messages.
    Raises:
        SystemExit: SIGTERM (143) or Ctrl-C (130); the jobs' processes are gone by then.
        WorkerDiedError: a process was killed, by the system when memory ran out for example, or
            missed its deadline.
        Exception: what a job raised.
    """
    if workers < 0:
        raise ValueError(
            f"workers is {workers}; give a number of processes, or 0 for none but this"
        )
    with exit_on_signals(), progress(steps_per_job * len(jobs), what) as bar:
        if workers == 0:
            with one_thread():
                return [function(job, bar.advance) for job in jobs]
        config = ParallelConfig(attempts=attempts, straggler=0.0)
        pool = ProcessPool(function, min(workers, len(jobs)))
        with Scheduler(pool, config, lambda job: deadline, name_of) as scheduler:
            return scheduler.run(jobs, bar.advance)


class Worker:
    """A process of one thread that runs `main(pipe, *arguments)`, and ends with this one.

    It ends by `end`, when nothing refers to it any more, and whenever this process ends: by its
    last line, by an error or `sys.exit` (before multiprocessing waits for it), or killed (which the
    worker notices). A fork of this process ends no worker.

    Args:
        main: importable in a new process, as what it is given.
    Attributes:
        pipe: our end of it.
        end: ends the process in any state.
    """

    def __init__(self, main: Callable[..., None], *arguments: Any):
        here = multiprocessing.current_process()
        if getattr(here, "_inheriting", False):  # still importing what its parent runs
            if here.name == WORKER_NAME:
                raise SystemExit(UNGUARDED)  # the parent tells it once
            raise RuntimeError(GUARD)
        context = multiprocessing.get_context("spawn")
        with starting_workers():
            self.pipe, theirs = context.Pipe()
            self._process: Any = context.Process(
                target=_live, args=(main, theirs, *arguments), name=WORKER_NAME, daemon=True
            )
            self._process.start()
            theirs.close()
            self.end = multiprocessing.util.Finalize(
                self, _end, (self._process, self.pipe), exitpriority=1
            )

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    def fate(self) -> str:
        """Description of the end of the process, once its end of the pipe is closed.

        Raises:
            WorkerDiedError: it ran the starting script again, which has no `__main__` guard.
        """
        if not self.end.still_active():
            return "ended with this process"
        self._process.join(5)  # it may still be exiting, with its own exit code
        self.end()
        if self._process.exitcode == UNGUARDED:
            raise WorkerDiedError(GUARD)
        return f"exit code {self._process.exitcode}"


WORKER_NAME = "worldmodels worker"
UNGUARDED = 77
"""Exit code of a worker that reached the code of a script that starts workers."""
GUARD = (
    "worker processes begin by importing the script that starts them, and this one would start "
    'them again: wrap what your script does in `if __name__ == "__main__":`'
)


def _end(process: Any, pipe: Any) -> None:
    pipe.close()
    process.kill()
    process.join()


class ProcessPool(Generic[J, R]):
    """Processes that run `function(job, report)` on jobs in turn.

    multiprocessing.Pool hangs when a worker is killed, and the workers of both it and
    ProcessPoolExecutor can outlive a killed parent, and write on in its run folder.

    Args:
        function: importable in a new process.
        count: processes.
    """

    def __init__(self, function: Callable[[J, Report], R], count: int):
        self._function, self._count = function, count
        self._numbers = itertools.count()
        self._workers: dict[int, Worker] = {}
        try:
            for _ in range(count):
                self._start()
        except BaseException:
            self.close()
            raise

    def send(self, worker: int, ticket: int, job: J) -> None:
        """Give a worker a job."""
        with contextlib.suppress(OSError):  # it has died; `wait` notices
            self._workers[worker].pipe.send((ticket, job))

    def wait(self, seconds: float) -> list[Event]:
        """Events within `seconds`; empty if there were none."""
        numbers = {worker.pipe: number for number, worker in self._workers.items()}
        events = []
        for pipe in multiprocessing.connection.wait(list(numbers), seconds):
            number, message = numbers[pipe], None  # type: ignore[index]  # pipes, not integers
            with contextlib.suppress(EOFError, OSError, pickle.UnpicklingError):
                message = pipe.recv()  # type: ignore[attr-defined]  # pipes, not integers
            if message is not None:
                kind, *values = message
                events.append(_EVENTS[kind](number, *values))
                continue
            events.append(Died(number, self._workers.pop(number).fate()))
            self._start()
        return events

    def kill(self, worker: int) -> None:
        """End a worker and begin another."""
        self._workers.pop(worker).end()
        self._start()

    def why_none(self) -> str:
        """Reason why there may be no worker, in words."""
        return f"{self._count} worker processes were started, and none is ready yet"

    def close(self) -> None:
        """End the processes, even if they are at work."""
        while self._workers:
            self._workers.popitem()[1].end()

    def _start(self) -> None:
        self._workers[next(self._numbers)] = Worker(_work, self._function)


_EVENTS: dict[str, Any] = {"ready": Ready, "steps": Steps, "done": Done, "failed": Failed}
"""Events by the names in a worker's messages."""


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
    """Give processes started in the block one thread each, and leave signals to this process.

    Numerical libraries read their variables when the process imports them. A signal to the whole
    group would end it in these seconds: signals are blocked until `_live`.
    """
    variables = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    if os.name != "nt":  # started with the first worker, it would unblock; Windows has none
        multiprocessing.resource_tracker.ensure_running()
    with blocked_signals():
        os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
        try:
            yield
        finally:
            for name, value in variables.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def _work(pipe: Any, function: Callable[[Any, Report], Any]) -> None:
    """Run a worker: jobs in, events of `_EVENTS` out."""
    told = time.monotonic()

    def report(n: int) -> None:
        nonlocal told
        if n or time.monotonic() - told > HEARTBEAT:
            pipe.send(("steps", n))
            told = time.monotonic()

    with contextlib.suppress(EOFError, OSError):
        pipe.send(("ready",))
        while True:
            ticket, job = pipe.recv()
            try:
                message = ("done", ticket, function(job, report))
            except Exception as error:
                message = ("failed", ticket, portable(error))
            pipe.send(message)


def _live(main: Callable[..., None], *arguments: Any) -> None:
    """Run main in a new process, which from now on ends with the one that started it."""
    for number in STOPPING:  # the parent's to handle: it ends its workers
        signal.signal(number, signal.SIG_IGN)
    unblock_signals()
    parent = multiprocessing.parent_process()
    assert parent is not None
    end_with(parent.sentinel)  # even where a hung library lets no thread run
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()
    main(*arguments)


def _end_with_parent(parent: Any) -> None:
    # A fork of the parent may hold the other end of its sentinel.
    while not multiprocessing.connection.wait([parent.sentinel], HEARTBEAT):
        if os.getppid() != parent.pid:
            break
    os._exit(1)


def portable(error: Exception) -> Exception:
    """Copy of an error that another process can read, with the traceback as a note."""
    error.add_note("In a worker process:\n" + traceback.format_exc())
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}\n{error.__notes__[-1]}")
    return error
