"""Scores, files, words and measures of music, against music21, by hand and by loops."""

import itertools
import json
import subprocess
import sys
import zipfile
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from generative.data.cello_suites import load_cello_suites
from generative.data.jsb_chorales import load_jsb_rolls, load_jsb_voices
from generative.data.music21_chorales import distinct, load_music21_chorales, melody_groups
from generative.data.tunes import tunes
from generative.music import (
    Note,
    Score,
    Streams,
    Vocabulary,
    deinterleave,
    events,
    grid,
    interleave,
    one_word_each,
    parse,
    parse_pieces,
    piano_roll,
    piano_rolls,
    read_streams,
    real_distance,
    score_of_events,
    score_of_grid,
    score_of_streams,
    score_of_voices,
    score_of_words,
    streams_of_score,
    style,
    style_distance,
    synthesise,
    transpose_streams,
)
from generative.music.metrics import tonal_centroid, wasserstein
from generative.music.notes import transpose_key
from generative.music.tokens import pitch_name, pitch_number
from generative.training.files import DamagedFileError
from tests.commands import ROOT

PIECE = Score(
    [
        Note(Fraction(0), Fraction(1, 3), 60),
        Note(Fraction(1, 3), Fraction(2, 3), 64),
        Note(Fraction(2), Fraction(1, 4), 64),
        Note(Fraction(9, 4), Fraction(7, 4), 67),
        Note(Fraction(0), Fraction(4), 48, part=1),
        Note(Fraction(1), Fraction(3, 2), 55, part=1),
    ],
    key="B-:major",
    time_signature="3/4",
)


@pytest.fixture(scope="module")
def chorale():
    corpus = pytest.importorskip("music21.corpus", reason="music21 brings the chorales")
    from generative.music.parsing import score_from_music21

    return score_from_music21(corpus.parse("bach/bwv66.6", forceSource=True))


def test_midi_out_and_in_keeps_notes_and_durations(tmp_path, chorale):
    for score in (PIECE, chorale):
        score.write_midi(tmp_path / "a.mid", programs=(42, 52))
        again = parse(tmp_path / "a.mid")
        assert again == score  # notes, parts, key and time signature
    assert len(chorale.notes) == 163
    assert chorale.key == "F#:minor"


def test_formats(tmp_path, chorale):
    """The same bar in kern and, by music21's writer, as MusicXML."""
    kern = "**kern\n*M3/4\n*d:\n=1\n4d\n8.f#\n16g\n[4a\n=2\n4a]\n2r\n*-\n"
    (tmp_path / "a.krn").write_text(kern)
    score = parse(tmp_path / "a.krn")
    assert [n.pitch for n in score.notes] == [62, 66, 67, 69]
    assert [n.duration for n in score.notes] == [1, Fraction(3, 4), Fraction(1, 4), 2]  # a tie
    assert (score.key, score.time_signature) == ("D:minor", "3/4")
    from music21 import converter

    stream = converter.parse(tmp_path / "a.krn")
    stream.write("musicxml", tmp_path / "a.musicxml")
    assert parse(tmp_path / "a.musicxml").notes == score.notes
    words = read_streams(tmp_path / "a.krn")
    assert words.notes[0] == "START"
    assert {"D:minor", "3/4TS"} <= set(words.notes[1:3])
    assert words.notes[3:6] == ["D4", "F#4", "G4"]
    assert words.durations[:6] == ["0.0", "0.0", "0.0", "1.0", "0.75", "0.25"]
    assert words.notes[-1] == "rest"


TUNES = """%abc-2.1
X:1
T:One
M:3/4
L:1/4
K:G
GAB|c3|

X:2
T:Zwölf
M:6/8
L:1/8
K:D
d3 d3|
"""


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_every_tune_of_a_file_is_a_piece(tmp_path, encoding, newline):
    pytest.importorskip("music21", reason="music21 reads ABC")
    folder = tmp_path / "cello-suites"
    (folder / ".hidden").mkdir(parents=True)
    for path in (folder / "a.abc", folder / ".hidden" / "b.abc", folder / "._a.abc"):
        path.write_bytes(TUNES.replace("\n", newline).encode(encoding))
    first, second = parse_pieces(folder / "a.abc")
    assert [note.pitch for note in first.notes] == [67, 69, 71, 72]
    assert (first.key, first.time_signature) == ("G:major", "3/4")
    assert [note.pitch for note in second.notes] == [74, 74]
    for reader in (parse, read_streams):
        with pytest.raises(ValueError, match=r"a\.abc: holds 2 pieces"):
            reader(folder / "a.abc")
    pieces, split = load_cello_suites(folder)
    assert [piece.notes[-1] for piece in pieces] == ["C5", "D5"]
    assert len(split) == 2


def test_a_compressed_file_is_unpacked_no_further_than_music_goes(tmp_path):
    pytest.importorskip("music21", reason="music21 reads MusicXML")
    xml = (
        '<score-partwise><part-list><score-part id="P"><part-name/></score-part></part-list>'
        '<part id="P"><measure number="1"><attributes><divisions>1</divisions></attributes><note>'
        "<pitch><step>C</step><octave>4</octave></pitch><duration>4</duration></note></measure>"
        "</part></score-partwise>"
    )
    for spaces in (1000, 1_000_000):
        with zipfile.ZipFile(tmp_path / f"{spaces}.mxl", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("META-INF/container.xml", "<container/>")
            archive.writestr("score.xml", xml + " " * spaces)
    assert [note.pitch for note in parse(tmp_path / "1000.mxl").notes] == [60]
    with pytest.raises(DamagedFileError, match=r"1000000\.mxl: unpacks to 1000293 bytes"):
        parse(tmp_path / "1000000.mxl")


def test_nothing_imports_music21_before_it_is_needed():
    code = (
        "import sys, generative.music.transformer, generative.musegan, generative.music.rnn\n"
        "import generative.data.music21_chorales, generative.data.cello_suites\n"
        "assert 'music21' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_what_is_no_music_is_named(tmp_path):
    (tmp_path / "a.mid").write_bytes(b"MThd no")
    with pytest.raises(DamagedFileError, match=r"a\.mid"):
        parse(tmp_path / "a.mid")
    with pytest.raises(FileNotFoundError, match="no such file"):
        parse(tmp_path / "b.mid")
    with pytest.raises(ValueError, match=r"pitch=128.*0 to 127"):
        Score([Note(Fraction(0), Fraction(1), 128)])


def test_streams_of_the_book():
    words = streams_of_score(PIECE, end=True)
    assert words.notes == ["START", "B-:major", "3/4TS", "C4", "E4", "rest", "E4", "G4", "END"]
    assert words.durations == ["0.0", "0.0", "0.0", "1/3", "2/3", "1.0", "0.25", "1.75", "0.0"]
    again = score_of_streams(words)
    assert again == PIECE.part(0)
    assert score_of_words(one_word_each(words)) == again
    assert deinterleave(interleave(words)) == words
    # A network may write anything: a note without a duration is passed over.
    assert deinterleave(["C4", "D4", "=1.0", "=2.0"]) == Streams(["D4"], ["1.0"])


notes = st.lists(
    st.builds(
        lambda start, length, pitch: Note(Fraction(start, 12), Fraction(length, 12), pitch),
        st.integers(0, 60), st.integers(1, 30), st.integers(12, 127),
    ),
    max_size=12,
)  # fmt: skip


@given(notes)
def test_events_sound_when_notes_do(found):
    score = Score(found)
    again = score_of_events(events(score))
    assert events(again) == events(score)
    assert (again.roll(12)[0] == score.roll(12)[0]).all()


def test_events_by_hand():
    triplets = Score([Note(Fraction(k, 3), Fraction(1, 3), 60) for k in range(2)])
    assert events(triplets) == [
        "NOTE_ON<60>", "TIME_SHIFT<1/3>", "NOTE_OFF<60>", "NOTE_ON<60>", "TIME_SHIFT<1/3>",
        "NOTE_OFF<60>",
    ]  # fmt: skip
    long = Score([Note(Fraction(9), Fraction(1), 60)])
    assert events(long)[:3] == ["TIME_SHIFT<4>", "TIME_SHIFT<4>", "TIME_SHIFT<1>"]
    wild = score_of_events(["NOTE_OFF<50>", "NOTE_ON<60>", "TIME_SHIFT<1>", "TIME_SHIFT<1/2>"])
    assert wild.notes == (Note(Fraction(0), Fraction(3, 2), 60),)


def test_grid_of_four_voices(chorale):
    words = grid(chorale)
    assert len(words) == 4 * 4 * chorale.length
    voices = np.array([w.removeprefix("PITCH_") for w in words]).reshape(-1, 4).astype(int)
    np.testing.assert_array_equal(voices, chorale.voices(4))
    assert grid(score_of_grid(words)) == words
    # Repeated notes are what a grid loses.
    assert len(score_of_grid(words).notes) < len(chorale.notes)
    held = score_of_voices(np.array([[60, -1], [60, 50]]))
    assert held.notes == (
        Note(Fraction(0), Fraction(1, 2), 60), Note(Fraction(1, 4), Fraction(1, 4), 50, 1)
    )  # fmt: skip


def test_names_of_pitches_are_music21s():
    pitch = pytest.importorskip("music21.pitch")
    for number in range(12, 128):
        for flats in (True, False, None):
            name = pitch_name(number, flats)
            assert pitch.Pitch(name).midi == pitch_number(name) == number
    for name in ("C-4", "B#3", "F##2", "E--5"):
        assert pitch_number(name) == pitch.Pitch(name).midi
    with pytest.raises(ValueError, match="octave"):
        pitch_number("C")
    with pytest.raises(ValueError, match="'H'"):
        pitch_number("H2")


@pytest.mark.parametrize("by", [-5, 0, 3, 6])
def test_transposing_words_and_scores_is_the_same(by):
    words = streams_of_score(PIECE)
    moved = transpose_streams(words, by)
    assert score_of_streams(moved).notes == PIECE.part(0).transpose(by).notes
    assert moved == streams_of_score(PIECE.transpose(by))
    assert transpose_key("A:minor", 1) == "B-:minor"


def test_vocabulary():
    known = Vocabulary.of([["b", "a", "c"], ["c", "b", "c"]])
    assert known.words == ("c", "b", "a")
    assert len(known) == 5
    assert known.encode(["c", "a", "?"]).tolist() == [2, 4, 1]
    assert known.decode([2, 0, 4, 1]) == ["c", "a"]
    with pytest.raises(ValueError, match="told apart"):
        Vocabulary("a b a")


# ---------------------------------------------------------------------------------------------
# Measures
# ---------------------------------------------------------------------------------------------


def test_style_by_a_loop():
    rng = np.random.default_rng(0)
    voices = np.repeat(rng.integers(59, 64, size=(5, 16, 3)), 2, axis=1)
    voices[rng.random(voices.shape) < 0.3] = -1
    voices[0, :16, 1] = -1
    found = style(voices)
    for n, p in itertools.product(range(5), range(3)):
        line = voices[n, :, p].tolist()
        bars = [line[:16], line[16:]]
        assert found.empty_bars[n, p] == np.mean([all(x < 0 for x in bar) for bar in bars])
        classes = [len({x % 12 for x in bar if x >= 0}) for bar in bars]
        assert found.used_pitch_classes[n, p] == np.mean(classes)
        runs = [(pitch, len(list(run))) for pitch, run in itertools.groupby(line)]
        lengths = [length for pitch, length in runs if pitch >= 0]
        # A note of one step at the very end is cut off there, and counts as a fragment.
        assert found.qualified_notes[n, p] == np.mean([length >= 2 for length in lengths])


def test_tonal_distance_by_hand():
    """A fifth is nearer than a tritone, a pitch class is at no distance from its octave."""
    together, fifth, tritone = (
        style(np.stack([np.full((1, 16), 60), np.full((1, 16), 60 + k)], 2)).tonal_distance.item()
        for k in (12, 7, 6)
    )
    assert together == pytest.approx(0)
    assert fifth < tritone
    angles = [7 * np.pi / 6, 3 * np.pi / 2, 2 * np.pi / 3]
    expected = np.sqrt(
        sum((r * 2 * np.sin(7 * a / 2)) ** 2 for a, r in zip(angles, (1, 1, 0.5), strict=True))
    )
    assert fifth == pytest.approx(expected)
    assert tonal_centroid(np.zeros(12)).tolist() == [0] * 6


def test_wasserstein_is_scipys():
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=30), rng.integers(3, size=17).astype(float)
    assert wasserstein(a, b) == pytest.approx(stats.wasserstein_distance(a, b))
    assert wasserstein(np.append(a, np.nan), b) == pytest.approx(stats.wasserstein_distance(a, b))


def test_real_music_is_no_further_from_itself_than_its_halves():
    rng = np.random.default_rng(0)
    real, same, other = (style(rng.integers(60, 60 + k, size=(200, 32, 2))) for k in (6, 6, 3))
    near, chance = real_distance(same, real, rng, 30)
    far, _ = real_distance(other, real, rng, 30)
    assert near.used_pitch_classes < 1.5 * chance.used_pitch_classes
    assert far.used_pitch_classes > 5 * chance.used_pitch_classes
    assert style_distance(real, real) == (0, 0, 0, 0)


# ---------------------------------------------------------------------------------------------
# Pictures, sound, data
# ---------------------------------------------------------------------------------------------


def test_a_piano_roll_shows_every_note_where_it_is():
    picture = piano_roll(PIECE, width=400, row=4, pitches=(40, 80), length=4)
    assert picture.shape == (41 * 4, 400, 3)
    for note in PIECE.notes:
        x = int(100 * (note.start + note.duration / 2))
        y = (80 - note.pitch) * 4 + 1
        assert np.ptp(picture[y, x].astype(int)) > 40  # a colour, where the ground is grey
    assert piano_rolls([PIECE] * 3).shape[1] == 808
    assert piano_roll(Score([])).size


def test_a_synthesised_tone_has_its_frequency():
    sound = synthesise(Score([Note(Fraction(0), Fraction(4), 69)]), bpm=60, rate=8000)
    spectrum = np.abs(np.fft.rfft(sound[:8000] * np.hanning(8000)))
    assert spectrum.argmax() == 440  # one second: bins are Hz
    assert sound.dtype == np.float32
    assert np.abs(sound).max() == pytest.approx(0.9)


@pytest.mark.nightly
def test_chorales_are_told_apart_and_melodies_kept_together(tmp_path):
    pytest.importorskip("music21", reason="music21 brings the chorales")
    found = load_music21_chorales(tmp_path, max_pieces=4)
    assert len(found) == 4
    assert {score.num_parts for score in found} == {4}
    assert not any(tmp_path.iterdir())  # only a whole reading is kept
    scores = [PIECE, PIECE.transpose(5), PIECE.part(0)]
    assert distinct(scores) == [0, 2]
    assert melody_groups(scores) == [0, 0, 0]
    made = tunes(50)
    assert [len(made.part(p)) for p in ("train", "val", "test")] == [40, 5, 5]
    with pytest.raises(ValueError, match="no part"):
        made.part("rest")


def test_chorales_that_were_read_are_kept_exactly(tmp_path, monkeypatch, chorale):
    from generative.data import music21_chorales as module

    pieces = [chorale.transpose(k) for k in range(2)] + list(tunes(10))
    monkeypatch.setattr(module, "_read_corpus", lambda most: ([*"abcdefghijkl"], pieces))
    first = load_music21_chorales(tmp_path)
    assert len(first) == 11  # the second is the first in another key
    monkeypatch.setattr(module, "_read_corpus", lambda most: pytest.fail("read again"))
    again = load_music21_chorales(tmp_path)
    assert again.scores == first.scores
    np.testing.assert_array_equal(again.split, first.split)
    assert {"train", "val"} <= {p for p in ("train", "val", "test") if len(first.part(p))}
    (tmp_path / "chorales.json").write_text('{"music21": 1}')
    with pytest.raises(DamagedFileError, match="delete it"):
        load_music21_chorales(tmp_path)


def test_jsb_files_in_all_forms(tmp_path):
    piece = [[60, 57, 52, -1], [62, 57, 52, 48]]
    parts = {"train": [piece, piece], "valid": [piece], "test": [piece[:1]]}
    (tmp_path / "Jsb16thSeparated.json").write_text(json.dumps(parts))
    from_json = load_jsb_voices(tmp_path)
    (tmp_path / "Jsb16thSeparated.json").unlink()
    arrays = {}
    for name, pieces in parts.items():
        arrays[name] = np.empty(len(pieces), dtype=object)
        for i, rows in enumerate(pieces):
            values = np.array(rows, dtype=np.float16)
            arrays[name][i] = np.where(values < 0, np.nan, values)
    np.savez(tmp_path / "Jsb16thSeparated.npz", **arrays)
    from_npz = load_jsb_voices(tmp_path)
    for part in ("train", "val", "test"):
        for a, b in zip(from_json[part], from_npz[part], strict=True):
            np.testing.assert_array_equal(a, b)
    assert from_npz["val"][0].tolist() == piece
    (tmp_path / "jsb-chorales-quarter.json").write_text(
        json.dumps({name: [[[60, 64], []]] for name in parts})
    )
    roll = load_jsb_rolls(tmp_path)["test"][0]
    assert np.argwhere(roll).tolist() == [[0, 60 - 21], [0, 64 - 21]]


def test_a_file_of_chorales_can_not_run_code(tmp_path):
    trap = np.empty(1, dtype=object)
    trap[0] = pytest.fail  # a function, which a pickle would import
    np.savez(tmp_path / "Jsb16thSeparated.npz", train=trap, valid=trap, test=trap)
    with pytest.raises(DamagedFileError, match="no part of an array"):
        load_jsb_voices(tmp_path)
    trap[0] = np.zeros((1000, 4))
    np.savez(
        tmp_path / "Jsb16thSeparated.npz", train=np.repeat(trap, 10_000), valid=trap, test=trap
    )
    with pytest.raises(DamagedFileError, match="bytes at most"):  # 640 MB from 30 KB
        load_jsb_voices(tmp_path)
    with pytest.raises(FileNotFoundError, match="get Jsb16thSeparated"):
        load_jsb_voices(tmp_path / "nowhere")
