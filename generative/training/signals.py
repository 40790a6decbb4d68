"""SIGTERM, Ctrl-C, a closed terminal: finish the step, save, exit. A second signal exits at once.

with stop_signals() as stop:
    for step in range(steps):
        ...
        if stop.requested:
            save()
            stop.exit(f"stopped after step {step}")

with exit_on_signals():   # unfinished work is not worth saving
    ...
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

from generative.training.platforms import STOPPING


class Stop:
    """Request to stop this process, and the signal it came by."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    @property
    def requested(self) -> bool:
        """True from the first signal on."""
        return self.signal is not None

    def exit(self, message: str = "stopped") -> NoReturn:
        """Print message and exit with 128 + signal (143 SIGTERM, 130 Ctrl-C, 129 SIGHUP).

        Raises:
            SystemExit: always.
        """
        number = self.signal or signal.SIGTERM
        print(f"{message} ({number.name}); the same command continues it", file=sys.stderr)
        raise SystemExit(128 + number)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.requested:
            os._exit(128 + number)
        self.signal = signal.Signals(number)
        _say("stopping after this step; again to stop at once")


_current: Stop | None = None


@contextmanager
def stop_signals() -> Iterator[Stop]:
    """Catch `STOPPING` inside the block; blocks may be nested and share one `Stop`.

    A request that the block ignored ends the process when the outermost block ends. In threads
    other than the main one nothing is caught and `requested` stays False.
    """
    global _current
    if _current is not None:
        yield _current
        return
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = _catch(stop._handle)
    _current = stop
    try:
        yield stop
        if stop.requested:
            stop.exit()
    finally:
        _current = None
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def exit_if_stopped(message: str) -> None:
    """Exit as `Stop.exit` does if a stop was requested; for waits inside `stop_signals`."""
    if _current is not None and _current.requested:
        _current.exit(message)


@contextmanager
def exit_on_signals() -> Iterator[None]:
    """Let the signals of `STOPPING` raise SystemExit (143, 130, 129) anywhere in the block.

    For work that need not finish a step: its files are whole at any moment, and its `finally`
    clauses end the processes it started. `stop_signals` works as usual inside the block. In threads
    other than the main one nothing is caught.
    """
    global _current
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    status = 0

    def leave(number: int, _frame: FrameType | None) -> None:
        nonlocal status
        status = 128 + number
        signal.signal(number, lambda *_: os._exit(128 + number))  # the second time, at once
        _say(f"stopped ({signal.Signals(number).name}); the same command continues it")
        raise SystemExit(128 + number)

    outer, _current = _current, None
    before = _catch(leave)
    try:
        yield
    except SystemExit:
        if status:  # Ray makes a 1 of it where it waits
            raise SystemExit(status) from None
        raise
    finally:
        _current = outer
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def _catch(handler: Callable[[int, FrameType | None], None]) -> dict[signal.Signals, Any]:
    """Set a handler for all `STOPPING` signals; returns the previous handlers."""
    return {
        number: signal.signal(number, handler)
        for number in STOPPING
        if number.name != "SIGHUP" or signal.getsignal(number) is not signal.SIG_IGN
    }


def _say(text: str) -> None:
    """Write a line from a signal handler, in which print could interrupt itself."""
    try:
        os.write(2, f"\n{text}\n".encode())
    except OSError:  # the terminal is gone: further output is dropped
        silence()


def silence() -> None:
    """Discard all further output, so that it cannot fail."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)
