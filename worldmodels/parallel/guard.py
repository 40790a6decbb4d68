"""Ends a Ray that was started for a process which is gone: `guard.py PID`, waits on its input.

Ray's main processes end with the one that started them, but their agents, if that was killed, go on
for half a minute. This one knows all descendants of PID, and ends what is left of them when its
input is closed, which the system does for a process that is killed. It imports nothing of ours.
"""

import contextlib
import os
import select
import signal
import sys


def descendants(pid: int) -> set[int]:
    """Processes that were started by pid, and by these, and so on."""
    parents: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            with contextlib.suppress(OSError), open(f"/proc/{entry}/stat") as file:
                parents.setdefault(int(file.read().rpartition(")")[2].split()[1]), []).append(
                    int(entry)
                )
    found, waiting = set(), [pid]
    while waiting:
        new = parents.get(waiting.pop(), [])
        found.update(new)
        waiting += new
    return found - {os.getpid()}


def started(pid: int) -> str:
    """When a process was started; tells it from a later one of the same number."""
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[19]


def main(pid: int) -> None:
    known: dict[int, str] = {}
    while True:
        for child in descendants(pid):
            with contextlib.suppress(OSError):
                known.setdefault(child, started(child))
        if select.select([sys.stdin], [], [], 1.0)[0]:
            break
    for child, when in known.items():
        with contextlib.suppress(OSError):
            if started(child) == when:
                os.kill(child, signal.SIGKILL)


if __name__ == "__main__" and os.path.isdir("/proc"):
    main(int(sys.argv[1]))
