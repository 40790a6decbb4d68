"""SIGTERM and Ctrl-C."""

import os
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


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
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
