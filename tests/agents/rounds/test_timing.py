"""The time of a stage: summed over all processes that worked on it."""

import json
import shutil
import time
import types

import pytest

from agents.rounds import timing


@pytest.fixture
def clock(monkeypatch):
    """A clock that is set by hand, looked at whenever it may have gone on."""
    clock = types.SimpleNamespace(now=100.0)
    monkeypatch.setattr(timing, "time", types.SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(timing, "SECONDS_KEPT", 0.001)
    return clock


class Killed(BaseException):
    """Ends a process in the midst of its work."""


def seconds(file) -> float:
    return json.loads(file.read_text())["seconds"]


def test_time_adds_up_over_processes_that_were_killed(tmp_path, clock):
    file = tmp_path / "round-00" / "vision.seconds"

    def work(duration, how="done"):
        def run():
            clock.now += duration
            if how == "stopped":  # by a signal that is heard
                raise SystemExit(143)
            if how == "killed":  # nothing is run any more: only what was written so far stays
                end = time.monotonic() + 30
                while seconds(file) < expected:
                    assert time.monotonic() < end
                shutil.copy(file, tmp_path / "as it was left")
                raise Killed
            file.with_suffix("").mkdir()
            (file.with_suffix("") / "result.json").touch()
            return "result"

        return run

    expected = 3000.0
    for how, duration, end in (
        ("stopped", 1000, SystemExit),
        ("killed", 2000, Killed),
    ):
        with pytest.raises(end):
            timing.timed(file, work(duration, how))
        clock.now += 50_000  # until somebody continues it
    shutil.copy(tmp_path / "as it was left", file)
    assert timing.timed(file, work(110)) == ("result", 3110.0)
    clock.now += 50_000

    def again():
        clock.now += 7  # to find that it is done
        return "result"

    assert timing.timed(file, again) == ("result", 3110.0)


NUMBERS = ('"x"', "-1", "NaN", "Infinity", "null", "true")


@pytest.mark.parametrize(
    "content", ["", "{", "null", "[]", "{}", *[f'{{"seconds": {number}}}' for number in NUMBERS]]
)
def test_a_damaged_time_is_said_and_stops_nothing(tmp_path, clock, content, capsys):
    file = tmp_path / "memory.seconds"
    file.write_text(content)

    def work():
        clock.now += 5

    assert timing.timed(file, work) == (None, 5.0)
    assert f"{file}: is damaged" in capsys.readouterr().err
