"""The command of DALL.E, Parti and MUSE and its pictures, beyond what the smoke preset does."""

import json
from dataclasses import replace

import pytest
import torch

from generative.codes import QuantiserConfig, VQVAEConfig
from generative.data.caption_tokens import CaptionTokeniser
from generative.known.captioned_scenes import CaptionedScenes, CaptionMix
from generative.known.captions import WORDS, fits, fitting
from generative.known.scenes import draw
from generative.nets.config import gpt2_block
from generative.text_to_codes import DALLEConfig, MUSEConfig, PartiConfig
from scripts import explore, train_clip, train_text_to_codes
from scripts.common.scene_codes import (
    CellCodes,
    accuracy_by_steps,
    best_of,
    load_codes,
    writer_scores,
)
from tests.generative.text_to_codes.test_text_to_codes import exact_muse

torch.set_num_threads(1)
SMOKE = train_text_to_codes.PRESETS["smoke"]
BLOCK = gpt2_block(16, 2, dropout=0.0)
TEXT = train_text_to_codes.TINY


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_muse_from_its_command_to_its_pictures(tmp_path):
    train_clip.main(replace(train_clip.PRESETS["smoke"], out=tmp_path / "clip", steps=2))
    model = MUSEConfig(TEXT, num_layers=1, block=BLOCK)
    train_text_to_codes.main(replace(SMOKE, out=tmp_path / "run", model=model, steps=2))
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["test_nll"] > result["floor"] > 0
    smoke = explore.PRESETS["smoke"]
    settings = replace(smoke.text_to_codes, clip=tmp_path / "clip")
    drawn = explore.main(
        replace(
            smoke, folder=tmp_path / "run", pictures=tmp_path / "explore", text_to_codes=settings
        )
    )
    assert {path.stem for path in drawn.glob("*.png")} - {"curves"} == {"prompts"}
    found = json.loads((drawn / "explore.json").read_text())
    wanted = {"satisfied_in_1_steps", "satisfied_in_2_steps", "satisfied_by_best_of_16"}
    assert wanted <= set(found)


def test_codes_of_a_trained_autoencoder(tmp_path):
    torch.manual_seed(0)
    quantiser = QuantiserConfig(8, 4)
    vqvae = VQVAEConfig((3, 24, 24), (4, 4, 4), 4, 1, quantiser).build()
    vqvae.save_pretrained(tmp_path / "vqvae")
    args = replace(SMOKE, out=tmp_path / "run", codes=tmp_path / "vqvae", steps=2)
    with pytest.raises(ValueError, match=r"3x3 codes of 25, and there are 3x3 of 8; give --model"):
        train_text_to_codes.main(args)
    model = DALLEConfig(num_codes=8, num_layers=1, block=BLOCK)
    train_text_to_codes.main(replace(args, out=tmp_path / "other", model=model))
    result = json.loads((tmp_path / "other" / "result.json").read_text())
    assert 0 <= result["satisfied"] <= 1 - result["rejected"] <= 1
    with pytest.raises(FileNotFoundError, match="pass --codes with a run of train_vqvae"):
        train_text_to_codes.main(replace(args, out=tmp_path / "third", codes=tmp_path / "none"))


@pytest.mark.parametrize(
    ("caption", "letters"), [("three red discs", False), ("a sign that says cloud", True)]
)
def test_known_codes_are_the_cells(caption, letters):
    cells = fitting(caption)
    codes = load_codes(None, "cpu", letters)
    assert torch.equal(codes.encode(draw(cells)).flatten(1), cells)
    assert torch.equal(codes.decode(codes.encode(draw(cells))), draw(cells))


@pytest.mark.parametrize("kind", [PartiConfig, MUSEConfig])
def test_signs_are_learned_letter_by_letter(kind, tmp_path):
    model = kind(TEXT, num_layers=1, block=BLOCK)
    args = replace(SMOKE, out=tmp_path / "run", model=model, steps=2, mix=CaptionMix(sign=2.0))
    with pytest.raises(ValueError, match=r"3x3 codes of 25, and there are 3x3 of 51; give --model"):
        train_text_to_codes.main(args)
    args = replace(args, out=tmp_path / "few", model=replace(model, num_codes=51))
    with pytest.raises(ValueError, match=r"words and letters are 77 .* 64; give its vocab-size 77"):
        train_text_to_codes.main(args)
    model = replace(model, num_codes=51, text=replace(TEXT, vocab_size=77))
    train_text_to_codes.main(replace(args, out=tmp_path / "all", model=model))
    result = json.loads((tmp_path / "all" / "result.json").read_text())
    assert result["test_nll"] > result["floor"] > 0
    words = CaptionTokeniser.load(tmp_path / "all" / "vocabulary.json")
    assert words.decode(words.encode(["a sign that says bag"])[0]) == "a sign that says bag"
    assert words.unknown("a sign that says bag") == {}


def test_scores_of_who_knows_everything(monkeypatch):
    """The exact model of one caption has the floor, and its pictures fit and are even."""
    text = "a red square left of a blue disc"
    muse, tokeniser = exact_muse(text), CaptionTokeniser.fit(WORDS)
    muse.config = replace(muse.config, noise=1e6)
    world = CaptionedScenes()
    monkeypatch.setattr(
        world, "draw", lambda n, generator: ([text] * n, world.scenes([text] * n, generator))
    )
    found = writer_scores(muse, CellCodes(), tokeniser, world, generator(), 600)
    assert found["test_nll"] == pytest.approx(found["floor"])
    assert found["satisfied"] == 1
    assert found["rejected"] == 0
    assert found["even_p"] > 1e-3
    steps = accuracy_by_steps(muse, CellCodes(), tokeniser, [text] * 100, (1, 9))
    assert steps["satisfied_in_1_steps"] < 0.3 < steps["satisfied_in_9_steps"] == 1


def test_the_best_of_several_is_that_of_who_ranks(monkeypatch):
    """Ranked by whether they fit, the best of 16 fits wherever one of them does."""
    text = "a red square left of a blue disc"
    muse, tokeniser = exact_muse(text), CaptionTokeniser.fit(WORDS)
    muse.config = replace(muse.config, steps=1)
    kind = "scripts.common.clip"
    monkeypatch.setattr(
        f"{kind}.embed_images",
        lambda model, x: fits(text, CellCodes().encode(x).flatten(1)).float()[:, None],
    )
    monkeypatch.setattr(f"{kind}.embed_captions", lambda m, t, texts: torch.ones(len(texts), 1))
    found = best_of(muse, CellCodes(), tokeniser, None, tokeniser, [text] * 30)
    assert found["satisfied_by_first"] < 0.4 < 0.6 < found["satisfied_by_best_of_16"]


def test_a_model_alone_does_not_know_its_words(tmp_path):
    from generative.text_to_codes import Parti

    Parti(PartiConfig(TEXT, num_layers=1, block=BLOCK)).save_pretrained(tmp_path / "model")
    args = replace(explore.PRESETS["smoke"], folder=tmp_path / "model")
    with pytest.raises(ValueError, match="pass the folder of the run of train_text_to_codes"):
        explore.main(args)
