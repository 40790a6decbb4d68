"""Scores: notes with exact times, in parts; as a piano roll, transposed, written as MIDI.

    score = Score([Note(0, Fraction(1, 3), 60), Note(Fraction(1, 3), Fraction(2, 3), 64)])
    score.write_midi("two notes.mid", programs=(42,))
    score.roll(steps_per_quarter=4)            # (parts, T, 128) bool: pitches of each step
    score.voices(steps_per_quarter=4)          # (T, parts) one pitch at a time, -1 for silence

Times are in quarter notes and fractions, so that triplets are exact.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from operator import index
from pathlib import Path

import numpy as np

from generative.music.midi import midi_bytes
from generative.music.notes import NUM_PITCHES, Note, transpose_key
from generative.training.files import write_file

__all__ = ["Score", "score_of_voices"]


@dataclass(frozen=True)
class Score:
    """Notes in the order of start, part, pitch and duration.

    Args:
        notes: in any order; times of any exact kind.
        key: tonic and mode as in "D:minor" or "B-:major", empty if it is not known.
        time_signature: as in "3/4".
        num_parts: at least the parts of the notes.
    Raises:
        TypeError: a pitch or a part is no whole number.
        ValueError: a pitch, a time or a part out of range.
    """

    notes: Sequence[Note]
    key: str = ""
    time_signature: str = "4/4"
    num_parts: int = 1

    def __post_init__(self) -> None:
        exact = [
            Note(Fraction(n.start), Fraction(n.duration), index(n.pitch), index(n.part))
            for n in self.notes
        ]
        for note in exact:
            good = 0 <= note.pitch < NUM_PITCHES and note.start >= 0 and note.part >= 0
            if not good or note.duration <= 0:
                raise ValueError(
                    f"got {note}; a pitch is 0 to 127, starts and parts are not negative, and a "
                    "duration is positive"
                )
        exact.sort(key=lambda n: (n.start, n.part, n.pitch, n.duration))
        object.__setattr__(self, "notes", tuple(exact))
        num_parts = max([self.num_parts, *(n.part + 1 for n in exact)])
        object.__setattr__(self, "num_parts", num_parts)

    @property
    def length(self) -> Fraction:
        """End of the last note, in quarter notes."""
        return max((n.start + n.duration for n in self.notes), default=Fraction(0))

    def part(self, number: int) -> Score:
        """The notes of one part alone, as part 0."""
        notes = [n._replace(part=0) for n in self.notes if n.part == number]
        return Score(notes, self.key, self.time_signature)

    def transpose(self, semitones: int) -> Score:
        """Copy with all pitches and the key moved up by `semitones`.

        Raises:
            ValueError: a pitch leaves 0 to 127.
        """
        moved = [n._replace(pitch=n.pitch + semitones) for n in self.notes]
        return Score(moved, transpose_key(self.key, semitones), self.time_signature, self.num_parts)

    def roll(self, steps_per_quarter: int = 4) -> np.ndarray:
        """Sounding pitches, bool (parts, T, 128), with T steps that cover the score.

        A note that begins or ends between steps sounds in the steps whose beginning it covers.
        """
        num_steps = math.ceil(self.length * steps_per_quarter)
        roll = np.zeros((self.num_parts, num_steps, NUM_PITCHES), dtype=bool)
        for start, duration, pitch, part in self.notes:
            first = math.ceil(start * steps_per_quarter)
            last = math.ceil((start + duration) * steps_per_quarter)
            roll[part, first:last, pitch] = True
        return roll

    def voices(self, steps_per_quarter: int = 4) -> np.ndarray:
        """The highest pitch of each part at each step, int64 (T, parts); -1 where it is silent."""
        roll = self.roll(steps_per_quarter)
        highest = NUM_PITCHES - 1 - roll[:, :, ::-1].argmax(2)
        return np.where(roll.any(2), highest, -1).T

    def write_midi(
        self, path: Path | str, programs: Sequence[int] = (0,), bpm: float = 96.0
    ) -> None:
        """Write a MIDI file; see `generative.music.midi.midi_bytes`, also for its errors."""
        write_file(Path(path), midi_bytes(self, programs, bpm))


def score_of_voices(
    voices: np.ndarray, steps_per_quarter: int = 4, time_signature: str = "4/4"
) -> Score:
    """Score of one pitch per step and part; inverse of `Score.voices` except for repeated notes.

    Equal pitches in a row become one long note: a grid cannot tell them from repeated ones.

    Args:
        voices: ints (T, parts), negative for silence.
    """
    voices = np.asarray(voices)
    if voices.ndim != 2:
        raise ValueError(f"got voices of shape {voices.shape}; a score needs (T, parts)")
    notes = []
    for part, line in enumerate(voices.T.tolist()):
        start = 0
        for step in range(1, len(line) + 1):
            if step == len(line) or line[step] != line[start]:
                if line[start] >= 0:
                    times = (Fraction(t, steps_per_quarter) for t in (start, step - start))
                    notes.append(Note(*times, pitch=line[start], part=part))
                start = step
    return Score(notes, time_signature=time_signature, num_parts=voices.shape[1])
