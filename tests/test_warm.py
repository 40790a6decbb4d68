"""Programs in forks end as they do in an interpreter of their own."""

import os

import pytest

from tests.commands import run_python

PROGRAMS = {
    "prints": "import sys; print(sys.argv, __name__); print('loud', file=sys.stderr)",
    "its place": "import os; print(os.getcwd(), os.environ['WHERE'], 'WHO' in os.environ)",
    "a status": "raise SystemExit(3)",
    "a reason": "import sys; sys.exit('why')",
    "no reason": "raise SystemExit",
    "an error": "1 / 0",
    "an interrupt": "raise KeyboardInterrupt",
    "a kill": "import os; print('never', end=''); os.kill(os.getpid(), 9)",
    "a last word": "import atexit; atexit.register(print, 'bye')",
    "a thread": (
        "import threading, time\n"
        "threading.Thread(target=lambda: (time.sleep(0.1), print('late'))).start()"
    ),
    "no input": "import sys; print(repr(sys.stdin.read()))",
}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_ends_as_in_an_interpreter_of_its_own(program, tmp_path, monkeypatch):
    for name in ("WHO", "PYTHONUNBUFFERED"):
        monkeypatch.delenv(name, raising=False)
    warm, cold = (
        run_python("-c", program, "a", 2, cwd=tmp_path, cold=cold, WHERE="here")
        for cold in (False, True)
    )
    assert (warm.returncode, warm.stdout) == (cold.returncode, cold.stdout)
    assert warm.stderr.splitlines()[-1:] == cold.stderr.splitlines()[-1:]
    assert "WHERE" not in os.environ
