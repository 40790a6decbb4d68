"""SIGTERM and Ctrl-C: finish the step, save, exit. A second signal exits at once.

with stop_signals() as stop:
    for step in range(steps):
        ...
        if stop.requested:
            save()
            stop.exit(f"stopped after step {step}")

with exit_on_signals():   # nothing half done is worth saving
    ...
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn


class Stop:
    """Whether, and by which signal, this process was asked to stop."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    @property
    def requested(self) -> bool:
        """True from the first signal on."""
        return self.signal is not None

    def exit(self, message: str = "stopped") -> NoReturn:
        """Leave with 128 + signal (143 for SIGTERM, 130 for Ctrl-C), after saying where it stands.

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
        # os.write: print could be interrupted inside itself.
        os.write(2, b"\nstopping after this step; again to stop at once\n")


_current: Stop | None = None


@contextmanager
def stop_signals() -> Iterator[Stop]:
    """Catch SIGTERM and SIGINT inside the block; blocks may be nested and share one `Stop`.

    A request that the block did not act upon ends the process when the outermost block ends. In
    threads other than the main one nothing is caught and `requested` stays False.
    """
    global _current
    if _current is not None:
        yield _current
        return
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, stop._handle) for number in numbers}
    _current = stop
    try:
        yield stop
        if stop.requested:
            stop.exit()
    finally:
        _current = None
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


@contextmanager
def exit_on_signals() -> Iterator[None]:
    """SIGTERM and SIGINT raise SystemExit (143, 130) wherever the block stands.

    For work that need not finish a step: its files are whole at any moment, and its `finally`
    clauses end the processes it started. `stop_signals` inside the block works as always. In
    threads other than the main one nothing is caught.
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
        name = signal.Signals(number).name
        os.write(2, f"\nstopped ({name}); the same command continues it\n".encode())
        raise SystemExit(128 + number)

    outer, _current = _current, None
    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGINT)}
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
