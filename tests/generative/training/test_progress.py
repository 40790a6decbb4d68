"""Progress: plain lines off a terminal, bars on one."""

import os
import pty
import select
import subprocess
import sys

import pytest

from generative.training import progress as module
from generative.training.progress import format_rate, format_seconds, progress


class Clock:
    now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def test_plain_lines_are_rare_and_complete(clock, capsys):
    for _ in progress(range(60), "encoding frames"):
        clock.now += 1.0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "encoding frames: 2 of 60 (3%), 2 s so far, --:-- left"
    assert lines[1] == "encoding frames: 12 of 60 (20%), 1.0/s, 12 s so far, 48 s left"
    assert lines[-1] == "encoding frames: 60 of 60 (100%), 1.0/s, 1:00 min so far"
    assert len(lines) == 7


def test_what_has_to_start_first_is_no_measure(clock, capsys):
    """Workers need 30 s to start, then a step takes a second."""
    with progress(100, "collecting episodes") as bar:
        clock.now += 30
        for _ in range(13):
            bar.advance()
            clock.now += 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "collecting episodes: 1 of 100 (1%), 30 s so far, --:-- left"
    assert lines[1] == "collecting episodes: 11 of 100 (11%), 1.0/s, 40 s so far, 1:29 min left"


def test_a_continued_run_waits_before_it_estimates(clock, capsys):
    """The first two steps are slow, and say nothing of the others."""
    with progress(10_000, "training V", done=4000) as bar:
        clock.now += 2
        bar.advance()
        clock.now += 0.1
        bar.advance()
        assert "--:-- left" in str(bar)
        assert "--:-- left" in bar.brief()
        for _ in range(100):
            clock.now += 0.1
            bar.advance()
        assert "10/s" in str(bar)
        assert "9:50 min left" in str(bar)
    capsys.readouterr()


def test_short_work_says_nothing(clock, capsys):
    for _ in progress(range(5), "loading"):
        clock.now += 0.1
    assert capsys.readouterr().out == ""


def test_resumed_work_counts_its_own_rate(clock, capsys):
    with progress(100, "training V", done=90) as bar:
        clock.now += 1
        bar.advance(note="loss 0.25")
        clock.now += 4
        bar.advance(4)
        clock.now += 0.1
    assert capsys.readouterr().out.splitlines()[0] == (
        "training V: 95 of 100 (95%), 1.0/s, 5 s so far, 5 s left, loss 0.25"
    )


def test_unknown_length(clock, capsys):
    for _ in progress(iter("abc"), "reading"):
        clock.now += 4
    assert capsys.readouterr().out.splitlines()[0] == "reading: 1, 4 s so far"


def test_looping_over_a_number_is_explained():
    with pytest.raises(TypeError, match="open it with `with`"):
        list(progress(3, "x"))


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.6, "1:00 min"), (187, "3:07 min"), (3900, "1:05:00 h")]
)
def test_times(seconds, text):
    assert format_seconds(seconds) == text


def test_rates():
    assert [format_rate(r) for r in (1234.0, 2.34, 0.5)] == ["1,234/s", "2.3/s", "30.0/min"]


def test_nested_bars_on_a_terminal():
    code = (
        "import time\n"
        "from generative.training.progress import progress\n"
        "for i in progress(range(2), 'rounds'):\n"
        "    for j in progress(range(4), 'dreaming'):\n"
        "        time.sleep(0.1)\n"
        "print('after')\n"
    )
    parent, child = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "80"}
    process = subprocess.Popen([sys.executable, "-c", code], stdout=child, stderr=child,
                               env=environment)  # fmt: skip
    os.close(child)
    output = b""
    while select.select([parent], [], [], 20)[0]:
        try:
            part = os.read(parent, 4096)
        except OSError:  # Linux: the other side is closed
            break
        if not part:
            break
        output += part
    os.close(parent)
    assert process.wait() == 0, output.decode()
    text = output.decode()
    assert "rounds" in text
    assert "dreaming" in text
    assert "3/4 " in text
    assert "after" in text
