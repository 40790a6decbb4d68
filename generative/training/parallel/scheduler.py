"""Hands jobs to workers that may die, hang, be slow, or come and go.

A job's result depends on its arguments alone. If its worker is lost, another one gets the job, and
it does not matter which copy of a job answers first. `ProcessPool` and `RayPool` are two kinds of
workers; both report the events below.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, NamedTuple, Protocol, Self, TypeVar

from generative.training.parallel.config import ParallelConfig
from generative.training.signals import exit_if_stopped

__all__ = [
    "Died",
    "Done",
    "Failed",
    "NoWorkersError",
    "Pool",
    "Ready",
    "Report",
    "Scheduler",
    "Steps",
    "WorkerDiedError",
    "last_words",
]

J = TypeVar("J")
R = TypeVar("R")
Report = Callable[[int], None]
"""Called by a job with the number of steps done since the last call."""

WARN_AFTER = 20.0
"""Seconds without any worker after which a message says so."""
COPY_AFTER = 1.0
"""Shortest duration in seconds at which a job counts as slow."""


class WorkerDiedError(RuntimeError):
    """A worker ended in the middle of a job, or several ended in the same job."""


class NoWorkersError(RuntimeError):
    """No worker could be placed anywhere for too long."""


class Ready(NamedTuple):
    """A worker waits for its first job."""

    worker: int


class Done(NamedTuple):
    """A worker has finished a job, and waits for the next."""

    worker: int
    ticket: int
    value: Any


class Failed(NamedTuple):
    """A job (or, with ticket -1, the worker's start) raised an error."""

    worker: int
    ticket: int
    error: Exception


class Steps(NamedTuple):
    """A worker's job has advanced by some steps."""

    worker: int
    count: int


class Died(NamedTuple):
    """A worker is gone; the pool has begun another in its place, under a new number."""

    worker: int
    reason: str


Event = Ready | Done | Failed | Steps | Died


class Pool(Protocol):
    """Workers that run jobs in turn. Numbers of workers are never used twice."""

    def send(self, worker: int, ticket: int, job: Any) -> None:
        """Give a job to a waiting worker."""

    def wait(self, seconds: float) -> list[Event]:
        """Events within `seconds`; empty if there were none."""
        ...

    def kill(self, worker: int) -> None:
        """End a worker in any state and begin another; this gives no event."""

    def why_none(self) -> str:
        """Reason why there may be no worker at the moment, in words."""
        ...

    def close(self) -> None:
        """End all workers."""


class _Run(NamedTuple):
    """Job of a worker."""

    ticket: int
    since: float
    heard: float
    """Time of the last sign of life, `since` at first."""


class Scheduler(Generic[J, R]):
    """Runs jobs on the workers of a pool.

    Args:
        pool: closed by `close`.
        config: attempts, deadlines and patience.
        seconds_of: longest silence of a job in seconds; None for no limit.
        name_of: name of a job in messages; None for its place among the others.
        tell: called with messages about workers that are lost or slow.
    """

    def __init__(
        self,
        pool: Pool,
        config: ParallelConfig,
        seconds_of: Callable[[J], float] | None = None,
        name_of: Callable[[J], str] | None = None,
        tell: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True),
    ):
        self.pool, self.config, self.tell = pool, config, tell
        self.lost, self.copied, self.repeated = 0, 0, 0
        self._seconds_of, self._name_of = seconds_of, name_of
        self._idle: set[int] = set()
        self._busy: dict[int, _Run] = {}
        self._next_ticket = 0
        self._deaths_at_start = 0
        self._without_workers = _Since()

    @property
    def num_workers(self) -> int:
        """Number of workers that wait for a job or have one."""
        return len(self._idle) + len(self._busy)

    def run(
        self,
        jobs: Sequence[J],
        report: Report = lambda n: None,
        finished: Callable[[R], None] = lambda value: None,
    ) -> list[R]:
        """Run jobs and return their results in order; see `stream`."""
        return list(self.stream(jobs, report, finished))

    def stream(
        self,
        jobs: Sequence[J],
        report: Report = lambda n: None,
        finished: Callable[[R], None] = lambda value: None,
        ahead: int | None = None,
    ) -> Iterator[R]:
        """Yield the results in the order of the jobs. After an error only `close` may be called.

        Args:
            report: called with the steps that jobs report.
            finished: called with every result as it arrives, in any order.
            ahead: largest distance between a begun job and the one whose result is due next, as
                results that arrive early are kept in memory.
        Raises:
            WorkerDiedError: the workers of a job died, or missed its deadline, too often.
            NoWorkersError: there was no worker for `config.patience` seconds.
            Exception: what a job raised, with the worker's traceback as a note.
        """
        first, self._next_ticket = self._next_ticket, self._next_ticket + len(jobs)
        waiting, results = deque(range(len(jobs))), {}
        attempts, durations = Counter[int](), list[float]()
        wanted = 0

        def settled(place: int) -> bool:
            """True if a job has its result, or belongs to an earlier call."""
            return place < wanted or place in results

        def give_again(worker: int, why: str) -> None:
            """Put the job of a lost worker to the front of the queue."""
            self.lost += 1
            place = self._forget(worker) - first
            if settled(place) or self._has(place + first) or place in waiting:
                self.tell(f"a worker was lost ({why}); nothing that it had is still needed")
                return
            attempts[place] += 1
            what = f"a worker was lost ({why}) on {self._name(place, jobs)}"
            if attempts[place] >= self.config.attempts:
                raise WorkerDiedError(last_words(what, why, self.config.attempts))
            waiting.appendleft(place)
            self.repeated += 1
            self.tell(f"{what}; another one takes it over")

        for wanted in range(len(jobs)):
            while wanted not in results:
                while waiting and self._idle and (ahead is None or waiting[0] < wanted + ahead):
                    self._send(first, waiting.popleft(), jobs)
                self._copy_slow_jobs(first, jobs, settled, durations)
                for event in self.pool.wait(self._time_to_wait(jobs, first)):
                    match event:
                        case Ready(worker):
                            self._idle.add(worker)
                            self._deaths_at_start = 0
                        case Done(worker, ticket, value):
                            durations.append(time.monotonic() - self._busy.pop(worker).since)
                            self._idle.add(worker)
                            if not settled(ticket - first):
                                results[ticket - first] = value
                                finished(value)
                        case Failed(worker, ticket, error):
                            if ticket >= first or ticket < 0:
                                raise error
                            self._busy.pop(worker)
                            self._idle.add(worker)
                        case Steps(worker, count):
                            run = self._busy[worker]
                            self._busy[worker] = run._replace(heard=time.monotonic())
                            report(count)
                        case Died(worker, reason):
                            self._note_start(worker, reason)
                            give_again(worker, reason)
                for worker in self._late(jobs, first):
                    allowed = self._allowed(worker, jobs, first)
                    self.pool.kill(worker)
                    give_again(worker, f"no answer within the {allowed:g} s")
                self._look_for_workers()
            yield results.pop(wanted)

    def close(self) -> None:
        """End the workers in any state."""
        self.pool.close()
        self._idle.clear()
        self._busy.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _name(self, place: int, jobs: Sequence[J]) -> str:
        if self._name_of is not None:
            return self._name_of(jobs[place])
        return f"job {place + 1} of {len(jobs)}"

    def _send(self, first: int, place: int, jobs: Sequence[J]) -> None:
        worker = min(self._idle)
        self._idle.remove(worker)
        now = time.monotonic()
        self._busy[worker] = _Run(first + place, now, now)
        self.pool.send(worker, first + place, jobs[place])

    def _has(self, ticket: int) -> bool:
        """True if some worker has the job of this ticket."""
        return any(run.ticket == ticket for run in self._busy.values())

    def _forget(self, worker: int) -> int:
        """Forget a lost worker; returns the ticket of its job, or -1 if it had none."""
        self._idle.discard(worker)
        run = self._busy.pop(worker, None)
        return -1 if run is None else run.ticket

    def _note_start(self, worker: int, reason: str) -> None:
        """Raise after repeated deaths before a worker is ready, which would go on for ever."""
        if worker in self._idle or worker in self._busy:
            return
        self._deaths_at_start += 1
        if self._deaths_at_start >= self.config.attempts:
            raise WorkerDiedError(
                f"{self._deaths_at_start} workers in a row died before they were ready, the last "
                f"so: {reason}"
            )

    def _copy_slow_jobs(
        self,
        first: int,
        jobs: Sequence[J],
        settled: Callable[[int], bool],
        durations: list[float],
    ) -> None:
        """Give idle workers a copy of slow jobs, one copy of each."""
        if not self.config.straggler or not self._idle or 2 * len(durations) < len(jobs):
            return
        slow = max(COPY_AFTER, self.config.straggler * statistics.median(durations))
        now = time.monotonic()
        held = Counter(run.ticket for run in self._busy.values())
        for run in sorted(self._busy.values(), key=lambda run: run.since):
            place = run.ticket - first
            if now - run.since < slow or not self._idle:
                return
            if not settled(place) and held[run.ticket] == 1:
                self.copied += 1
                self.tell(f"{self._name(place, jobs)} is slow; a second worker tries it too")
                self._send(first, place, jobs)

    def _allowed(self, worker: int, jobs: Sequence[J], first: int) -> float:
        """Longest duration of a worker's job in seconds."""
        if self._seconds_of is None:
            return float("inf")
        place = self._busy[worker].ticket - first
        return self._seconds_of(jobs[max(place, 0)])  # of earlier calls: the same kind of job

    def _late(self, jobs: Sequence[J], first: int) -> list[int]:
        now = time.monotonic()
        return [
            worker
            for worker, run in self._busy.items()
            if now - run.heard > self._allowed(worker, jobs, first)
        ]

    def _time_to_wait(self, jobs: Sequence[J], first: int) -> float:
        """Seconds until the next check that is due even if no worker answers."""
        now = time.monotonic()
        left = [
            run.heard + self._allowed(worker, jobs, first) - now
            for worker, run in self._busy.items()
        ]
        return max(0.01, min([0.5, *left]))

    def _look_for_workers(self) -> None:
        nobody = self.num_workers == 0
        if nobody:
            exit_if_stopped("stopped while there was no worker")
        seconds = self._without_workers(nobody)
        if seconds > self.config.patience:
            raise NoWorkersError(
                f"there was no worker for {self.config.patience:g} s: {self.pool.why_none()}. What "
                "was scored is kept; start the workers and run the same command again"
            )
        if seconds > WARN_AFTER and self._without_workers.due():
            self.tell(
                f"no worker for {seconds:.0f} s: {self.pool.why_none()}; waiting for one, at most "
                f"{self.config.patience:g} s"
            )


class _Since:
    """Seconds for which a condition has held; a message is due after a while, then each minute."""

    def __init__(self) -> None:
        self._began: float | None = None
        self._told = 0.0

    def __call__(self, holds: bool) -> float:
        now = time.monotonic()
        if not holds:
            self._began = None
            return 0.0
        if self._began is None:
            self._began, self._told = now, 0.0
        return now - self._began

    def due(self) -> bool:
        now = time.monotonic()
        if self._told and now - self._told < 60:
            return False
        self._told = now
        return True


def last_words(what: str, why: str, attempts: int = 1) -> str:
    """Message about a lost worker: the event, its cause and number, and advice."""
    text = f"{what}, for the {attempts}. time" if attempts > 1 else what
    if "exit code -9" in why:
        text += "; -9 usually means that memory ran out: try fewer workers"
    return text
