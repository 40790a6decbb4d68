"""One process per run folder."""

from __future__ import annotations

import errno
import json
import os
import socket
import weakref
from pathlib import Path

from generative.training.files import regular
from generative.training.platforms import after_fork_in_child, lock_file

LOCK_NAME = "run.lock"


class RunInUseError(RuntimeError):
    """Another process is working in the run folder."""


class FolderLock:
    """Holds folder/run.lock until `release` or the end of the process, however it ends.

    The system frees the lock when its process ends, so the lock of a killed process is taken over.
    On file systems without locks, the process number and its start time in the file decide. The
    file also names the holder; it stays behind when the lock is released.

    Raises:
        RunInUseError: another process holds it; names its number and host.
        DamagedFileError: run.lock is a link or no ordinary file.
    """

    def __init__(self, folder: Path):
        self.path = Path(folder) / LOCK_NAME
        self._file = open(self.path, "a+", encoding="utf-8", opener=regular)  # noqa: SIM115, open while held
        try:
            lock_file(self._file)
        except OSError as error:
            owner = self._read_owner()
            unsupported = error.errno not in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)
            if not unsupported or _is_alive(owner):
                self._file.close()
                raise RunInUseError(
                    f"{folder} is in use by process {owner.get('pid', '?')} on "
                    f"{owner.get('host', '?')}; wait for it, stop it, or choose another folder"
                ) from None
        _held.add(self)
        self._file.truncate(0)
        self._file.write(json.dumps(_this_process()))
        self._file.flush()

    def release(self) -> None:
        """Let the next process in."""
        self._file.close()

    def _read_owner(self) -> dict[str, object]:
        self._file.seek(0)
        try:
            owner = json.loads(self._file.read(4096))
        except (ValueError, RecursionError):
            return {}
        return owner if isinstance(owner, dict) else {}


_held: weakref.WeakSet[FolderLock] = weakref.WeakSet()


def _let_go_in_child() -> None:
    for lock in list(_held):
        lock.release()


# A forked child inherits the lock, and would keep it after this process has died.
after_fork_in_child(_let_go_in_child)


def _this_process() -> dict[str, object]:
    pid = os.getpid()
    return {"pid": pid, "host": socket.gethostname(), "started": _start_time(pid)}


def _is_alive(owner: dict[str, object]) -> bool:
    """True if the process that wrote the lock still runs, or belongs to another host."""
    if owner.get("host") != socket.gethostname():
        return bool(owner)
    pid = owner.get("pid")
    return isinstance(pid, int) and pid != os.getpid() and _start_time(pid) == owner.get("started")


def _start_time(pid: int) -> str | None:
    """Start time of a process in ticks since boot; None if there is no such process."""
    try:
        # Field 22 of /proc/PID/stat, counted after the name, which is in brackets (proc(5)).
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        if os.name == "nt":  # where os.kill ends the process
            return "unknown"
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except OSError:
            pass
        return "unknown"
