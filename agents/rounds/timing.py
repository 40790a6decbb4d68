"""The wall clock of a stage, over all processes that worked on it."""

from __future__ import annotations

import contextlib
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from generative.training.files import read_json, write_json
from generative.training.run import RESULT_NAME
from generative.training.settings import from_json

__all__ = ["read_seconds", "timed"]

SECONDS_KEPT = 5.0
"""Seconds after which a stage notes how long it has worked: no more is lost when it is killed."""


def timed(file: Path, work: Callable[[], Any]) -> tuple[Any, float]:
    """Run a stage; returns its result, and its seconds over all processes so far.

    Args:
        file: keeps the seconds; the stage's folder is beside it, by the same name without ending.
    """
    if file.exists() and (file.with_suffix("") / RESULT_NAME).exists():
        result = work()  # which is done
    else:
        with _adding_to(file):
            result = work()
    return result, read_seconds(file)


@contextlib.contextmanager
def _adding_to(file: Path) -> Iterator[None]:
    """Add the time in this block to that in the file, now and then: the process may be killed."""
    before, begun, over = read_seconds(file), time.monotonic(), threading.Event()

    def write() -> None:
        write_json(file, {"seconds": round(before + time.monotonic() - begun, 1)})

    def keep() -> None:
        with contextlib.suppress(OSError):  # the work, or the end, meets it too
            while not over.wait(SECONDS_KEPT):
                write()

    file.parent.mkdir(parents=True, exist_ok=True)
    keeper = threading.Thread(target=keep, daemon=True)
    keeper.start()
    try:
        yield
    finally:
        over.set()
        keeper.join()
        with contextlib.suppress(OSError):
            write()


def read_seconds(file: Path) -> float:
    """Seconds in a file; 0 if there is none, or if it is damaged, with a warning."""
    if not file.exists():
        return 0.0
    try:
        seconds = from_json(dict[str, float], read_json(file))["seconds"]
        if not 0 <= seconds < math.inf:
            raise ValueError(f"seconds is {seconds}")
        return seconds
    except (ValueError, KeyError) as error:
        print(f"{file}: is damaged ({error}); what it counted is lost", file=sys.stderr)
        return 0.0
