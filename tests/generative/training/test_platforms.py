"""The packages on platforms that lack parts of Linux: the parts are hidden, in every process."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

WITHOUT = {
    # macOS has fcntl, but no affinity and no signal on input.
    "macos": """
        import fcntl, os
        del os.sched_getaffinity, fcntl.F_SETSIG
    """,
    # os.name and sys.platform stay: by them, other libraries would look for what is not here.
    "windows": """
        import subprocess  # which takes msvcrt for Windows
        import os, select, signal, sys, types

        for owner, names in (
            (os, "sched_getaffinity O_NOFOLLOW O_NONBLOCK O_CLOEXEC O_ASYNC"),
            (signal, "SIGHUP SIGPIPE pthread_sigmask"),
            (select, "poll"),
        ):
            for name in names.split():
                delattr(owner, name)

        def locking(descriptor, mode, length):
            # By byte and process, as Windows does: what this stands for, not what is tested.
            import posix
            assert mode == 2 and length == 1
            posix.lockf(descriptor, posix.F_TLOCK, length)

        sys.modules["msvcrt"] = types.SimpleNamespace(locking=locking, LK_NBLCK=2)
        sys.modules["fcntl"] = None
    """,
}

PROGRAM = """
    import importlib, pkgutil, sys
    from pathlib import Path

    import numpy as np


    def square(job, report):
        return job * job


    if __name__ == "__main__":
        folder = Path(sys.argv[1])
        names = "generative", "worldmodels", "envs", "agents"
        for package in map(importlib.import_module, names):
            for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
                if module.name.rpartition(".")[2] != "__main__":
                    importlib.import_module(module.name)

        from generative.training.lock import FolderLock, RunInUseError
        from generative.training.parallel.processes import run_jobs
        from generative.training.platforms import count_cores
        from scripts.train_gan import PRESETS, main
        import dataclasses, subprocess

        assert count_cores() >= 1
        assert run_jobs(square, [1, 2, 3], 1, 1, "squares") == [1, 4, 9]
        main(dataclasses.replace(PRESETS["smoke"], out=folder / "gan"))

        lock = FolderLock(folder)
        other = (
            "import sys; from pathlib import Path; from generative.training import lock\\n"
            "try: lock.FolderLock(Path(sys.argv[1]))\\n"
            "except lock.RunInUseError as error: print(error)"
        )
        taken = subprocess.run(
            [sys.executable, "-c", other, str(folder)], capture_output=True, text=True, check=True
        )
        assert "is in use by process" in taken.stdout, taken
        lock.release()
        free = subprocess.run(
            [sys.executable, "-c", other, str(folder)], capture_output=True, text=True, check=True
        )
        assert free.stdout == "", free
        print("done")
"""


@pytest.mark.parametrize(
    "platform",
    ["windows", pytest.param("macos", marks=pytest.mark.nightly)],  # which hides less
)
def test_everything_loads_trains_and_locks_without(platform, tmp_path):
    (tmp_path / "hidden").mkdir()
    hidden = textwrap.dedent(WITHOUT[platform])
    (tmp_path / "hidden" / "sitecustomize.py").write_text(hidden, encoding="utf-8")
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM), encoding="utf-8")
    path = os.pathsep.join([str(tmp_path / "hidden"), str(ROOT)])
    done = subprocess.run(
        [sys.executable, str(program), str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        timeout=250,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("done")
