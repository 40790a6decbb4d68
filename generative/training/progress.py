"""Progress of work that takes longer than two seconds: what, how far, how fast, how long.

    for frames in progress(batches, "encoding frames"):
        ...
    with progress(10_000, "training V", done=400) as bar:
        bar.advance()

On a terminal this is a bar; elsewhere (a log file, CI) a plain line at most every ten seconds.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import Any, Generic, Self, TypeVar

T = TypeVar("T")

FIRST_LINE_SECONDS = 2.0
LINE_SECONDS = 10.0
REFRESH_SECONDS = 0.1
ESTIMATE_SECONDS = 3.0
"""Seconds of steps before a rate is shown. The first step is left out, as it includes the start of
other processes."""


def progress(
    work: Iterable[T] | int | None, what: str, *, total: int | None = None, done: int = 0
) -> Progress[T]:
    """Follow work: loop over the result, or open it with `with` and call `advance`.

    Args:
        work: something to loop over, or the number of steps (None: not known).
        what: name of the work, e.g. "training V".
        total: length of work, if `len` does not tell it.
        done: steps already done by an earlier process; they do not count for the rate.
    """
    if work is None or isinstance(work, int):
        return Progress(None, what, work if total is None else total, done)
    if total is None and isinstance(work, Sized):
        total = done + len(work)
    return Progress(work, what, total, done)


class Progress(Generic[T]):
    """See `progress`."""

    def __init__(self, work: Iterable[T] | None, what: str, total: int | None, done: int):
        self.what, self.total, self.done = what, total, done
        self._work = work
        self._note = ""
        self._first: tuple[int, float] | None = None  # steps done, and the time, at the first step
        self._started = self._shown = time.monotonic()
        self._lines = 0
        self._display: _Bars | None = None

    def __iter__(self) -> Iterator[T]:
        if self._work is None:
            raise TypeError(f"progress of {self.what!r} was given a number; open it with `with`")
        with self:
            for item in self._work:
                yield item
                self.advance()

    def __enter__(self) -> Self:
        self._started = self._shown = time.monotonic()
        if sys.stdout is not None and sys.stdout.isatty():
            self._display = _Bars.shared()
            self._display.add(self)
        return self

    def __exit__(self, error: object, *_: object) -> None:
        if self._display is not None:
            self._display.remove(self, keep=time.monotonic() - self._started > FIRST_LINE_SECONDS)
        elif error is None and time.monotonic() - self._started > FIRST_LINE_SECONDS:
            self._print()

    def advance(self, n: int = 1, note: str | None = None) -> None:
        """Count n more steps; note (e.g. "loss 0.12") replaces the one shown."""
        self.done += n
        if note is not None:
            self._note = note
        now = time.monotonic()
        if self._first is None and n:
            self._first = self.done, now
        if self._display is not None:
            if now - self._shown >= REFRESH_SECONDS:
                self._shown = now
                self._display.update(self)
        elif now - self._shown >= (LINE_SECONDS if self._lines else FIRST_LINE_SECONDS):
            self._shown = now
            self._print()

    def __str__(self) -> str:
        """Full progress as a line of its own."""
        elapsed, rate, left = self._speed()
        parts = [f"{self.done:,}" + (f" of {self.total:,}" if self.total is not None else "")]
        if self.total:
            parts[0] += f" ({self.done / self.total:.0%})"
        parts += [rate, f"{format_seconds(elapsed)} so far", left and f"{left} left", self._note]
        return ", ".join(filter(None, parts))

    def brief(self) -> str:
        """Short progress to stand beside a bar."""
        elapsed, rate, left = self._speed()
        count = f"{self.done:,}" + (f"/{self.total:,}" if self.total is not None else "")
        time_text = f"{left} left" if left else format_seconds(elapsed)
        return " ".join(filter(None, [count, rate, time_text, self._note]))

    def _speed(self) -> tuple[float, str, str]:
        """Seconds so far, and as text the rate and the time left; empty if they are not known."""
        now = time.monotonic()
        done, since = self._first or (self.done, now)
        rate = (self.done - done) / max(now - since, 1e-9)
        known = rate > 0 and now - since >= ESTIMATE_SECONDS
        left = ""
        if self.total is not None and self.done < self.total:
            left = format_seconds((self.total - self.done) / rate) if known else "--:--"
        return now - self._started, format_rate(rate) if known else "", left

    def _print(self) -> None:
        self._lines += 1
        print(f"{self.what}: {self}", flush=True)


def format_seconds(seconds: float) -> str:
    """Seconds as 42 s, 3:07 min or 1:05:00 h."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d} min"
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d} h"


def format_rate(rate: float) -> str:
    """Steps per second, or per minute if slower than one per second."""
    if rate >= 10:
        return f"{rate:,.0f}/s"
    return f"{rate:.1f}/s" if rate >= 1 else f"{rate * 60:.1f}/min"


class _Bars:
    """The bars on the terminal; rich allows one live display, so nested ones share it."""

    _shared: _Bars | None = None

    def __init__(self) -> None:
        from rich import progress as rich_progress

        self._rich = rich_progress.Progress(
            rich_progress.TextColumn("{task.description}", markup=False),
            rich_progress.BarColumn(bar_width=10),
            rich_progress.TextColumn("{task.fields[text]}", markup=False),
        )
        self._tasks: dict[int, Any] = {}

    @classmethod
    def shared(cls) -> _Bars:
        if cls._shared is None:
            cls._shared = cls()
        return cls._shared

    def add(self, bar: Progress[Any]) -> None:
        if not self._tasks:
            self._rich.start()
        self._tasks[id(bar)] = self._rich.add_task(
            bar.what, total=bar.total, completed=bar.done, text=""
        )

    def update(self, bar: Progress[Any]) -> None:
        self._rich.update(self._tasks[id(bar)], completed=bar.done, text=bar.brief())

    def remove(self, bar: Progress[Any], keep: bool) -> None:
        self.update(bar)
        task = self._tasks.pop(id(bar))
        self._rich.update(task, visible=keep)
        self._rich.stop_task(task)
        if not self._tasks:
            self._rich.stop()
            _Bars._shared = None
