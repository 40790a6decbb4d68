"""The commands of the music models, beyond what their smoke presets do."""

import base64
import json
import re
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image

from generative.data.tunes import tunes
from generative.musegan import MuseGAN
from generative.music import Note, Score, parse, streams_of_score
from generative.music.rnn import MusicRNN
from generative.music.transformer import MusicTransformer
from scripts import (
    explore,
    listen,
    train_musegan,
    train_music_rnn,
    train_music_transformer,
)
from scripts.common.music import load_rolls, load_streams, load_voices

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def transformer(tmp_path_factory):
    out = tmp_path_factory.mktemp("transformer") / "run"
    args = replace(train_music_transformer.PRESETS["smoke"], out=out, steps=5, log_every=5)
    train_music_transformer.main(args)
    return out


def test_exploring_a_transformer(transformer, tmp_path):
    args = replace(explore.PRESETS["smoke"], folder=transformer / "model", pictures=tmp_path / "x")
    folder = explore.main(args)
    names = {path.name for path in folder.iterdir()}
    assert {
        "attention-1.png", "expected-notes.png", "expected-durations.png", "samples-0.5.png",
        "samples-1.png", "samples-1-3.mid", "piece-0.mid",
    } <= names  # fmt: skip


@pytest.mark.parametrize("given", ["nothing", "bar"])
def test_exploring_a_musegan(given, tmp_path):
    config = replace(train_musegan.PRESETS["smoke"].model, given=given)
    config.build().save_pretrained(tmp_path / "model")
    args = replace(
        explore.PRESETS["smoke"], folder=tmp_path / "model", pictures=tmp_path / "x", data="tunes"
    )
    folder = explore.main(args)
    names = {path.stem for path in folder.glob("*.png")}
    changes = {f"change-{name}" for name in ("chords", "style", "melody", "groove")}
    assert names == {"samples", "nearest", *changes, *(["eight-bars"] if given == "bar" else [])}
    assert np.asarray(Image.open(folder / "samples.png")).ndim == 3


def test_exploring_a_recurrent_network(tmp_path):
    torch.manual_seed(0)
    MusicRNN(train_music_rnn.PRESETS["smoke"].model).save_pretrained(tmp_path / "model")
    folder = explore.main(explore.Args(tmp_path / "model", tmp_path / "x"))
    assert len(list(folder.glob("samples-*.mid"))) == 8
    assert np.asarray(Image.open(folder / "samples.png")).ndim == 3


def test_exploring_a_musegan_that_needs_a_track(tmp_path):
    replace(train_musegan.PRESETS["smoke"].model, given="track").build().save_pretrained(
        tmp_path / "model"
    )
    with pytest.raises(ValueError, match="given none"):
        explore.main(explore.Args(tmp_path / "model", pictures=tmp_path / "x"))


def test_a_page_to_listen_to(tmp_path):
    for i, score in enumerate(tunes(3)):
        score.write_midi(tmp_path / f"<{i}>.mid")
    args = listen.Args(
        music=(tmp_path,), page=tmp_path / "page" / "listen.html", most=2, seconds=3, bpm=60
    )
    page = listen.main(args).read_text()
    assert "&lt;2&gt;" in page
    assert "<0>" not in page
    assert not re.findall(r"(?:https?:|src=\"(?!data:))", page)  # nothing from elsewhere
    sounds = re.findall(r"data:audio/wav;base64,([^\"]+)", page)
    assert len(sounds) == 2
    data = base64.b64decode(sounds[0])
    assert data[:4] == b"RIFF"
    samples = np.frombuffer(data[44:], "<i2")
    assert 3 * listen.RATE < len(samples) < 3.5 * listen.RATE
    assert np.abs(samples).max() > 20_000
    with pytest.raises(FileNotFoundError, match="midi folder of a run"):
        listen.main(replace(args, music=(tmp_path / "nothing",)))


def test_samples_of_a_training_are_midi_files(transformer):
    assert (transformer / "images" / "samples-000005.png").exists()
    for path in (transformer / "midi").iterdir():
        parse(path)


@pytest.mark.parametrize("given", ["track", "bar"])
def test_training_with_what_is_given(given, tmp_path):
    smoke = train_musegan.PRESETS["smoke"]
    args = replace(
        smoke, out=tmp_path / "run", steps=2, log_every=1, model=replace(smoke.model, given=given)
    )
    gan = MuseGAN.from_pretrained(train_musegan.main(args))
    assert gan.given == given
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["tonal_distance_distance"] >= 0


def test_a_folder_of_midi_files(tmp_path):
    for i, score in enumerate(tunes(9)):
        score.part(0).write_midi(tmp_path / "cello-suites" / f"{i}.mid") if i else (
            tmp_path / "cello-suites"
        ).mkdir()
    tunes(9).scores[0].part(0).write_midi(tmp_path / "cello-suites" / "0.mid")
    found = load_streams("cello-suites", tmp_path)
    assert [len(found[p]) for p in ("train", "val", "test")] == [7, 1, 1]
    args = replace(
        train_music_transformer.PRESETS["smoke"], out=tmp_path / "run", data="cello-suites",
        data_dir=tmp_path, steps=2, train_on=("train", "val", "test"), windows="inside",
    )  # fmt: skip
    train_music_transformer.main(args)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["test_unknown_words"] == 0
    with pytest.raises(FileNotFoundError, match="put MIDI files of the cello suites there"):
        load_streams("cello-suites", tmp_path / "nothing")


def test_words_that_were_not_trained_on_are_counted(tmp_path, monkeypatch):
    """Every note and duration of the test piece but its first START and two signs is another."""

    def piece(pitch: int, length: Fraction):
        notes = [Note(length * i, length, pitch) for i in range(6)]
        return streams_of_score(Score(notes, "C:major"))

    heard, unheard = piece(60, Fraction(1)), piece(72, Fraction(1, 3))
    found = {"train": [heard] * 3, "val": [heard], "test": [unheard]}
    monkeypatch.setattr("scripts.common.music.load_streams", lambda *_: found)
    args = replace(
        train_music_transformer.PRESETS["smoke"],
        out=tmp_path / "run", transpose=False, steps=2, log_every=1, picture_every=2,
    )  # fmt: skip
    model = MusicTransformer.from_pretrained(train_music_transformer.main(args))
    assert set(model.vocabularies[0].words) == {"START", "C:major", "4/4TS", "C4"}
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert [result[f"{p}_unknown_words"] for p in ("train", "val", "test")] == [0, 0, 12]
    assert np.isfinite(result["test_note_nats"])


def test_data_in_every_form():
    made = tunes(20)
    rolls = load_rolls("tunes", None, 20)["test"][0]
    score = made.part("test").scores[0]
    sounding = {n.pitch - 21 for n in score.notes if n.start <= 2 < n.start + n.duration}
    assert set(np.flatnonzero(rolls[2])) == sounding
    voices = load_voices("tunes", None, 20)["test"][0]
    assert voices.shape == (64, 4)
    assert len(load_streams("tunes", None, 20, num_voices=2)["train"]) == 2 * 16


def test_quarter_notes_as_scores():
    roll = torch.zeros(1, 4, 88)
    roll[0, 1:3, 39] = roll[0, 2, 43] = 1
    (score,) = train_music_rnn.score_rolls(roll)
    assert [(n.start, n.duration, n.pitch) for n in score.notes] == [(1, 2, 60), (2, 1, 64)]


def test_settings_that_can_not_be():
    with pytest.raises(ValueError, match="transpose is -1"):
        train_music_rnn.Args(transpose=-1)
    with pytest.raises(ValueError, match="most is 0"):
        listen.Args(most=0)
