"""Scores as pictures: piano rolls, with time to the right and pitch upwards.

run.metrics.log_image(step, "samples", piano_roll(score))
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from generative.music.score import Score

__all__ = ["COLOURS", "piano_roll", "piano_rolls"]

COLOURS = ((214, 93, 67), (232, 168, 56), (74, 144, 130), (58, 95, 154), (136, 96, 150))
"""Colours of the parts, from the highest voice on, in a cycle."""
GROUND, BLACK_KEYS, BAR, BEAT, OCTAVE = 252, 244, 190, 228, 214
"""Greys of the ground, the rows of black keys, and the lines at bars, beats and below each C."""


def piano_roll(
    score: Score,
    width: int = 800,
    row: int = 5,
    pitches: tuple[int, int] | None = None,
    length: float | None = None,
    lines: bool = True,
) -> np.ndarray:
    """Draw a score, uint8 (H, width, 3): rows are semitones, lines are bars and beats.

    Args:
        width: pixels.
        row: pixels of a semitone.
        pitches: lowest and highest pitch to show; None for those of the score and a margin.
        length: quarter notes to show; None for the whole bars of the score.
        lines: draw bars and beats.
    """
    beats, _, unit = score.time_signature.partition("/")
    beat = 4 / int(unit)
    bar = int(beats) * beat
    if length is None:
        length = max(1, math.ceil(score.length / bar)) * bar
    if pitches is None:
        heard = [note.pitch for note in score.notes] or [60]
        pitches = (max(0, min(heard) - 3), min(127, max(heard) + 3))
    low, high = pitches
    scale = width / float(length)
    height = (high - low + 1) * row
    picture = np.full((height, width, 3), GROUND, dtype=np.uint8)
    for pitch in range(low, high + 1):
        top = (high - pitch) * row
        if pitch % 12 in (1, 3, 6, 8, 10):
            picture[top : top + row] = BLACK_KEYS
        if pitch % 12 == 0 and top + row < height:
            picture[top + row - 1] = OCTAVE
    if lines:
        for number in range(1, math.ceil(float(length) / beat)):
            is_bar = math.isclose(number * beat % bar, 0) or math.isclose(number * beat % bar, bar)
            x = round(number * beat * scale)
            if is_bar or beat * scale >= 8:  # close lines would make the ground grey
                picture[:, min(x, width - 1)] = BAR if is_bar else BEAT
    # Lower voices are drawn first, so that the melody stays visible where two meet.
    for start, duration, pitch, part in sorted(score.notes, key=lambda note: -note.part):
        if low <= pitch <= high and start < length:
            left = round(float(start) * scale)
            right = max(left + 2, round(float(start + duration) * scale) - 1)
            top = (high - pitch) * row
            colour = np.array(COLOURS[part % len(COLOURS)])
            picture[top : top + row - 1, left:right] = colour
            picture[top : top + row - 1, left : min(left + 2, right)] = colour * 0.7  # its attack
    return picture


def piano_rolls(
    scores: Sequence[Score], columns: int = 2, width: int = 400, row: int = 4, gap: int = 8
) -> np.ndarray:
    """Draw several piano rolls in a grid, all of the same scale, uint8 (H, W, 3)."""
    if not scores:
        raise ValueError("there is no score to draw")
    heard = [note.pitch for score in scores for note in score.notes] or [60]
    pitches = (max(0, min(heard) - 2), min(127, max(heard) + 2))
    length = max(4.0, *(float(score.length) for score in scores))
    drawn = [piano_roll(score, width, row, pitches, length) for score in scores]
    height = drawn[0].shape[0]
    rows, columns = math.ceil(len(drawn) / columns), min(columns, len(drawn))
    picture = np.full(
        (rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, dtype=np.uint8
    )
    for i, part in enumerate(drawn):
        top, left = i // columns * (height + gap), i % columns * (width + gap)
        picture[top : top + height, left : left + width] = part
    return picture
