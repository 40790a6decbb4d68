"""Made-up music: scales, broken chords and their harmony in four voices, in all twelve keys.

Needs no file and no library; for tests, and to see that a model learns at all.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from generative.data.image_set import random_split
from generative.data.score_set import ScoreSet
from generative.music.notes import MAJOR, Note
from generative.music.score import Score

__all__ = ["tunes"]

SCALE = (0, 2, 4, 5, 7, 9, 11)
CHORDS = (0, 3, 4, 0)
"""Degrees of a major scale that the bars are built on, tonic to tonic."""


def tunes(num: int = 200, seed: int = 0) -> ScoreSet:
    """Make pieces of four bars in four voices; a tenth each for validation and test.

    The soprano goes up or down the scale or the chord of each bar, in quarters or eighths; the
    other voices hold the chord.
    """
    rng = np.random.default_rng(seed)
    scores = tuple(_tune(rng) for _ in range(num))
    kept = max(1, num // 10)
    names = tuple(f"tune-{i}" for i in range(num))
    return ScoreSet(scores, names, random_split(num, kept, kept, seed))


def _tune(rng: np.random.Generator) -> Score:
    tonic = int(rng.integers(12))
    notes = []

    def pitch(degree: int, octave: int) -> int:
        return 12 * (octave + 1 + degree // 7) + tonic + SCALE[degree % 7]

    for bar, root in enumerate(CHORDS):
        count = int(rng.choice([4, 8]))
        step = int(rng.choice([1, 2])) * int(rng.choice([-1, 1]))
        length = Fraction(4, count)
        for i in range(count):
            degree = 4 + root % 3 + step * (i % 4)
            notes.append(Note(4 * bar + i * length, length, pitch(degree, 4), 0))
        for part, (third, octave) in enumerate(((2, 4), (4, 3), (0, 3)), start=1):
            low = octave - 1 if part == 3 else octave
            notes.append(Note(Fraction(4 * bar), Fraction(4), pitch(root % 4 + third, low), part))
    return Score(notes, f"{MAJOR[tonic]}:major", "4/4", 4)
