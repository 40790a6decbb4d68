"""SIGTERM and Ctrl-C."""

import os
import pty
import signal
import subprocess
import sys
import threading
import time

import pytest

from generative.training.signals import exit_on_signals, stop_signals


def test_request_is_seen_and_handlers_are_put_back():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as caught, stop_signals() as stop:
        assert not stop.requested
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested
        stop.exit("stopped after step 3")
    assert caught.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before


def test_request_that_nobody_acted_upon_is_not_lost(capsys):
    after = []
    with pytest.raises(SystemExit) as caught:
        with stop_signals():
            with stop_signals() as inner:
                os.kill(os.getpid(), signal.SIGINT)
                assert inner.requested
            after.append("the inner block ends as usual")
        after.append("not reached")
    assert caught.value.code == 130
    assert after == ["the inner block ends as usual"]
    assert "SIGINT" in capsys.readouterr().err


def test_other_errors_pass_through():
    with pytest.raises(ZeroDivisionError), stop_signals():
        os.kill(os.getpid(), signal.SIGTERM)
        raise ZeroDivisionError


def test_threads_are_left_alone():
    seen = []

    def work():
        with stop_signals() as stop:
            seen.append(stop.requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]


def test_second_signal_exits_at_once():
    code = (
        "import time\n"
        "from generative.training.signals import stop_signals\n"
        "with stop_signals():\n"
        "    print('ready', flush=True)\n"
        "    while True: time.sleep(1)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    assert "again to stop at once" in process.stderr.readline() + process.stderr.readline()
    process.terminate()
    assert process.wait(timeout=10) == 143


CLOSED = """
import os, sys, time
from generative.training.progress import progress
from generative.training.signals import stop_signals
with stop_signals() as stop, progress(10_000, "working") as bar:
    while not stop.requested:
        time.sleep(0.01)
        bar.advance()
    bar.advance()
    print("saved", file=open(sys.argv[1], "w"))
    print("to nobody")
    stop.exit("stopped after step 3")
"""


def test_a_closed_terminal_ends_a_run_as_sigterm_does(tmp_path):
    """Whatever is then written to the terminal, by bars too, fails; what is to be saved is."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-c", CLOSED, str(tmp_path / "saved")])
    while b"working" not in os.read(terminal, 1000):
        pass
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 129
    assert (tmp_path / "saved").read_text() == "saved\n"


@pytest.mark.parametrize("block", ["stop_signals", "exit_on_signals"])
def test_nohup_is_heeded(block):
    code = (
        "import os, signal\n"
        f"from generative.training.signals import {block}\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        f"with {block}(): os.kill(os.getpid(), signal.SIGHUP)\n"
        "print(signal.getsignal(signal.SIGHUP).name)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "SIG_IGN\n")


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)]
)
def test_leaving_at_once_tidies_up(number, status, capfd):
    before = signal.getsignal(number)
    tidied = []
    with pytest.raises(SystemExit) as caught, exit_on_signals():
        try:
            os.kill(os.getpid(), number)
            time.sleep(10)
        finally:
            tidied.append("up")
    assert caught.value.code == status
    assert tidied == ["up"]
    assert f"stopped ({number.name})" in capfd.readouterr().err
    assert signal.getsignal(number) is before


def test_the_inner_block_decides():
    with pytest.raises(SystemExit) as caught, exit_on_signals(), stop_signals() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested  # and the step is finished
        stop.exit()
    assert caught.value.code == 143
    with stop_signals() as stop:
        with pytest.raises(SystemExit), exit_on_signals():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        assert not stop.requested
        with stop_signals() as same:
            assert same is stop
