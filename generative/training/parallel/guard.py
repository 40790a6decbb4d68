"""Cleans up after a Ray that a process started: `guard.py PID FOLDER` waits on its input.

Ray's main processes end with the one that started them. If that was killed, their agents run on for
half a minute, and the folder stays. The guard tracks the descendants of PID that were started with
FOLDER, and theirs. When its input is closed, which the system does for a killed process, it ends
the remaining ones and removes the folder. It imports none of our modules.
"""

import contextlib
import os
import select
import shutil
import signal
import sys
import time


def descendants(pid: int) -> set[int]:
    """Return all descendants of a process."""
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
    """Start time of a process, which distinguishes it from a later one with the same number."""
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[19]


def of_folder(pid: int, folder: str) -> set[int]:
    """Descendants of pid that have the folder on their command line, and descendants of these."""
    found = set()
    for child in descendants(pid):
        with contextlib.suppress(OSError), open(f"/proc/{child}/cmdline") as file:
            if folder in file.read():
                found |= {child, *descendants(child)}
    return found


def main(pid: int, folder: str) -> None:
    known: dict[int, str] = {}
    while os.getppid() == pid:  # a fork of it may hold the other end of the input
        for child in of_folder(pid, folder) if os.path.isdir("/proc") else ():
            with contextlib.suppress(OSError):
                known.setdefault(child, started(child))
        if select.select([sys.stdin], [], [], 1.0)[0]:
            break
    for child, when in known.items():
        with contextlib.suppress(OSError):
            if started(child) == when:
                os.kill(child, signal.SIGKILL)
    for _ in range(50):  # they write until they are gone
        shutil.rmtree(folder, ignore_errors=True)
        if not os.path.exists(folder):
            break
        time.sleep(0.1)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
