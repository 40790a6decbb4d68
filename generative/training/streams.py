"""Standard streams of a command, which may be closed when it begins or while it prints."""

from __future__ import annotations

import os
import select
import sys

from generative.training.platforms import BROKEN_PIPE

__all__ = ["nobody_reads", "open_closed_streams", "tell"]


def open_closed_streams() -> None:
    """Open missing standard streams, or the next opened files would get their numbers."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))


def nobody_reads() -> bool:
    """True if the pipe that takes our output is closed; nothing is written to it any more then."""
    if not hasattr(select, "poll"):  # Windows, where a write tells it
        return False
    closed = False
    for stream in (sys.stdout, sys.stderr):
        poll = select.poll()
        poll.register(stream.fileno(), select.POLLOUT)
        if any(event & select.POLLERR for _, event in poll.poll(0)):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            closed = True
    return closed


def tell(text: str) -> None:
    """Print to a reader who may be gone.

    Raises:
        SystemExit: 141 if the reader is gone.
    """
    try:
        print(text, flush=True)
    except BrokenPipeError:
        nobody_reads()
        raise SystemExit(BROKEN_PIPE) from None
