"""A score: notes with exact times, in parts; as a piano roll, as MIDI, transposed.

    score = Score([Note(0, Fraction(1, 3), 60), Note(Fraction(1, 3), Fraction(2, 3), 64)])
    score.write_midi("two notes.mid", programs=(42,))
    score.roll(steps_per_quarter=4)            # (parts, T, 128) bool: what sounds when
    score.voices(steps_per_quarter=4)          # (T, parts) one pitch at a time, -1 for silence

Times are in quarter notes and fractions, so that triplets are exact.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np

from generative.training.files import write_file

__all__ = [
    "NUM_PITCHES",
    "Note",
    "Score",
    "midi_bytes",
    "pitch_class",
    "score_of_voices",
    "transpose_key",
]

NUM_PITCHES = 128
"""MIDI's; 60 is middle C, 12 make an octave."""
TICKS = 960
"""Of a quarter note in files: 1/64 and triplets, quintuplets and their halves are whole numbers."""


class Note(NamedTuple):
    """One sounding note."""

    start: Fraction
    """Quarter notes from the beginning."""
    duration: Fraction
    """Quarter notes."""
    pitch: int
    """MIDI number, 0 to 127."""
    part: int = 0
    """Which voice or instrument, from 0."""


@dataclass(frozen=True)
class Score:
    """Notes in the order of start, part and pitch.

    Args:
        notes: in any order; times of any exact kind.
        key: tonic and mode as in "D:minor" or "B-:major", empty if it is not known.
        time_signature: as in "3/4".
        num_parts: at least the parts of the notes.
    Raises:
        ValueError: a pitch, a time or a part that cannot be.
    """

    notes: Sequence[Note]
    key: str = ""
    time_signature: str = "4/4"
    num_parts: int = 1

    def __post_init__(self) -> None:
        exact = [Note(Fraction(n.start), Fraction(n.duration), n.pitch, n.part) for n in self.notes]
        for note in exact:
            good = 0 <= note.pitch < NUM_PITCHES and note.start >= 0 and note.part >= 0
            if not good or note.duration <= 0:
                raise ValueError(
                    f"got {note}; a pitch is 0 to 127, starts and parts are not negative, and a "
                    "duration is positive"
                )
        exact.sort(key=lambda n: (n.start, n.part, n.pitch))
        object.__setattr__(self, "notes", tuple(exact))
        num_parts = max([self.num_parts, *(n.part + 1 for n in exact)])
        object.__setattr__(self, "num_parts", num_parts)

    @property
    def length(self) -> Fraction:
        """When the last note ends, in quarter notes."""
        return max((n.start + n.duration for n in self.notes), default=Fraction(0))

    def part(self, number: int) -> Score:
        """The notes of one part alone, as part 0."""
        notes = [n._replace(part=0) for n in self.notes if n.part == number]
        return Score(notes, self.key, self.time_signature)

    def transpose(self, semitones: int) -> Score:
        """All pitches and the key moved up by so many semitones.

        Raises:
            ValueError: a pitch leaves 0 to 127.
        """
        moved = [n._replace(pitch=n.pitch + semitones) for n in self.notes]
        return Score(moved, transpose_key(self.key, semitones), self.time_signature, self.num_parts)

    def roll(self, steps_per_quarter: int = 4) -> np.ndarray:
        """What sounds when: bool (parts, T, 128), T steps that cover the score.

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
        """Write a MIDI file; see `midi_bytes`."""
        write_file(Path(path), midi_bytes(self, programs, bpm))


def score_of_voices(
    voices: np.ndarray, steps_per_quarter: int = 4, time_signature: str = "4/4"
) -> Score:
    """The score of one pitch a step and part; the inverse of `Score.voices` but for repeated notes.

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


# ---------------------------------------------------------------------------------------------
# Keys
# ---------------------------------------------------------------------------------------------

MAJOR = ("C", "D-", "D", "E-", "E", "F", "G-", "G", "A-", "A", "B-", "B")
MINOR = ("C", "C#", "D", "E-", "E", "F", "F#", "G", "G#", "A", "B-", "B")
"""The usual name of the key on each of twelve semitones; a flat is written "-"."""
SHARPS = {"C": 0, "G": 1, "D": 2, "A": 3, "E": 4, "B": 5, "F": -1}
"""Sharps of the major keys on white keys; negative for flats."""


def transpose_key(key: str, semitones: int) -> str:
    """The key so many semitones higher, by its usual name; "" stays "".

    Modes other than major take minor's names.
    """
    if not key:
        return key
    tonic, _, mode = key.partition(":")
    names = MAJOR if mode == "major" else MINOR
    return f"{names[(pitch_class(tonic) + semitones) % 12]}:{mode}"


def pitch_class(name: str) -> int:
    """Semitones of a note's name above C: "B-" -> 10, "F#" -> 6.

    Raises:
        ValueError: no such note.
    """
    steps = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
    letter, signs = name[:1].upper(), name[1:]
    if letter not in steps or set(signs) - {"#", "-"}:
        raise ValueError(f"got the note {name!r}; a name is a letter A to G with # or - signs")
    return (steps[letter] + signs.count("#") - signs.count("-")) % 12


# ---------------------------------------------------------------------------------------------
# MIDI
# ---------------------------------------------------------------------------------------------


def midi_bytes(score: Score, programs: Sequence[int] = (0,), bpm: float = 96.0) -> bytes:
    """The score as a standard MIDI file of format 1: a track for signs, then one for each part.

    Args:
        programs: General MIDI instrument of each part, in turn: 0 piano, 42 cello, 52 choir.
        bpm: quarter notes a minute.
    """
    beats, _, unit = score.time_signature.partition("/")
    signs = bytearray()
    signs += b"\0\xff\x51\x03" + round(6e7 / bpm).to_bytes(3, "big")
    signs += b"\0\xff\x58\x04" + bytes([int(beats), int(unit).bit_length() - 1, 24, 8])
    if score.key:
        sharps, minor = _key_signature(score.key)
        signs += b"\0\xff\x59\x02" + bytes([sharps & 0xFF, minor])
    tracks = [bytes(signs)]
    for part in range(score.num_parts):
        # General MIDI keeps channel 9 for drums.
        channel = [c for c in range(16) if c != 9][part % 15]
        program = bytes([0, 0xC0 | channel, programs[part % len(programs)]])
        tracks.append(program + _events(score, part, channel))
    head = (6).to_bytes(4, "big") + b"".join(n.to_bytes(2, "big") for n in (1, len(tracks), TICKS))
    data = b"MThd" + head
    for track in tracks:
        track += b"\0\xff\x2f\0"
        data += b"MTrk" + len(track).to_bytes(4, "big") + track
    return data


def _events(score: Score, part: int, channel: int) -> bytes:
    """Note-on and note-off events; of those at one time the ends come first."""
    events = []
    for start, duration, pitch, its_part in score.notes:
        if its_part == part:
            events.append((round(start * TICKS), 1, pitch))
            events.append((round((start + duration) * TICKS), 0, pitch))
    data, now = bytearray(), 0
    for tick, begins, pitch in sorted(events):
        data += _variable_length(tick - now)
        data += bytes([(0x90 if begins else 0x80) | channel, pitch, 80 if begins else 0])
        now = tick
    return bytes(data)


def _variable_length(number: int) -> bytes:
    """MIDI's numbers: seven bits a byte, the high bit where more follow."""
    parts = [number & 0x7F]
    while number := number >> 7:
        parts.append(number & 0x7F | 0x80)
    return bytes(reversed(parts))


def _key_signature(key: str) -> tuple[int, int]:
    """(sharps, negative for flats; 1 for minor), as MIDI writes a key."""
    tonic, _, mode = key.partition(":")
    sharps = SHARPS[tonic[0].upper()] + 7 * (tonic.count("#") - tonic.count("-"))
    minor = mode != "major"
    return max(-7, min(7, sharps - 3 * minor)), int(minor)
