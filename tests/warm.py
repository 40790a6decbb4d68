"""Python programs in processes forked from one that has the libraries loaded.

`Program` acts like `subprocess.Popen`. Importing torch and its company takes three seconds of a
core, a fork a quarter of one. What a fork cannot show (import times, hash seeds that differ from
one start to the next) is shown by `make test-nightly`, which sets COLD_PROGRAMS=1: each program is
then a fresh interpreter. The fixture `warm_workers` does the same for worker processes.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib.util
import multiprocessing
import os
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

WATCH = Path(__file__).parent / "reliability" / "crash" / "sitecustomize.py"


@functools.cache
def fork_server():
    """The multiprocessing context whose processes have these loaded; one a test process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.libraries"])
    return context


class WarmWorkers(multiprocessing.context.ForkServerContext):
    """Starts the workers of `generative.training.parallel` in forks of that process."""

    def Process(self, *, target, args, name, daemon):
        return super().Process(target=_adopt, args=(target, *args), name=name, daemon=daemon)


def _adopt(main, *arguments) -> None:
    """Run main. Its parent, whose life it watches, is the process that wanted it."""
    parent = multiprocessing.parent_process()
    os.getppid = lambda: parent.pid
    main(*arguments)


class Program:
    """`python ARGV`, as it runs or has run.

    Args:
        argv: file and its arguments, or "-c", code and its arguments.
        env: environment variables besides ours; those of `tests.commands.crash` work too.
        session: in a process group of its own, as a shell starts it.
        cold: a fresh interpreter, for what a fork cannot show.
    Attributes:
        pid: the number of the process.
    """

    def __init__(
        self,
        argv: Sequence[object],
        *,
        cwd: Path,
        env: Mapping[str, str],
        session: bool = False,
        cold: bool = False,
    ):
        words = [str(word) for word in argv]
        folder = Path(tempfile.mkdtemp(prefix="program-"))
        self._folder = folder
        self._outputs = (folder / "stdout", folder / "stderr")
        if cold or os.environ.get("COLD_PROGRAMS"):
            with open(self._outputs[0], "wb") as out, open(self._outputs[1], "wb") as err:
                self._process = subprocess.Popen(
                    [sys.executable, *words], cwd=cwd, env={**os.environ, **env},
                    stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=session,
                )  # fmt: skip
        else:
            environment = {**os.environ, **env}
            arguments = (words, str(cwd), environment, self._outputs, session)
            self._process = fork_server().Process(target=_run, args=arguments)
            self._process.start()
        self.pid: int = self._process.pid

    @property
    def stdout(self) -> str:
        """All it has printed so far."""
        return self._outputs[0].read_text() if self._outputs[0].exists() else ""

    @property
    def stderr(self) -> str:
        """All it has said on the other stream so far."""
        return self._outputs[1].read_text() if self._outputs[1].exists() else ""

    def poll(self) -> int | None:
        """Its exit status, negative for the signal that ended it; None while it runs."""
        if isinstance(self._process, subprocess.Popen):
            return self._process.poll()
        return self._process.exitcode

    def wait(self, timeout: float) -> int:
        """The exit status.

        Raises:
            subprocess.TimeoutExpired: it still runs.
        """
        if isinstance(self._process, subprocess.Popen):
            return self._process.wait(timeout)
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("a program", timeout)
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End it if it still runs, and forget what it printed."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self.wait(60)
        shutil.rmtree(self._folder, ignore_errors=True)


def _run(words: list[str], cwd: str, environment: dict, outputs, session: bool) -> None:
    """What `python WORDS` does, in the fork."""
    if session:
        os.setsid()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None  # read TMPDIR again
    for number, path in zip((1, 2), outputs, strict=True):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdout = sys.__stdout__ = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.__stderr__ = os.fdopen(
        2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False
    )
    import numpy as np
    import torch

    np.random.seed()  # noqa: NPY002  no two programs begin with the same numbers
    torch.set_num_threads(int(environment.get("OMP_NUM_THREADS", 1)))
    if "CRASH_FOLDER" in environment:
        spec = importlib.util.spec_from_file_location("crash", WATCH)
        assert spec
        assert spec.loader
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    status = 1
    try:
        if words[0] == "-c":
            sys.argv = ["-c", *words[2:]]
            exec(compile(words[1], "<string>", "exec"), {"__name__": "__main__"})
        else:
            sys.argv = words
            sys.path.insert(0, str(Path(words[0]).parent))
            runpy.run_path(words[0], run_name="__main__")
        status = 0
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
    except BaseException as error:
        sys.excepthook(*sys.exc_info())
        if isinstance(error, KeyboardInterrupt):
            status = -signal.SIGINT
    # The end of an interpreter, which a process of multiprocessing skips.
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    if status < 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(status)
