"""Parts of the operating system that not every platform has.

Linux is what the project is tested on. macOS has no number of allowed cores and no signal from a
dying parent, Windows no `fcntl`, no signals to block and no folders that can be opened; here is
what takes their place, so that nothing else asks for the platform.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

__all__ = [
    "BROKEN_PIPE",
    "STOPPING",
    "after_fork_in_child",
    "blocked_signals",
    "count_cores",
    "end_with",
    "lock_file",
    "open_ordinary",
    "unblock_signals",
]

STOPPING = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name)
)
"""Signals that end a run. SIGHUP, from a closed terminal, does so unless `nohup` turned it off."""
BROKEN_PIPE = 141
"""Exit status of a command whose reader is gone: 128 + SIGPIPE, which Windows has not."""
_LOCKED_BYTE = 2**30
"""Windows locks bytes, and nobody can read a locked one: this one is behind the end of the file."""


def count_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def lock_file(file: Any) -> None:
    """Lock an open file for this process, until it is closed or the process ends.

    Raises:
        BlockingIOError: another process holds it.
        OSError: the file system has no locks.
    """
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    import msvcrt

    descriptor, windows = file.fileno(), vars(msvcrt)
    place = os.lseek(descriptor, 0, os.SEEK_CUR)
    os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
    try:
        windows["locking"](descriptor, windows["LK_NBLCK"], 1)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EDEADLK):
            raise BlockingIOError(errno.EWOULDBLOCK, os.strerror(errno.EWOULDBLOCK)) from error
        raise
    finally:
        os.lseek(descriptor, place, os.SEEK_SET)


def after_fork_in_child(function: Callable[[], None]) -> None:
    """Call function in every child that this process forks, where processes can be forked."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=function)


@contextlib.contextmanager
def blocked_signals() -> Iterator[None]:
    """Hold `STOPPING` back inside the block, where signals can be held back."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def unblock_signals() -> None:
    """Let `STOPPING` through again in a process that was started inside `blocked_signals`."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)


def end_with(sentinel: int) -> None:
    """Have Linux kill this process when the other end of a pipe is closed, as its parent dies.

    Elsewhere nothing happens: a thread must wait for it, which a library that hangs can hold up.
    """
    if fcntl is not None and hasattr(fcntl, "F_SETSIG"):
        fcntl.fcntl(sentinel, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(sentinel, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(sentinel, fcntl.F_SETFL, os.O_ASYNC)


def open_ordinary(path: str | os.PathLike[str], flags: int) -> int:
    """`os.open` that follows no link and does not wait for a pipe.

    Raises:
        OSError: ELOOP for a link, and what `os.open` raises.
    """
    if not hasattr(os, "O_NOFOLLOW"):
        if os.path.islink(path):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), os.fspath(path))
        return os.open(path, flags, 0o666)
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
