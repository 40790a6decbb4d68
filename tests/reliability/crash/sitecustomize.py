"""On PYTHONPATH, signals its own process at a chosen file operation: a crash at a chosen moment.

Between two operations the files do not change, so these are all the moments there are, but for the
middle of a write. Operations are files opened for writing, renamed or removed, and folders made or
removed, in CRASH_FOLDER. They are counted from 1; before number CRASH_AT the process gets
CRASH_SIGNAL. CRASH_LOG is written when that happens (the time), or else at the end (the count).
"""

import atexit
import os
import signal
import sys
import time
from pathlib import Path

EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
count = 0


def watch(folder: str, at: int, number: int, log: Path) -> None:
    """Count, and strike when it is time."""

    def hook(event, args):
        global count
        if event not in EVENTS or not isinstance(args[0], str | os.PathLike):
            return
        if event == "open" and not args[2] & WRITING:
            return
        if not os.fspath(args[0]).startswith(folder):
            return
        count += 1
        if count == at:
            log.write_text(str(time.time()))
            os.kill(os.getpid(), number)

    sys.addaudithook(hook)
    atexit.register(lambda: count < at and log.write_text(str(count)))


# Taken out, for child processes are not to count.
settings = {
    name: os.environ.pop(name, "") for name in list(os.environ) if name.startswith("CRASH_")
}
if settings:
    watch(
        settings["CRASH_FOLDER"],
        int(settings["CRASH_AT"]),
        signal.Signals[settings["CRASH_SIGNAL"]],
        Path(settings["CRASH_LOG"]),
    )
