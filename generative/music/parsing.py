"""Files of music (MIDI, kern, MusicXML and what else music21 reads) to scores and to streams.

    parse("suite.krn")                 # a Score: every note of every part, ties joined
    read_streams("suite.mid")          # the book's two lists of words: notes, durations

music21 is imported when something is read, and not before.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

from generative.music.score import Note, Score
from generative.music.tokens import Streams, streams_of_elements
from generative.training.files import DamagedFileError

__all__ = ["SUFFIXES", "parse", "read_streams", "score_from_music21", "streams_from_music21"]

SUFFIXES = frozenset({".mid", ".midi", ".krn", ".xml", ".musicxml", ".mxl", ".abc"})
"""Endings of the files that are looked for in folders."""


def parse(path: Path | str) -> Score:
    """All notes of a file, each with its exact time, its part and no ties.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedFileError: it is no music that can be read.
    """
    return score_from_music21(_read(Path(path)))


def read_streams(path: Path | str) -> Streams:
    """The book's words of a file, see `streams_from_music21`.

    Raises:
        FileNotFoundError, DamagedFileError: as `parse`.
    """
    return streams_from_music21(_read(Path(path)))


def _read(path: Path) -> Any:
    from music21 import converter

    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; give one of {', '.join(sorted(SUFFIXES))}")
    try:
        # Its cache of pickles is slower than reading again. Times are not rounded: a MIDI file
        # written by this package has exact ones.
        is_midi = path.suffix.lower() in (".mid", ".midi")
        options: dict[str, Any] = {"quantizePost": False} if is_midi else {}
        return converter.parse(path, forceSource=True, **options)
    except Exception as error:  # music21's readers raise anything
        raise DamagedFileError(f"{path}: music21 can not read it ({error})") from error


def score_from_music21(stream: Any) -> Score:
    """A music21 stream as a `Score`; ties are joined, grace notes left out.

    The key is the first that is written, as music21 reads it (major where no mode is given).
    """
    from music21.key import Key, KeySignature
    from music21.meter.base import TimeSignature

    notes: list[Note] = []
    parts = list(stream.parts) if stream.hasPartLikeStreams() else [stream]
    for number, part in enumerate(parts):
        for element in part.stripTies().flatten().notes:
            duration = Fraction(element.quarterLength)
            if duration > 0:
                for pitch in element.pitches:
                    notes.append(Note(Fraction(element.offset), duration, pitch.midi, number))
    key = next(iter(stream.recurse().getElementsByClass(KeySignature)), None)
    time = next(iter(stream.recurse().getElementsByClass(TimeSignature)), None)
    if key is not None and not isinstance(key, Key):
        key = key.asKey()
    return Score(
        notes,
        f"{key.tonic.name}:{key.mode}" if key is not None else "",
        time.ratioString if time is not None else "4/4",
        len(parts),
    )


def streams_from_music21(stream: Any) -> Streams:
    """The book's note and duration words of a music21 stream (chapter 11).

    Ties are joined, and all parts put together as chords, of which the highest note is taken. Keys
    and time signatures are words of duration 0; rests are the word "rest".
    """
    from music21.chord import Chord
    from music21.key import Key, KeySignature
    from music21.meter.base import TimeSignature
    from music21.note import Note as OneNote
    from music21.note import Rest

    elements: list[tuple[str, Fraction]] = []
    # At one time, signs come before what sounds.
    ordered = sorted(
        stream.stripTies().chordify().flatten(),
        key=lambda e: (e.offset, isinstance(e, (Chord, OneNote, Rest))),
    )
    for element in ordered:
        length = Fraction(element.duration.quarterLength)
        if isinstance(element, KeySignature):
            key = element if isinstance(element, Key) else element.asKey()
            elements.append((f"{key.tonic.name}:{key.mode}", Fraction(0)))
        elif isinstance(element, TimeSignature):
            elements.append((f"{element.ratioString}TS", Fraction(0)))
        elif isinstance(element, Chord):
            highest = max(element.pitches, key=lambda pitch: pitch.midi)
            elements.append((highest.nameWithOctave, length))
        elif isinstance(element, OneNote):
            elements.append((element.nameWithOctave, length))
        elif isinstance(element, Rest):
            elements.append(("rest", length))
    return streams_of_elements(elements)
