"""Runs the project's commands as a user would; for the tests of scripts and of reliability."""

import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.warm import Program

ROOT = Path(__file__).parents[1]


def command(verb: str, *words: object) -> list[str]:
    """`python scripts/VERB.py WORDS`."""
    return [sys.executable, str(ROOT / "scripts" / f"{verb}.py"), *map(str, words)]


def run_python(
    *argv: object, cold: bool = False, cwd: Path = ROOT, **env: str
) -> subprocess.CompletedProcess:
    """Run `python ARGV` to its end, with these environment variables too; see `tests.warm`."""
    with Program(argv, cwd=cwd, env=env, cold=cold) as program:
        status = program.wait(250)
        return subprocess.CompletedProcess(argv, status, program.stdout, program.stderr)


def run_script(
    verb: str, *words: object, modules: bool = False, cwd: Path = ROOT, **env: str
) -> subprocess.CompletedProcess:
    """Run `command` with these environment variables too; `imported` tells its modules if asked."""
    if modules:
        env["PYTHONPROFILEIMPORTTIME"] = "1"
    return run_python(*command(verb, *words)[1:], cold=modules, cwd=cwd, **env)


def crash(
    folder: Path, log: Path, at: int = 10**9, number: signal.Signals = signal.SIGKILL
) -> dict[str, str]:
    """Environment of a process that gets a signal at its file operation number `at` in folder.

    It writes the time to log then, or, if it never comes that far, the number of operations.
    """
    paths = [str(ROOT / "tests" / "reliability" / "crash"), os.environ.get("PYTHONPATH", "")]
    return {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "CRASH_FOLDER": str(folder),
        "CRASH_AT": str(at),
        "CRASH_SIGNAL": number.name,
        "CRASH_LOG": str(log),
    }


def imported(done: subprocess.CompletedProcess) -> set[str]:
    """Modules that a process with modules=True imported, by the list on its stderr."""
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    assert lines
    return {line.rpartition("|")[2].strip() for line in lines}


def once(base: Path, name: str, make: Callable[[Path], None]) -> Path:
    """The folder base/name as `make(folder)` left it; test processes that share base share it."""
    folder, made = base / name, base / f"{name}.made"
    with open(base / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            make(folder)
            made.touch()
    return folder


def shared_base(tmp_path_factory) -> Path:
    """A temporary folder that is the same in all processes of a pytest-xdist session."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def copy_run(source: Path, target: Path) -> Path:
    """A copy that shares the files, which is quick, also to delete: runs replace files.

    The few that grow in place are copied. A test that writes into a file unlinks it first.
    """

    def copy(old: str, new: str) -> None:
        grows = Path(old).suffix == ".jsonl" or Path(old).name == "run.lock"
        (shutil.copy2 if grows else os.link)(old, new)

    return shutil.copytree(source, target, copy_function=copy)


def snapshot(folder: Path, *, times: bool = False) -> dict[str, tuple[str, int]]:
    """SHA-256 (and time of change) of every file, but for run.lock and versions.json.

    These two tell who opened a run, and under which versions, and so change without a change.
    """
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {
        str(path.relative_to(folder)): (
            hashlib.sha256(path.read_bytes()).hexdigest(),
            path.stat().st_mtime_ns if times else 0,
        )
        for path in files
        if path.name not in ("run.lock", "versions.json")
    }


def read_lines(path: Path) -> list[Any]:
    """A JSON-lines file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def children(pid: int) -> set[int]:
    """Processes that descend from pid, but for Python's resource tracker, which ends after it."""
    found, waiting = set(), [pid]
    parents: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            try:
                stat = Path(f"/proc/{entry}/stat").read_text()
                command = Path(f"/proc/{entry}/cmdline").read_bytes()
            except OSError:  # it has just ended
                continue
            if b"resource_tracker" not in command:
                parents.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry))
    while waiting:
        new = parents.get(waiting.pop(), [])
        found.update(new)
        waiting += new
    return found


def alive(pids: set[int]) -> set[int]:
    """Those that still run; a zombie does not."""
    running = set()
    for pid in pids:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state not in "ZX":
            running.add(pid)
    return running
