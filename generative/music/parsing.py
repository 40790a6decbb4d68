"""Reads music files as scores and streams: MIDI by its events; kern, MusicXML, ABC by music21.

    parse("suite.krn")                 # a Score: every note of every part, ties joined
    read_streams("suite.mid")          # the book's two lists of words: notes, durations
    parse_pieces("reels.abc")          # a Score for each tune of the file

music21 is imported only when a file is read that is not MIDI.
"""

from __future__ import annotations

import heapq
import io
import itertools
import tempfile
import warnings
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

from generative.music.midi import MidiNotes, read_midi
from generative.music.notes import Note
from generative.music.score import Score
from generative.music.tokens import REST, Streams, pitch_name, streams_of_elements
from generative.training.archives import open_zip, read_member
from generative.training.files import decode_text, read_file, reading

__all__ = [
    "SUFFIXES",
    "parse",
    "parse_pieces",
    "read_pieces",
    "read_streams",
    "score_from_music21",
    "streams_from_music21",
]

T = TypeVar("T")
MIDI = (".mid", ".midi")
SUFFIXES = frozenset({*MIDI, ".krn", ".xml", ".musicxml", ".mxl", ".abc"})
"""File name endings of music in folders."""
MAX_BYTES = 16 * 2**20
"""Largest file, in bytes, also unpacked from an .mxl: hours of an orchestra."""
MAX_QUARTERS = 2**20
"""Largest total length of all parts in quarter notes: 16 hours of eight parts. It bounds grids."""


def parse(path: Path | str) -> Score:
    """Read all notes of a file of one piece, with exact times, parts and joined ties.

    Drums of a MIDI file are left out, with a warning: their numbers are no pitches.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedFileError: the file cannot be read as music, or is too large.
        ValueError: the file holds several pieces; `parse_pieces` reads them.
    """
    return _only(parse_pieces(path), path, "parse_pieces")


def parse_pieces(path: Path | str) -> list[Score]:
    """As `parse`, for every piece of a file: an ABC file has several tunes."""
    return _pieces(Path(path), _score_from_midi, score_from_music21)


def read_streams(path: Path | str) -> Streams:
    """Read the book's words of a file of one piece; see `streams_from_music21`.

    Raises:
        FileNotFoundError, DamagedFileError, ValueError: as `parse`.
    """
    return _only(read_pieces(path), path, "read_pieces")


def read_pieces(path: Path | str) -> list[Streams]:
    """As `read_streams`, for every piece of a file."""
    return _pieces(Path(path), _streams_from_midi, streams_from_music21)


def _only(pieces: list[T], path: Path | str, reader: str) -> T:
    if len(pieces) != 1:
        raise ValueError(f"{path}: holds {len(pieces)} pieces; {reader} reads them all")
    return pieces[0]


def _pieces(
    path: Path, from_midi: Callable[[MidiNotes], T], from_music21: Callable[[Any], T]
) -> list[T]:
    """Every piece of a file, converted by the function for the kind of file."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; give one of {', '.join(sorted(SUFFIXES))}")
    data = read_file(path, MAX_BYTES, links=True)
    with reading(path, "can not be read as music"):  # music21's readers raise anything
        if path.suffix.lower() not in MIDI:
            streams = _read_by_music21(path, data)
            for stream in streams:
                _check_length(stream.highestTime, len(stream.parts))
            return [from_music21(stream) for stream in streams]
        found = read_midi(data)
        _check_length(max((n.start + n.duration for n in found.notes), default=0), found.num_parts)
        if found.num_drums:
            warnings.warn(
                f"{path}: {found.num_drums} notes of channel 10 are drums, which have no pitch; "
                "they are left out",
                stacklevel=4,
            )
        return [from_midi(found)]


def _check_length(length: Fraction | float, num_parts: int) -> None:
    if length * max(1, num_parts) > MAX_QUARTERS:
        raise ValueError(
            f"it has {num_parts} parts of {float(length):,.0f} quarter notes; at most "
            f"{MAX_QUARTERS:,} in all are expected"
        )


def _read_by_music21(path: Path, data: bytes) -> list[Any]:
    from music21 import converter
    from music21.stream.base import Opus

    suffix = path.suffix.lower()
    if suffix == ".mxl" and data[:2] == b"PK":
        suffix, data = ".musicxml", _unpacked(data, path)
    elif suffix in (".abc", ".krn"):
        # Only comments and lyrics have letters of other encodings.
        data = decode_text(data, path, otherwise="latin-1").encode()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / f"piece{suffix}"
        copy.write_bytes(data)
        # Its cache of pickles is slower than reading again.
        stream = converter.parse(copy, forceSource=True)
    return list(stream.scores) if isinstance(stream, Opus) else [stream]


def _unpacked(data: bytes, path: Path) -> bytes:
    """The score in a compressed MusicXML file."""
    # Music compresses to a twentieth; every parsed note takes many times its bytes.
    most = min(MAX_BYTES, 2**16 + 64 * len(data))
    with open_zip(io.BytesIO(data), path, most) as archive:
        for name in archive.namelist():
            place = Path(name)
            if "META-INF" not in place.parts and place.suffix in (".xml", ".musicxml"):
                return read_member(archive, name, path)
    raise ValueError("it holds no MusicXML")


def _score_from_midi(found: MidiNotes) -> Score:
    """Score with the first key and the first time signature of the file."""
    key = next((sign for _, sign in found.signs if ":" in sign), "")
    time = next((sign for _, sign in found.signs if "/" in sign), "4/4")
    return Score(found.notes, key, time, max(1, found.num_parts))


def _streams_from_midi(found: MidiNotes) -> Streams:
    """As `streams_from_music21`: the highest sounding note, repeated at every change."""
    keys = [(t, 0, s, Fraction(0)) for t, s in found.signs if ":" in s]
    elements = keys + [(t, 1, f"{s}TS", Fraction(0)) for t, s in found.signs if "/" in s]
    notes = sorted(found.notes, reverse=True)  # the first is the last of the list
    changes = sorted({Fraction(0), *(t for n in notes for t in (n.start, n.start + n.duration))})
    sounding: list[tuple[int, Fraction]] = []
    for now, then in itertools.pairwise(changes):
        while notes and notes[-1].start <= now:
            note = notes.pop()
            heapq.heappush(sounding, (-note.pitch, note.start + note.duration))
        while sounding and sounding[0][1] <= now:
            heapq.heappop(sounding)
        name = pitch_name(-sounding[0][0]) if sounding else REST
        elements.append((now, 2, name, then - now))
    # At equal times, keys come first and notes last.
    elements.sort(key=lambda element: element[:2])
    return streams_of_elements([element[2:] for element in elements])


def score_from_music21(stream: Any) -> Score:
    """Convert a music21 stream to a `Score`; ties are joined, grace notes left out.

    The key is the first in the stream, as music21 reads it (major if no mode is given).
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
    """Convert a music21 stream to the book's note and duration words (chapter 11).

    Ties are joined, and all parts are merged into chords, of which the highest note is taken. Keys
    and time signatures are words of duration 0; rests are the word "rest".
    """
    from music21.chord import Chord
    from music21.key import Key, KeySignature
    from music21.meter.base import TimeSignature
    from music21.note import Note as OneNote
    from music21.note import Rest

    elements: list[tuple[str, Fraction]] = []
    # At equal times, signs come before notes.
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
