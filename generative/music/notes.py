"""Notes with exact times, and the names of keys."""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

__all__ = ["NUM_PITCHES", "Note", "pitch_class", "transpose_key"]

NUM_PITCHES = 128
"""Number of MIDI pitches; 60 is middle C, 12 make an octave."""


class Note(NamedTuple):
    """One sounding note."""

    start: Fraction
    """Beginning, in quarter notes from that of the score."""
    duration: Fraction
    """Length in quarter notes."""
    pitch: int
    """MIDI number, 0 to 127."""
    part: int = 0
    """Index of the voice or instrument, from 0."""


MAJOR = ("C", "D-", "D", "E-", "E", "F", "G-", "G", "A-", "A", "B-", "B")
MINOR = ("C", "C#", "D", "E-", "E", "F", "F#", "G", "G#", "A", "B-", "B")
"""Usual name of the key on each of the twelve semitones; a flat is written "-"."""


def transpose_key(key: str, semitones: int) -> str:
    """Name of the key `semitones` higher, as usually written; "" stays "".

    Modes other than major take the names of minor.
    """
    if not key:
        return key
    tonic, _, mode = key.partition(":")
    names = MAJOR if mode == "major" else MINOR
    return f"{names[(pitch_class(tonic) + semitones) % 12]}:{mode}"


def pitch_class(name: str) -> int:
    """Semitones of a named note above C: "B-" -> 10, "F#" -> 6.

    Raises:
        ValueError: no such note.
    """
    steps = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
    letter, signs = name[:1].upper(), name[1:]
    if letter not in steps or set(signs) - {"#", "-"}:
        raise ValueError(f"got the note {name!r}; a name is a letter A to G with # or - signs")
    return (steps[letter] + signs.count("#") - signs.count("-")) % 12
