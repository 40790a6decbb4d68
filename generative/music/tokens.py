"""Music as sequences of words: note and duration streams, grids, events; and back to scores.

    notes, durations = streams_of_score(score)        # two words for every element (the book)
    score = score_of_streams(Streams(notes, durations))
    one_word_each(streams), interleave(streams)       # the book's two other forms

    grid(score)                       # S A T B of step 1, S A T B of step 2, ...
    events(score)                     # NOTE_ON<60> TIME_SHIFT<1/3> NOTE_OFF<60> ...

Each function has its inverse; `Vocabulary` turns words into the integers a network takes.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from generative.music.notes import NUM_PITCHES, Note, pitch_class, transpose_key
from generative.music.score import Score, score_of_voices

__all__ = [
    "END",
    "START",
    "Streams",
    "Vocabulary",
    "deinterleave",
    "events",
    "grid",
    "interleave",
    "one_word_each",
    "score_of_events",
    "score_of_grid",
    "score_of_stream",
    "score_of_streams",
    "score_of_words",
    "streams_of_elements",
    "streams_of_score",
    "transpose_streams",
]

START, END, REST = "START", "END", "rest"


class Vocabulary:
    """Words and their numbers: 0 is padding, 1 an unknown word, words count from 2.

    Args:
        words: distinct words, or one text of words separated by spaces.
    Raises:
        ValueError: a word occurs twice, is empty or contains a space.
    """

    def __init__(self, words: Iterable[str] | str):
        self.words = tuple(words.split() if isinstance(words, str) else words)
        self._numbers = {word: i for i, word in enumerate(self.words, start=2)}
        if len(self._numbers) < len(self.words) or any(len(w.split()) != 1 for w in self.words):
            raise ValueError("words of a vocabulary are told apart, not empty and without spaces")

    @classmethod
    def of(cls, texts: Iterable[Iterable[str]]) -> Vocabulary:
        """Vocabulary of all words of the texts, by frequency and then alphabetical.

        Frequency decides the order only; padding is always 0.
        """
        counts = Counter(word for text in texts for word in text)
        return cls(sorted(counts, key=lambda word: (-counts[word], word)))

    def __len__(self) -> int:
        """Size of the vocabulary, including padding and the unknown word."""
        return len(self.words) + 2

    def encode(self, words: Iterable[str]) -> np.ndarray:
        """Numbers of words, int64 (T,); an unknown word becomes 1."""
        return np.array([self._numbers.get(word, 1) for word in words], dtype=np.int64)

    def decode(self, numbers: Iterable[int]) -> list[str]:
        """Words of numbers; padding and unknown words are left out."""
        return [self.words[int(n) - 2] for n in numbers if n >= 2]

    def number(self, word: str) -> int:
        """Number of a word; 1 if it is unknown."""
        return self._numbers.get(word, 1)


# ---------------------------------------------------------------------------------------------
# Two streams: notes and durations
# ---------------------------------------------------------------------------------------------


class Streams(NamedTuple):
    """Two words for every element of a piece, in two lists of the same length.

    Notes are "START", a key as in "D:minor", a time signature as in "4/4TS" (all of duration
    "0.0"), pitches as in "B-2" or "F#3", or "rest". Durations are quarter notes: "0.5", "1/3".
    """

    notes: list[str]
    durations: list[str]


def streams_of_elements(elements: Iterable[tuple[str, Fraction]]) -> Streams:
    """Streams of pairs (name, duration), after the word START."""
    listed = [(START, Fraction(0)), *elements]
    return Streams([name for name, _ in listed], [duration_word(length) for _, length in listed])


def streams_of_score(score: Score, part: int = 0, end: bool = False) -> Streams:
    """Words of one part of a score: key, time signature, then notes and rests.

    Of notes that begin together the highest is taken, and a note ends where the next begins.

    Args:
        end: append the word "END", so that a model can learn to end a piece.
    """
    elements = [(score.key, Fraction(0))] if score.key else []
    elements.append((f"{score.time_signature}TS", Fraction(0)))
    flats = prefers_flats(score.key)
    line: dict[Fraction, Note] = {}
    for note in score.notes:
        if note.part == part:
            line[note.start] = max(line.get(note.start, note), note, key=lambda n: n.pitch)
    now, starts = Fraction(0), sorted(line)
    for i, start in enumerate(starts):
        if start > now:
            elements.append((REST, start - now))
        now = start + line[start].duration
        if i + 1 < len(starts):
            now = min(now, starts[i + 1])
        elements.append((pitch_name(line[start].pitch, flats), now - start))
    return streams_of_elements([*elements, *([(END, Fraction(0))] if end else [])])


def score_of_streams(streams: Streams) -> Score:
    """Score of a melody, up to the word "END" if it occurs.

    The first key and time signature become those of the score. Words may come in any order, as a
    network writes them; words of duration 0 make no sound.
    """
    notes, now, key, time_signature = [], Fraction(0), "", ""
    for name, word in zip(*streams, strict=True):
        duration = Fraction(word)
        if name == END:
            break
        if name.endswith("TS"):
            time_signature = time_signature or name.removesuffix("TS")
        elif ":" in name:
            key = key or name
        elif name != START:
            if name != REST and duration > 0:
                notes.append(Note(now, duration, pitch_number(name)))
            now += duration
    return Score(notes, key, time_signature or "4/4")


def transpose_streams(streams: Streams, semitones: int) -> Streams:
    """Transpose a piece up by `semitones`: keys and pitches are renamed.

    Black keys are named as in the first key. With 0, all keys get their usual names.
    """
    first_key = next((word for word in streams.notes if ":" in word), "")
    flats = prefers_flats(transpose_key(first_key, semitones))
    notes = []
    for word in streams.notes:
        if ":" in word:
            word = transpose_key(word, semitones)
        elif word not in (START, END, REST) and not word.endswith("TS"):
            word = pitch_name(pitch_number(word) + semitones, flats)
        notes.append(word)
    return Streams(notes, streams.durations)


def one_word_each(streams: Streams) -> list[str]:
    """One word for every element, as "G2=0.5": a model can write only the pairs of its data."""
    return [f"{note}={duration}" for note, duration in zip(*streams, strict=True)]


def score_of_words(words: Iterable[str]) -> Score:
    """Score of the words of `one_word_each`."""
    pairs = [word.split("=") for word in words]
    return score_of_streams(Streams([note for note, _ in pairs], [length for _, length in pairs]))


def score_of_stream(words: Iterable[str]) -> Score:
    """Score of a single stream up to END, from `one_word_each`, `interleave`, `grid` or `events`;
    the words tell which."""
    words = [word for word in itertools.takewhile(lambda w: w != END, words) if word != START]
    if any(word == SILENT or word.startswith("PITCH_") for word in words):
        return score_of_grid(words)
    if any(word.startswith(("NOTE_", "TIME_SHIFT<")) for word in words):
        return score_of_events(words)
    if any("=" in word[1:] for word in words):
        return score_of_words(words)
    return score_of_streams(deinterleave(words))


def interleave(streams: Streams) -> list[str]:
    """Alternate note and duration words; durations begin with "="."""
    return [word for note, d in zip(*streams, strict=True) for word in (note, f"={d}")]


def deinterleave(words: Sequence[str]) -> Streams:
    """Inverse of `interleave`; a word in the place of the other kind is ignored."""
    streams, waiting = Streams([], []), None
    for word in words:
        if not word.startswith("="):
            waiting = word
        elif waiting is not None:
            streams.notes.append(waiting)
            streams.durations.append(word[1:])
            waiting = None
    return streams


def duration_word(quarters: Fraction) -> str:
    """Quarter notes as a word: "0.0", "0.5", "1.0", "1/3"."""
    quarters = Fraction(quarters)
    decimal = float(quarters)
    exact = quarters.denominator & (quarters.denominator - 1) == 0  # a power of two
    return str(decimal) if exact else str(quarters)


FLAT_NAMES = ("C", "D-", "D", "E-", "E", "F", "G-", "G", "A-", "A", "B-", "B")
SHARP_NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
MIXED_NAMES = ("C", "C#", "D", "E-", "E", "F", "F#", "G", "G#", "A", "B-", "B")
"""Names that music21 gives to the pitches of a MIDI file."""


def prefers_flats(key: str) -> bool | None:
    """True if a key has flats, False for sharps; None for C major, A minor, and no key."""
    tonic, _, mode = key.partition(":")
    if not tonic:
        return None
    major = (pitch_class(tonic) + (0 if mode == "major" else 3)) % 12
    return None if major == 0 else major in (1, 3, 5, 8, 10)


def pitch_name(pitch: int, flats: bool | None = None) -> str:
    """Name of a pitch with its octave: 60 -> "C4", 46 -> "B-2".

    Args:
        flats: name black keys as flats (True), as sharps (False) or as usual for each (None).
    Raises:
        ValueError: a pitch below C0, or above MIDI's 127.
    """
    if not 12 <= pitch < NUM_PITCHES:
        raise ValueError(f"got pitch {pitch}; names are for 12 to 127 (below, C-1 reads as C flat)")
    names = MIXED_NAMES if flats is None else FLAT_NAMES if flats else SHARP_NAMES
    return f"{names[pitch % 12]}{pitch // 12 - 1}"


def pitch_number(name: str) -> int:
    """Pitch of a name, the inverse of `pitch_name`: "B-2" -> 46, "A#2" -> 46.

    Raises:
        ValueError: no such pitch.
    """
    letters = name.rstrip("0123456789")
    if letters == name:
        raise ValueError(f"got the pitch {name!r}; a pitch has an octave, as in C4")
    base = pitch_class(letters)
    signs = letters.count("#") - letters.count("-")
    # B# of octave 3 is C4: the letter determines the octave.
    octave_shift = (base - signs) // 12
    return 12 * (int(name[len(letters) :]) + 1 - octave_shift) + base


# ---------------------------------------------------------------------------------------------
# Grid
# ---------------------------------------------------------------------------------------------

SILENT = "REST"


def grid(score: Score, steps_per_quarter: int = 4) -> list[str]:
    """Pitch of each part at each step, "PITCH_67" or "REST"; the parts of a step come in turn.

    Long and repeated notes look alike; notes shorter than a step may be lost.
    """
    voices = score.voices(steps_per_quarter)
    return [f"PITCH_{pitch}" if pitch >= 0 else SILENT for pitch in voices.flatten().tolist()]


def score_of_grid(words: Sequence[str], num_parts: int = 4, steps_per_quarter: int = 4) -> Score:
    """Score of grid words; an incomplete last step is left out."""
    steps = len(words) // num_parts
    pitches = [int(w.removeprefix("PITCH_")) if w != SILENT else -1 for w in words]
    voices = np.array(pitches[: steps * num_parts], dtype=np.int64).reshape(steps, num_parts)
    return score_of_voices(voices, steps_per_quarter)


# ---------------------------------------------------------------------------------------------
# Events
# ---------------------------------------------------------------------------------------------

SMALLEST_SHIFT = Fraction(1, 12)
LONGEST_SHIFT = 4
"""Longest TIME_SHIFT, in quarter notes; longer waits are several words."""


def events(score: Score) -> list[str]:
    """Words NOTE_ON<pitch>, NOTE_OFF<pitch> and TIME_SHIFT<quarters> (Huang et al. 2018).

    At equal times, ends come before beginnings and low pitches before high ones. All parts are
    played on one instrument: if two have the same pitch at the same time, it sounds from the first
    beginning to the last end, and each beginning in between strikes it again.

    Times are rounded to 1/12 of a quarter note; sixteenths and triplets are exact.
    """
    ons: dict[int, set[int]] = {}
    offs: dict[int, set[int]] = {}
    for first, last, pitch in _merged(score):
        ons.setdefault(first, set()).add(pitch)
        offs.setdefault(last, set()).add(pitch)
    words, now = [], 0
    longest = round(LONGEST_SHIFT / SMALLEST_SHIFT)
    for tick in sorted({*ons, *offs}):
        while now < tick:
            shift = min(tick - now, longest)
            words.append(f"TIME_SHIFT<{shift * SMALLEST_SHIFT}>")
            now += shift
        words += [f"NOTE_OFF<{pitch}>" for pitch in sorted(offs.get(tick, ()))]
        words += [f"NOTE_ON<{pitch}>" for pitch in sorted(ons.get(tick, ()))]
    return words


def _merged(score: Score) -> list[tuple[int, int, int]]:
    """(first tick, last tick, pitch) of all parts on one instrument, without overlaps."""
    spans: dict[int, list[list[int]]] = {}
    for note in score.notes:  # in the order of their starts
        first = round(note.start / SMALLEST_SHIFT)
        last = max(round((note.start + note.duration) / SMALLEST_SHIFT), first + 1)
        line = spans.setdefault(note.pitch, [])
        if line and first < line[-1][1]:
            last = max(last, line[-1][1])
            if first == line[-1][0]:
                line[-1][1] = last
                continue
            line[-1][1] = first
        line.append([first, last])
    return [(first, last, pitch) for pitch, line in spans.items() for first, last in line]


def score_of_events(words: Iterable[str]) -> Score:
    """Score of event words, all in one part.

    Accepts any output of a network: an end without a beginning is ignored, a pitch that begins
    again while it sounds ends there, and notes that still sound at the end are ended.
    """
    notes, sounding, now = [], {}, Fraction(0)

    def end(pitch: int) -> None:
        start = sounding.pop(pitch, now)
        if now > start:
            notes.append(Note(start, now - start, pitch))

    for word in words:
        kind, _, value = word.rstrip(">").partition("<")
        if kind == "TIME_SHIFT":
            now += Fraction(value)
        elif kind in ("NOTE_ON", "NOTE_OFF"):
            pitch = int(value)
            if not 0 <= pitch < NUM_PITCHES:
                raise ValueError(f"got {word}; pitches are 0 to {NUM_PITCHES - 1}")
            end(pitch)
            if kind == "NOTE_ON":
                sounding[pitch] = now
    for pitch in list(sounding):
        end(pitch)
    return Score(notes)
