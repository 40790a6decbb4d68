"""Workers on a Ray cluster, or on a Ray that is started on this machine for them."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing.util
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from generative.training.parallel.config import ParallelConfig
from generative.training.parallel.processes import THREAD_VARIABLES, portable
from generative.training.parallel.scheduler import Died, Done, Event, Failed, Ready, Report
from generative.training.platforms import STOPPING, count_cores

__all__ = ["RayPool", "connect"]

START = -1
"""Ticket of an actor's start."""
LOOK_EVERY = 2.0
"""Seconds between two queries of the cluster's size."""
LAST_LINES = 8


class _Pending(NamedTuple):
    """A pending answer."""

    worker: int
    ticket: int


class RayPool:
    """Actors that run `function(job, report)` on jobs in turn.

    A lost actor is replaced by another, which Ray places as soon as there is room for it (so it
    also asks an autoscaling cluster for a node). Ray itself restarts and retries nothing: this pool
    knows the job of each actor, and another actor gets it.

    Args:
        function: pickled by Ray; its imports have to be installed on all nodes.
        config: with workers 0, one is placed for each set of free resources, at any time.
    """

    def __init__(self, function: Callable[[Any, Report], Any], config: ParallelConfig):
        self._leave = multiprocessing.util.Finalize(self, connect(config), exitpriority=1)
        import ray

        self._ray, self._config = ray, config
        self._actor = ray.remote(
            num_cpus=config.cpus, num_gpus=config.gpus, max_restarts=0, max_task_retries=0
        )(_Actor)
        self._function = ray.put(function)
        self._numbers = itertools.count()
        self._actors: dict[int, Any] = {}
        self._logs: dict[int, _Place] = {}
        self._pending: dict[Any, _Pending] = {}
        self._looked = 0.0
        self._grow()

    def send(self, worker: int, ticket: int, job: Any) -> None:
        """Give a worker a job."""
        ref = self._actors[worker].work.remote(job)
        self._pending[ref] = _Pending(worker, ticket)

    def wait(self, seconds: float) -> list[Event]:
        """Events within `seconds`; empty if there were none."""
        self._grow()
        if not self._pending:
            time.sleep(seconds)
            return []
        refs = list(self._pending)
        # While Ray waits, no signal is handled.
        ready, _ = self._ray.wait(refs, num_returns=1, timeout=min(seconds, 0.1))
        if ready:  # then take all other answers that have arrived
            ready, _ = self._ray.wait(refs, num_returns=len(refs), timeout=0)
        events: list[Event] = []
        for ref in ready:
            worker, ticket = self._pending.pop(ref)
            if worker in self._actors:
                events.append(self._event(worker, ticket, ref))
        return events

    def kill(self, worker: int) -> None:
        """End a worker and begin another."""
        self._end(worker)
        self._grow(at_once=True)

    def why_none(self) -> str:
        """Reason why there may be no worker, in words."""
        ray, config = self._ray, self._config
        nodes = [node for node in ray.nodes() if node["Alive"]]
        total = ray.cluster_resources()
        needed = f"{config.cpus:g} CPU" + (f" and {config.gpus:g} GPU" if config.gpus else "")
        there = f"{total.get('CPU', 0):g} CPU" + (
            f" and {total.get('GPU', 0):g} GPU" if config.gpus else ""
        )
        return (
            f"a worker needs {needed}, and the {len(nodes)} nodes of the cluster that are alive "
            f"have {there} in all"
        )

    def close(self) -> None:
        """End the workers, and Ray if it was started for them."""
        for worker in list(self._actors):
            self._end(worker)
        self._leave()

    def _event(self, worker: int, ticket: int, ref: Any) -> Event:
        """Event of an answer."""
        try:
            kind, value = self._ray.get(ref)
        except self._ray.exceptions.RayError as error:
            reason = self._last_lines(worker, error)
            self._end(worker)
            self._grow(at_once=True)
            return Died(worker, reason)
        if kind == "failed":
            return Failed(worker, ticket, value)
        if ticket == START:
            self._logs[worker] = value
            return Ready(worker)
        return Done(worker, ticket, value)

    def _grow(self, at_once: bool = False) -> None:
        """Place missing workers."""
        if not at_once and time.monotonic() - self._looked < LOOK_EVERY:
            return
        self._looked = time.monotonic()
        for _ in range(self._wanted() - len(self._actors)):
            worker = next(self._numbers)
            actor = self._actors[worker] = self._actor.remote(self._function)
            self._pending[actor.place.remote()] = _Pending(worker, START)

    def _wanted(self) -> int:
        """Wanted number of workers."""
        if self._config.workers:
            return self._config.workers
        total = self._ray.cluster_resources()
        claims = (("CPU", self._config.cpus), ("GPU", self._config.gpus))
        return max(1, int(min(total.get(name, 0) // n for name, n in claims if n)))

    def _end(self, worker: int) -> None:
        with contextlib.suppress(Exception):  # it may be dead, or its node
            self._ray.kill(self._actors[worker], no_restart=True)
        del self._actors[worker]

    def _last_lines(self, worker: int, error: Exception) -> str:
        """Cause of an actor's death, and the end of its log, if that can be read."""
        what = type(error).__name__
        place = self._logs.get(worker)
        if place is None:
            return f"{what} before it was ready"
        where = f"{what}, process {place.pid} on {place.node}"
        try:
            lines = Path(place.log).read_text(errors="replace").splitlines()[-LAST_LINES:]
        except OSError:  # on another machine
            lines = self._lines_from_afar(place)
        return where + "".join(f"\n    {line}" for line in lines)

    def _lines_from_afar(self, place: _Place) -> list[str]:
        try:
            from ray.util.state import get_log

            return list(
                get_log(
                    node_ip=place.node, filename=Path(place.log).name, tail=LAST_LINES, timeout=5
                )
            )
        except Exception as error:  # no dashboard, or the node is gone
            return [f"(its log {place.log} cannot be read from here: {error})"]


class _Place(NamedTuple):
    """Location of an actor."""

    pid: int
    node: str
    log: str


class _Actor:
    """A worker: computes on one thread, and lets no exception of a job end it."""

    def __init__(self, function: Callable[[Any, Report], Any]):
        self.function = function

    def place(self) -> tuple[str, Any]:
        import ray

        # Ray lets a worker of several cores compute on as many threads, and results vary with it.
        os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(1)
        log = ""
        with contextlib.suppress(OSError):
            log = os.readlink("/proc/self/fd/2")
        return "ready", _Place(os.getpid(), ray.util.get_node_ip_address(), log)

    def work(self, job: Any) -> tuple[str, Any]:
        try:
            return "done", self.function(job, lambda n: None)
        except Exception as error:
            return "failed", portable(error)


def connect(config: ParallelConfig) -> Callable[[], None]:
    """Join the cluster of `config.ray_address`, or start one here.

    Our own cluster listens on the loopback address alone, asks for a token that only this process
    and its children know, has no dashboard, reports no usage, and keeps its files in its own
    temporary folder. A Ray that this process has already joined is used as it is.

    Returns:
        Function that leaves the cluster; our own cluster then ends, and its folder is removed. This
        also happens if this process is killed.
    Raises:
        ConnectionError: there is no cluster at the address, or Ray does not start here.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if config.ray_address == "local" and "ray" not in sys.modules:
        # Ray reads these when it is imported. If it was imported before, it keeps its defaults:
        # ports on all addresses, and a token in the home folder.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # else not on loopback
        if os.environ.setdefault("RAY_AUTH_MODE", "token") == "token":
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    import ray

    if ray.is_initialized():
        return lambda: None
    guard: subprocess.Popen[bytes] | None = None

    def leave() -> None:
        try:  # in a thread: waiting for it can be cut short by a second signal
            leaving = threading.Thread(target=ray.shutdown, daemon=True)
            leaving.start()
            leaving.join()
        except RuntimeError:  # the interpreter is leaving
            ray.shutdown()
        if guard is not None:
            guard.communicate()

    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    with _own_signals():
        if config.ray_address != "local":
            try:
                _knock(config.ray_address)
                ray.init(address=config.ray_address, **quiet)
            except (OSError, RuntimeError, ValueError) as error:
                raise ConnectionError(
                    f"there is no Ray cluster at {config.ray_address!r} ({error}). Start one with "
                    "`ray start --head`, give --ray-address HOST:PORT, or leave it out to start "
                    "Ray on this machine"
                ) from error
            return leave
        # Names of sockets in it have 107 bytes at most.
        short = tempfile.gettempdir() if len(tempfile.gettempdir()) < 24 else "/tmp"
        folder = tempfile.mkdtemp(prefix="wm-", dir=short)
        guard = _start_guard(folder)
        try:
            ray.init(
                address="local",
                num_cpus=max(config.workers, count_cores()),
                include_dashboard=False,
                object_store_memory=200 * 2**20,
                _temp_dir=folder,
                **quiet,
            )
        except BaseException as error:
            leave()
            if not isinstance(error, Exception):
                raise
            raise ConnectionError(
                f"Ray could not be started on this machine ({error}); try again, or use backend "
                "processes"
            ) from error
    return leave


def _start_guard(folder: str) -> subprocess.Popen[bytes]:
    """Start the guard that cleans up after Ray when this process ends; see `guard.py`."""
    from generative.training.parallel import guard

    return subprocess.Popen(
        [sys.executable, "-S", "-E", guard.__file__, str(os.getpid()), folder],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )


def _knock(address: str) -> None:
    """Check that something listens at HOST:PORT; Ray itself would try for minutes.

    Raises:
        OSError: nothing does.
    """
    host, found, port = address.rpartition(":")
    if found and port.isdecimal() and "/" not in host:
        socket.create_connection((host, int(port)), timeout=10).close()


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Restore our handlers of signals after the block, as Ray replaces that of SIGTERM."""
    before = {number: signal.getsignal(number) for number in STOPPING}
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # not the main thread
            for number, handler in before.items():
                signal.signal(number, handler if handler is not None else signal.SIG_DFL)
