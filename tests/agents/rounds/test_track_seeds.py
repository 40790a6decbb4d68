"""Recorded tracks stay apart from those for choosing and for the score."""

from agents.evaluation import EVALUATION_SEEDS, SELECTION_SEEDS
from agents.rounds.recording import track_seed


def test_reserved_tracks_are_never_recorded():
    edges = [r.start for r in (EVALUATION_SEEDS, SELECTION_SEEDS)]
    edges += [r.stop - 1 for r in (EVALUATION_SEEDS, SELECTION_SEEDS)]
    kept = {*EVALUATION_SEEDS, *SELECTION_SEEDS}
    seeds = [track_seed(edge + turn * 2**31) for edge in edges for turn in (0, 1, 5)]
    assert not kept & set(seeds)
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_other_numbers_are_taken_as_they_are():
    assert [track_seed(n) for n in (0, 999_999, 2**31 + 7)] == [0, 999_999, 7]
