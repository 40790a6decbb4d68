"""Standard MIDI files: writes scores, and reads the notes of any file by their events.

    data = midi_bytes(score, programs=(42,))
    read_midi(data).notes == score.notes

Written scores are read back equal: times are exact, also those of triplets and septuplets.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple, Protocol

from generative.music.notes import Note, pitch_class

__all__ = ["DRUM_CHANNEL", "MidiNotes", "midi_bytes", "read_midi"]

TICKS, MOST_TICKS = 960, 0x7FFF
"""Ticks per quarter note in files, and the largest number in the format."""
LONGEST_WAIT = 0x0FFF_FFFF
"""Ticks between two events: four bytes of seven bits."""
DRUM_CHANNEL = 9
"""Channel of drums in General MIDI, counted from 0; its note numbers are drums, not pitches."""
FIFTHS = "FCGDAEB"
"""Letters in the order in which sharps come."""
SIGN_TEXT = re.compile(r"(key)=([A-Ga-g][#-]*:\w*)|(time)=(\d+/\d+(?:\+\d+(?:/\d+)?)*)", re.ASCII)
"""Text of signs that MIDI lacks: a key of another mode or with eight sharps, a time signature whose
denominator is no power of two."""


class MidiNotes(NamedTuple):
    """Notes and signs of a MIDI file."""

    notes: list[Note]
    signs: list[tuple[Fraction, str]]
    """Keys as in "D:minor" and time signatures as in "3/4", with their times, in order."""
    num_parts: int
    num_drums: int
    """Number of notes on the drums' channel; these are left out."""


# ---------------------------------------------------------------------------------------------
# Writing
# ---------------------------------------------------------------------------------------------


class Notated(Protocol):
    """Notes in parts with a key and a time signature, as `Score` has them."""

    @property
    def notes(self) -> Sequence[Note]:
        """In the order of start, part, pitch and duration."""
        ...

    @property
    def key(self) -> str:
        """Tonic and mode as in "D:minor"; "" if it is not known."""
        ...

    @property
    def time_signature(self) -> str:
        """As in "3/4"."""
        ...

    @property
    def num_parts(self) -> int:
        """At least the parts of the notes."""
        ...


def midi_bytes(score: Notated, programs: Sequence[int] = (0,), bpm: float = 96.0) -> bytes:
    """The score as a standard MIDI file of format 1: a track for signs, then one for each part.

    The number of ticks per quarter note makes all times whole. If it would exceed 32,767, times are
    rounded to 1/960; every note has at least one tick.

    Args:
        programs: General MIDI instrument of each part, in turn: 0 piano, 42 cello, 52 choir.
        bpm: quarter notes a minute, at least 3.6.
    Raises:
        ValueError: the format cannot hold an instrument, the tempo or the number of parts; or the
            key or the time signature is not valid.
    """
    tempo = 6e7 / bpm if bpm > 0 and math.isfinite(bpm) else 0.0  # microseconds
    if not 1 <= round(tempo) <= 0xFF_FFFF:
        raise ValueError(
            f"bpm is {bpm}; a MIDI file needs 3.6 to 60,000,000 quarter notes a minute"
        )
    if not programs or not all(0 <= program < 128 for program in programs):
        raise ValueError(f"programs are {programs}; needed are one or more numbers from 0 to 127")
    if score.num_parts >= 0xFFFF:
        raise ValueError(f"the score has {score.num_parts} parts; a MIDI file has up to 65,534")
    signs = _meta(0x51, round(tempo).to_bytes(3, "big")) + _time_sign(score.time_signature)
    tracks = [signs + (_key_signs(score.key) if score.key else b"")]
    ticks = _ticks(score)
    for part in range(score.num_parts):
        channel = [c for c in range(16) if c != DRUM_CHANNEL][part % 15]
        program = bytes([0, 0xC0 | channel, programs[part % len(programs)]])
        tracks.append(program + _note_events(score, part, channel, ticks))
    data = [b"MThd", *(n.to_bytes(size, "big") for n, size in ((6, 4), (1, 2), (len(tracks), 2)))]
    data.append(ticks.to_bytes(2, "big"))
    for track in tracks:
        track += _meta(0x2F)
        data += [b"MTrk", len(track).to_bytes(4, "big"), track]
    return b"".join(data)


def _ticks(score: Notated) -> int:
    """Ticks per quarter note for which all times of the score are whole, or the default."""
    exact = 1
    for note in score.notes:
        exact = math.lcm(exact, note.start.denominator, note.duration.denominator)
        if exact > MOST_TICKS:
            return TICKS
    usual = math.lcm(exact, TICKS)
    return usual if usual <= MOST_TICKS else exact


def _note_events(score: Notated, part: int, channel: int, ticks: int) -> bytes:
    """Note-on and note-off events; at equal times note-offs come first.

    If notes of one pitch overlap, the velocity of a note-off tells which of them ends: 0 the first
    that began, 1 the second. Players ignore it.
    """
    events = []
    for i, (start, duration, pitch, its_part) in enumerate(score.notes):
        if its_part == part:
            first, last = round(start * ticks), round((start + duration) * ticks)
            events.append((first, 1, pitch, i))
            events.append((max(last, first + 1), 0, pitch, i))
    data, now = bytearray(), 0
    sounding: dict[int, list[int]] = {}
    for tick, begins, pitch, i in sorted(events):
        while tick - now > LONGEST_WAIT:
            data += _variable_length(LONGEST_WAIT) + _meta(0x01)[1:]
            now += LONGEST_WAIT
        line = sounding.setdefault(pitch, [])
        velocity = 80
        if begins:
            line.append(i)
        else:
            velocity = min(127, line.index(i))
            line.remove(i)
        status = (0x90 if begins else 0x80) | channel
        data += _variable_length(tick - now) + bytes([status, pitch, velocity])
        now = tick
    return bytes(data)


def _meta(kind: int, content: bytes = b"") -> bytes:
    """Meta event without delay: a sign, a text, the end of the track."""
    return bytes([0, 0xFF, kind]) + _variable_length(len(content)) + content


def _variable_length(number: int) -> bytes:
    """Variable-length number: seven bits per byte, the high bit set if more bytes follow."""
    parts = [number & 0x7F]
    while number := number >> 7:
        parts.append(number & 0x7F | 0x80)
    return bytes(reversed(parts))


def _sign_text(kind: str, sign: str) -> bytes:
    """Sign as a text event, which `read_midi` reads and other programs ignore."""
    text = f"{kind}={sign}"
    if not SIGN_TEXT.fullmatch(text):
        raise ValueError(f"the score has the {kind} {sign!r}; give one as in D:minor or 7/16")
    return _meta(0x01, text.encode())


def _time_sign(time_signature: str) -> bytes:
    match = re.fullmatch(r"(\d{1,3})/(\d{1,5})", time_signature)
    beats, unit = map(int, match.groups()) if match else (0, 0)
    if 1 <= beats <= 255 and 1 <= unit <= MOST_TICKS and not unit & (unit - 1):
        return _meta(0x58, bytes([beats, unit.bit_length() - 1, 24, 8]))
    return _sign_text("time", time_signature)


def _key_signs(key: str) -> bytes:
    """Nearest key signature, with the key as a text if the signature would be read as another."""
    tonic, _, mode = key.partition(":")
    pitch_class(tonic)  # raises if it is no note
    minor = mode != "major"
    sharps = FIFTHS.index(tonic[0].upper()) - 1 - 3 * minor
    sharps = max(-7, min(7, sharps + 7 * (tonic.count("#") - tonic.count("-"))))
    sign = _meta(0x59, bytes([sharps & 0xFF, minor]))
    return sign if _key_name(sharps, minor) == key else sign + _sign_text("key", key)


# ---------------------------------------------------------------------------------------------
# Reading
# ---------------------------------------------------------------------------------------------


def read_midi(data: bytes) -> MidiNotes:
    """The notes of a standard MIDI file of format 0 or 1.

    Every channel of a track that has notes is a part, in the order of tracks and channels; so is a
    channel that sets an instrument and has no notes. A note-off ends the earliest note of its
    pitch, channel and track, unless its velocity names a later one as in `midi_bytes`. Notes
    without a note-off end with their track; notes without length are left out. Pedals are ignored:
    a note lasts as long as its key is down. Tempo, loudness and all other events are ignored.

    Raises:
        ValueError: the data is no such file, or is cut; says where.
    """
    if data[:4] != b"MThd" or len(data) < 14:
        raise ValueError("it does not begin as a MIDI file does, with MThd and a header")
    kind, num_tracks, ticks = (int.from_bytes(data[i : i + 2], "big") for i in (8, 10, 12))
    if kind > 1:
        raise ValueError(f"it is of format {kind}, whose tracks are no one piece; save as format 1")
    if not 0 < ticks <= MOST_TICKS:
        raise ValueError(
            "its times are in seconds (SMPTE) and not in quarter notes; save it with ticks of a "
            "quarter note"
        )
    found: dict[tuple[int, int], list[tuple[int, int, int]]] = {}
    signs: list[tuple[int, str]] = []
    num_drums = number = 0
    place = 8 + int.from_bytes(data[4:8], "big")
    while number < num_tracks:
        head, size = data[place : place + 4], int.from_bytes(data[place + 4 : place + 8], "big")
        place += 8 + size
        if place > len(data) or len(head) < 4:
            raise ValueError(f"it is cut: track {number + 1} of {num_tracks} is not whole")
        if head != b"MTrk":  # chunks of other programs
            continue
        channels, its_signs = _read_track(data[place - size : place], number + 1)
        num_drums += len(channels.pop(DRUM_CHANNEL, ()))
        playing = [c for c in sorted(channels) if channels[c]] or sorted(channels)[:1]
        found |= {(number, c): channels[c] for c in playing}
        signs += its_signs
        number += 1
    notes = [
        Note(Fraction(first, ticks), Fraction(last - first, ticks), pitch, part)
        for part, spans in enumerate(found.values())
        for first, last, pitch in spans
    ]
    signs.sort(key=lambda sign: sign[0])
    return MidiNotes(notes, [(Fraction(t, ticks), s) for t, s in signs], len(found), num_drums)


def _read_track(
    data: bytes, number: int
) -> tuple[dict[int, list[tuple[int, int, int]]], list[tuple[int, str]]]:
    """(first tick, last tick, pitch) of the notes of each used channel, and the signs."""
    channels: dict[int, list[tuple[int, int, int]]] = {}
    sounding: dict[tuple[int, int], list[int]] = {}
    signs: list[tuple[int, str]] = []
    tick = 0
    try:
        for tick, status, content in _track_events(data):
            channel = status & 0x0F
            if status == 0xFF:
                _read_sign(signs, tick, content)
            elif status >> 4 == 0xC:
                channels.setdefault(channel, [])
            elif status >> 4 in (0x8, 0x9):
                pitch, velocity = content
                starts = sounding.setdefault((channel, pitch), [])
                if status >> 4 == 0x9 and velocity:
                    channels.setdefault(channel, [])
                    starts.append(tick)
                elif starts:
                    which = velocity if velocity < len(starts) else 0
                    channels[channel].append((starts.pop(which), tick, pitch))
    except IndexError:
        raise ValueError(f"track {number} ends inside of an event") from None
    except ValueError as error:
        raise ValueError(f"track {number}: {error}") from None
    for (channel, pitch), starts in sounding.items():
        channels.setdefault(channel, []).extend((start, tick, pitch) for start in starts)
    # A note without length makes no sound.
    return {c: [n for n in spans if n[1] > n[0]] for c, spans in channels.items()}, signs


def _track_events(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Events (tick, status, data); the data of status 0xFF are the event's kind and content."""
    place = tick = running = 0

    def variable_length() -> int:
        nonlocal place
        value = 0
        for _ in range(4):
            byte = data[place]
            place, value = place + 1, value << 7 | byte & 0x7F
            if byte < 0x80:
                return value
        raise ValueError(f"byte {place}: a number of more than four bytes")

    while place < len(data):
        tick += variable_length()
        status = data[place]
        if status < 0x80:
            status = running  # running status: the status of the event before
        else:
            place += 1
        if status in (0xF0, 0xF7, 0xFF):
            kind = data[place : place + 1] if status == 0xFF else b""
            place += len(kind)
            size = variable_length()
        elif 0x80 <= status < 0xF0:
            running, kind = status, b""
            size = 1 if status >> 4 in (0xC, 0xD) else 2
        else:
            raise ValueError(f"byte {place}: {status:#04x} is no event of a file")
        content = data[place : place + size]
        if len(content) < size:
            raise IndexError
        if running == status and max(content) > 0x7F:
            raise ValueError(f"byte {place}: an event is not whole")
        place += size
        yield tick, status, kind + content
        if kind == b"\x2f":
            return


def _read_sign(signs: list[tuple[int, str]], tick: int, content: bytes) -> None:
    """Add the key or the time signature of an event to signs."""
    kind, content = content[0], content[1:]
    text = SIGN_TEXT.fullmatch(content.decode("latin-1")) if kind == 0x01 else None
    if kind == 0x58 and len(content) >= 2 and content[0] and content[1] < 16:
        signs.append((tick, f"{content[0]}/{2 ** content[1]}"))
    elif kind == 0x59 and len(content) == 2 and content[1] < 2:
        sharps = int.from_bytes(content[:1], "big", signed=True)
        if abs(sharps) <= 7:
            signs.append((tick, _key_name(sharps, bool(content[1]))))
    elif text and text[3]:
        signs.append((tick, text[4]))
    elif text and signs:
        signs[-1] = (signs[-1][0], text[2])  # the sign before it is the nearest that MIDI has


def _key_name(sharps: int, minor: bool) -> str:
    """Name of a key by its number of sharps: (2, False) -> "D:major"."""
    place = sharps + 1 + 3 * minor
    signs = "#" * (place // 7) if place >= 0 else "-" * -(place // 7)
    return f"{FIFTHS[place % 7]}{signs}:{'minor' if minor else 'major'}"
