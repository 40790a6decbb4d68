"""MIDI files byte by byte: against files put together by hand, and every score out and in again."""

import os
import struct
import tempfile
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generative.music import Note, Score, parse, parse_pieces, read_streams
from generative.music.midi import midi_bytes, read_midi
from generative.training.files import DamagedFileError


def midi_file(*tracks: bytes, kind: int = 1, ticks: int = 96) -> bytes:
    """A file of these tracks' events, each with its delta time before it."""
    head = struct.pack(">4sIHHH", b"MThd", 6, kind, len(tracks), ticks)
    return head + b"".join(struct.pack(">4sI", b"MTrk", len(t)) + t for t in tracks)


def out_and_in(score: Score, **settings) -> Score:
    with tempfile.TemporaryDirectory() as folder:
        score.write_midi(Path(folder) / "a.mid", **settings)
        return parse(Path(folder) / "a.mid")


def test_long_notes_below_a_melody_stay_whole():
    score = Score([Note(0, 8, 50), Note(0, 8, 57), Note(0, 12, 65), Note(12, 1, 72)])
    assert out_and_in(score) == score


times = st.builds(Fraction, st.integers(0, 400), st.sampled_from([1, 2, 3, 4, 5, 7, 12]))
lengths = st.builds(Fraction, st.integers(1, 60), st.sampled_from([1, 3, 4, 16, 3840]))
notes = st.builds(Note, times, lengths, st.integers(0, 127), st.integers(0, 17))
# Few pitches and parts: the same pitch overlaps itself, and notes lie inside of others.
crowded = st.builds(Note, times, lengths, st.integers(60, 61), st.integers(0, 1))
keys = st.sampled_from(["", "C:major", "B-:major", "F#:minor", "A-:minor", "D:dorian", "G#:major"])


@given(
    st.lists(notes, max_size=30) | st.lists(crowded, max_size=30),
    keys,
    st.sampled_from(["4/4", "3/4", "5/8", "7/16", "255/1", "3/3", "6/12", "2/4+3/8"]),
    st.integers(1, 20),
    st.floats(3.6, 1e4),
)
def test_any_polyphony_comes_back_as_it_was(found, key, time_signature, num_parts, bpm):
    score = Score(found, key, time_signature, num_parts)
    assert out_and_in(score, bpm=bpm, programs=(42, 0)) == score


def test_times_that_no_division_holds_are_rounded_and_every_note_sounds():
    score = Score([Note(0, Fraction(1, 40_000), 60), Note(1.1, 1, 61)])
    first, second = out_and_in(score).notes
    assert first.duration > 0
    assert abs(second.start - Fraction(1.1)) <= Fraction(1, 960)
    assert out_and_in(Score([Note(0, 1, 60), Note(10**6, 1, 61)])).notes[1].start == 10**6


@pytest.mark.parametrize("sign", ["3/3", "256/4", "3/65536"])
def test_time_signatures_that_the_format_has_no_sign_for_are_not_told_as_others(sign):
    score = Score([Note(0, 1, 60)], time_signature=sign)
    assert b"\xff\x58" not in midi_bytes(score)
    assert out_and_in(score) == score


@pytest.mark.parametrize(("key", "sign"), [("", "4"), ("", "3/4/4"), ("", ""), ("C:a b", "4/4")])
def test_what_is_no_sign_is_refused(key, sign):
    with pytest.raises(ValueError, match="as in D:minor or 7/16"):
        midi_bytes(Score([], key, sign))


@pytest.mark.parametrize("bpm", [3, 0, -60, float("nan"), float("inf"), 1e9])
def test_tempi_that_the_format_cannot_hold(bpm):
    with pytest.raises(ValueError, match=r"bpm is .*3\.6 to"):
        midi_bytes(Score([]), bpm=bpm)


@pytest.mark.parametrize("programs", [(), (128,), (0, -1)])
def test_instruments_that_the_format_cannot_hold(programs):
    with pytest.raises(ValueError, match="0 to 127"):
        midi_bytes(Score([]), programs)


def test_too_many_parts_are_refused_before_they_are_written():
    with pytest.raises(ValueError, match="65,534"):
        midi_bytes(Score([], num_parts=10**12))
    with pytest.raises(ValueError, match="'H'"):
        midi_bytes(Score([], key="H:major"))


def test_one_track_of_many_channels(tmp_path):
    """Format 0: a part for each channel, drums apart; running status, note-ons of velocity 0."""
    track = (
        b"\x00\xff\x59\x02\xfe\x00\x00\xff\x58\x04\x06\x03\x18\x08"  # two flats, 6/8
        b"\x00\x91\x40\x50\x00\x90\x3c\x50\x00\x99\x24\x50"  # channels 1, 0 and the drums
        b"\x00\xb0\x40\x7f\x00\xf0\x02\x01\xf7\x00\xe0\x00\x40"  # pedal, system message, bend
        b"\x30\x90\x3c\x00\x00\x3e\x50\x60\x3e\x00"  # running status
        b"\x00\x89\x24\x40\x00\x81\x40\x40\x00\xff\x2f\x00"
    )
    (tmp_path / "a.mid").write_bytes(midi_file(track, kind=0))
    with pytest.warns(UserWarning, match="1 notes of channel 10 are drums"):
        score = parse(tmp_path / "a.mid")
    half = Fraction(1, 2)
    expected = [Note(0, half, 60), Note(half, 1, 62), Note(0, 3 * half, 64, part=1)]
    assert score == Score(expected, "B-:major", "6/8", 2)


def test_what_other_programs_write():
    note = b"\x00\x90\x3c\x50\x60\x80\x3c\x40"
    strange = b"XFIH" + struct.pack(">I", 3) + b"abc"  # a chunk that is no track
    data = midi_file(b"\x00\xff\x03\x01a", note + b"\x00\xff\x2f\x00", b"\x00\xc0\x05")
    data = data[:14] + strange + data[14:]
    found = read_midi(data)
    assert (found.notes, found.num_parts) == ([Note(0, 1, 60)], 2)
    # Held to the end; an end without a beginning; struck again before its end; no length.
    held = (
        b"\x00\x80\x3c\x00\x00\x90\x3c\x50\x30\x3c\x50\x30\x80\x3c\x40\x00\x90\x32\x50\x00\x32\x00"
    )
    assert read_midi(midi_file(held)).notes == [Note(0, 1, 60), Note(Fraction(1, 2), 0.5, 60)]


def test_signs_within_a_piece_are_words_where_they_stand(tmp_path):
    signs = b"\x00\xff\x58\x04\x03\x02\x18\x08\x60\xff\x59\x02\x01\x01\x00\xff\x2f\x00"
    line = b"\x00\x90\x3c\x50\x60\x3c\x00\x30\x3c\x50\x30\x3c\x00\x00\xff\x2f\x00"
    bass = b"\x00\x91\x30\x50\x81\x10\x30\x00\x00\xff\x2f\x00"
    (tmp_path / "a.mid").write_bytes(midi_file(signs, line, bass))
    words = read_streams(tmp_path / "a.mid")
    assert words.notes == ["START", "3/4TS", "C4", "E:minor", "C3", "C4"]
    assert words.durations == ["0.0", "0.0", "1.0", "0.0", "0.5", "0.5"]


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "MThd"),
        (b"RIFF" + b"\0" * 40, "MThd"),
        (midi_file(b"", kind=2), "format 2"),
        (midi_file(b"", ticks=0xE728), "SMPTE"),
        (midi_file(b"", ticks=0), "SMPTE"),
        (midi_file(b"\x00\x90\x3c\x50")[:-2], "cut: track 1 of 1"),
        (midi_file(b"\x00\x90\x3c"), "track 1 ends inside"),
        (midi_file(b"\x00\xff\x01\x7fab"), "track 1 ends inside"),
        (midi_file(b"\x00\x3c\x50"), "0x00 is no event"),
        (midi_file(b"\x00\xf4"), "0xf4 is no event"),
        (midi_file(b"\x00\x90\x3c\xff\x2f"), "not whole"),
        (midi_file(b"\xff\xff\xff\xff\x7f\x90\x3c\x50"), "more than four bytes"),
        (midi_file(b"\x00\x90\x3c\x50\xff\xff\xff\x7f\x3c\x00", ticks=1), "at most 1,048,576"),
    ],
)
def test_files_that_cannot_be_read_are_named(tmp_path, data, what):
    (tmp_path / "a.mid").write_bytes(data)
    with pytest.raises(DamagedFileError, match=rf"a\.mid: .*{what}"):
        parse(tmp_path / "a.mid")


def test_what_is_no_file_and_what_is_too_large(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "a.mid")
    (tmp_path / "b.krn").mkdir()
    (tmp_path / "c.abc").write_bytes(b"X:1\n" * 9)
    monkeypatch.setattr("generative.music.parsing.MAX_BYTES", 30)
    for name in ("a.mid", "b.krn", "c.abc"):
        with pytest.raises(DamagedFileError, match=name):
            parse_pieces(tmp_path / name)
