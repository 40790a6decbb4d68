"""Ctrl-C during the imports of a command: one line and exit status 130, no traceback.

It is loaded with `generative`, which every command imports first; the other imports then take
seconds. `generative.training.cli.start` handles Ctrl-C afterwards.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

__all__ = ["end_quietly", "interrupt_again"]


def _stop_imports(number: int, _frame: object) -> None:
    os.write(2, b"\nstopped (SIGINT)\n")
    os._exit(128 + number)


def end_quietly() -> None:
    """Let Ctrl-C end the process at once, with one line, until `interrupt_again`."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _stop_imports)


def interrupt_again() -> None:
    """Let Ctrl-C raise KeyboardInterrupt again, if `end_quietly` changed that."""
    if signal.getsignal(signal.SIGINT) is _stop_imports:
        signal.signal(signal.SIGINT, signal.default_int_handler)


_main = Path(getattr(sys.modules["__main__"], "__file__", None) or "none").resolve()
if _main.parent == Path(__file__).resolve().parents[2] / "scripts":
    end_quietly()
