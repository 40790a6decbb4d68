"""How much memory something takes at its height."""

import contextlib
from pathlib import Path

MIB = 2**20


@contextlib.contextmanager
def little_memory(most: int = 64 * MIB):
    """Fails if the block takes more memory than this at any moment (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew, see proc(5)
    before = _kib("VmRSS")
    yield
    taken = (_kib("VmHWM") - before) * 1024
    assert taken < most, f"took {taken / MIB:.0f} MiB"


def _kib(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))
