"""What commands say of runs that are not there, of folders without images, of long captions."""

import importlib
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from generative.training.cli import parse
from scripts import train_caption_reader, train_clip, train_cyclegan, train_text_to_image
from scripts.__main__ import find_verbs
from scripts.common.captions import check_lengths, fit_tokeniser, load_pairs
from scripts.common.missing import folder_of

NEEDED = {
    ("train_text_to_image", "imagen", "reader"): ["train_caption_reader"],
    ("train_text_to_image", "latent", "reader"): ["train_text_to_image scenes", "train_clip"],
    ("train_text_to_image", "decoder", "clip"): ["train_clip"],
    ("train_controlnet", "", "base"): ["train_text_to_image scenes", "train_latent_diffusion"],
    ("train_flow_matching", "reflow", "teacher"): ["train_flow_matching"],
    ("train_code_prior", "", "codes"): ["train_vqvae scenes", "train_vqgan"],
    ("train_text_to_codes", "small", "codes"): ["train_vqvae scenes"],
    ("train_prior", "clip", "clip"): ["train_clip"],
    ("compare_text_to_image", "smoke", "runs"): ["train_text_to_image", "train_text_to_codes"],
}
"""Commands that make what another needs, by the command, a preset and the option."""


@pytest.mark.parametrize("key", NEEDED, ids=lambda key: f"{key[0]} --{key[2]}")
def test_a_missing_run_is_told_with_the_commands_that_make_one(key, tmp_path, monkeypatch):
    verb, preset, option = key
    monkeypatch.chdir(tmp_path)
    script = importlib.import_module(f"scripts.{verb}")
    args = script.PRESETS[preset or script.DEFAULT_PRESET]
    nothing = tmp_path / "nothing"
    value = (nothing,) if isinstance(getattr(args, option), tuple) else nothing
    with pytest.raises(FileNotFoundError) as caught:
        script.main(replace(args, out=tmp_path / "run", **{option: value}))
    told = str(caught.value)
    assert told.startswith(f"{nothing}: no such ")
    assert f"--{option}" in told
    assert re.findall(r"`worldmodels (.+?)`", told) == NEEDED[key]
    for command in NEEDED[key]:
        named, *words = command.split()
        assert named in find_verbs()
        maker = importlib.import_module(f"scripts.{named}")
        parse(maker.PRESETS, getattr(maker, "DEFAULT_PRESET", None), argv=words)


WITH_CAPTIONS = (train_clip, train_caption_reader, train_text_to_image)


@pytest.mark.parametrize("script", WITH_CAPTIONS)
def test_an_empty_folder_is_told_with_its_option_and_what_belongs_in_it(script, tmp_path):
    args = replace(script.PRESETS["smoke"], out=tmp_path / "run", data="folder", data_dir=tmp_path)
    needed = r"holds 0 images; .*\.bmp.*a \.txt .* captions\.jsonl; pass .* with --data-dir$"
    with pytest.raises(FileNotFoundError, match=needed):
        script.main(args)


def test_each_of_two_folders_has_its_own_option(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such folder; .* with --first-dir$"):
        train_cyclegan.load_sets("folders", tmp_path / "one", tmp_path / "two", (3, 8, 8))
    fill(tmp_path / "one", ["a"] * 3)
    with pytest.raises(FileNotFoundError, match=r"no such folder; .* with --second-dir$"):
        train_cyclegan.load_sets("folders", tmp_path / "one", tmp_path / "two", (3, 8, 8))


def test_an_option_is_named_once_and_errors_of_the_system_stay(tmp_path):
    told = pytest.raises(FileNotFoundError, match=r"^gone; pass another folder with --data-dir$")
    with told, folder_of("--data-dir"), folder_of("--data-dir"):
        raise FileNotFoundError("gone")
    with pytest.raises(FileNotFoundError) as caught, folder_of("--data-dir"):
        (tmp_path / "gone").read_text()
    assert caught.value.errno


def fill(folder, captions) -> None:
    """Images with a caption each."""
    folder.mkdir()
    for i, text in enumerate(captions):
        Image.fromarray(np.full((24, 24, 3), 20 * i, np.uint8)).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(text)


@pytest.mark.parametrize("script", WITH_CAPTIONS)
def test_captions_that_are_too_long_are_counted_and_the_longest_is_named(script, tmp_path):
    """Wherever in the folder they are, for training or for test."""
    captions = ["a red disc"] * 10
    captions[3], captions[7] = "very " * 30 + "long", "very " * 40 + "long"
    fill(tmp_path / "mine", captions)
    args = script.PRESETS["smoke"]
    args = replace(args, out=tmp_path / "run", data="folder", data_dir=tmp_path / "mine")
    option = "--model.max-len" if script is train_caption_reader else "--model.text.max-len"
    with pytest.raises(ValueError, match="captions are longer") as caught:
        script.main(args)
    told = str(caught.value)
    assert told.startswith("2 of 10 captions are longer than the 24 tokens that are read, begin")
    assert "the longest, of 7.png, has 43, 'very very " in told
    assert told.endswith(f"shorten them, or pass {option} 43")
    assert len(told) < 300
    words = told.rpartition("pass ")[2].split()
    longer = parse(script.PRESETS, "smoke", argv=["smoke", *words]).model
    assert getattr(longer, "text", longer).max_len == 43
    assert not list((tmp_path / "run").glob("model*"))


def test_captions_of_scenes_and_emoji_are_measured_too():
    for data, shape in (("scenes", (3, 24, 24)), ("emoji", (3, 32, 32))):
        pairs = load_pairs(data, Path("data"), shape, train_clip.PRESETS["smoke"].mix)
        longest = max(len(text.replace(",", " ,").split()) for text, _ in pairs.every())
        found = fit_tokeniser(pairs, 24, 4096)
        assert max(found.count(text) for text, _ in pairs.every()) >= longest + 2
        with pytest.raises(ValueError, match=r"the longest has (\d+), '.*or ask for \1$"):
            check_lengths(pairs, replace(found, length=6), "ask for")
