"""What is said of a round, and of the time that is left."""

from dataclasses import replace

import pytest

from agents.report import Candidate, RoundRecord
from agents.rounds.rounds import rounds_summary, seconds_left
from scripts.train_in_dream import PRESETS

ARGS = replace(PRESETS["quick"], rounds=4, vision_rounds=2)
STAGES = ("collect", "vision", "encode", "memory", "controller", "choose")


def record(index, **seconds):
    scores = [100.0, 300.0]
    candidates = [Candidate("search 0", 20.0, scores, True), Candidate("search 1", 9.0, scores)]
    return RoundRecord(
        index, 1000, None, None, 0.5, 0.1, 20.0, 30, 10**6, 3, scores, candidates, seconds
    )  # fmt: skip


def test_time_left_is_that_of_like_rounds_and_of_the_episodes_at_the_end():
    """By hand: 2 searches and the controller before them drive; 4 episodes took 8 seconds."""
    first = record(0, **dict.fromkeys(STAGES, 12.0) | {"choose": 8.0})
    share = (50 * 100) / (250 * 70)  # of the first recording
    collect, memory = 3 * 12 * share, 3 * 12 * 500 / 800
    vision, encode = 12 * 500 / 1600, 12 * (2 + 1 + 1)
    ends = (3 * 16 + 20) * 8 / 4
    expected = collect + memory + vision + encode + 3 * 12 + 3 * 8 * 3 / 2 + ends
    assert seconds_left(ARGS, [first]) == pytest.approx(expected)

    last = record(3, collect=1.0, encode=1.0, memory=1.0, controller=1.0, choose=4.0)
    assert seconds_left(ARGS, [first, last]) == pytest.approx((3 * 16 + 20) * 4 / 4)


def test_a_line_for_a_round():
    seconds = {"collect": 30.0, "memory": 24.0, "choose": 12.0, "controller": 0.0, "encode": 0.0}
    told = rounds_summary(ARGS, [record(3, **seconds)])
    # A dream of 30 decisions of 3 steps paid 20: 222 in 1,000 steps.
    assert told == (
        "round 4 of 4: real score 200 (2 episodes), dreamed 222, 1.1 minutes; "
        "about 3.4 minutes left"
    )
