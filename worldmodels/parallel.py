"""Independent jobs in processes of one thread each, with one progress bar over all of them.

A job's result depends on its arguments alone, so it does not matter how many workers there are,
or which of them runs it.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from typing import Any, TypeVar

from generative.training.progress import progress
from generative.training.signals import stop_signals

__all__ = ["Report", "one_thread_each", "run_jobs"]

J = TypeVar("J")
R = TypeVar("R")
Report = Callable[[int], None]
"""Called by a job with the number of steps done since the last call."""

THREAD_VARIABLES = tuple(
    f"{library}_NUM_THREADS" for library in ("OMP", "MKL", "OPENBLAS", "NUMBA")
)


@contextlib.contextmanager
def one_thread_each():
    """Processes started inside the block run their numerical libraries on one thread."""
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


def run_jobs(
    function: Callable[[J, Report], R],
    jobs: Sequence[J],
    workers: int,
    steps_per_job: int,
    what: str,
) -> list[R]:
    """`function(job, report)` for every job, in order.

    Args:
        function: importable in a new process; calls `report(n)` as it advances by n steps.
        workers: processes; 0 runs in this one.
        steps_per_job: steps that a job reports in all, for the progress bar.
        what: shown beside it.
    Raises:
        SystemExit: SIGTERM (143) or Ctrl-C (130); the jobs' processes are gone by then.
        Exception: what a job raised.
    """
    with stop_signals() as stop, progress(steps_per_job * len(jobs), what) as bar:

        def report(n: int) -> None:
            if stop.requested:
                stop.exit(f"{what}: stopped")
            bar.advance(n)

        if workers == 0:
            return [function(job, report) for job in jobs]
        context = multiprocessing.get_context("spawn")
        with context.Manager() as manager:
            reports = manager.Queue()
            with (
                one_thread_each(),
                ProcessPoolExecutor(
                    min(workers, len(jobs)), context, _start_worker, (reports,)
                ) as pool,
            ):
                futures = [pool.submit(_run, function, job) for job in jobs]
                pending: set[Any] = set(futures)
                try:
                    while pending:
                        done, pending = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)
                        for future in done:
                            future.result()
                        with contextlib.suppress(queue.Empty):
                            while True:
                                report(reports.get_nowait())
                        if stop.requested:
                            stop.exit(f"{what}: stopped")
                except BaseException:
                    for process in list(pool._processes.values()):
                        process.kill()
                    raise
                return [future.result() for future in futures]


_reports: Any = None


def _start_worker(reports: Any) -> None:
    global _reports
    _reports = reports
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    import torch

    torch.set_num_threads(1)


def _run(function: Callable[[Any, Report], Any], job: Any) -> Any:
    return function(job, _reports.put)
