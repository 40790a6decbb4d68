"""Every family on the same frames: the table, the picture, and what the command refuses."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from generative.vae import VAE
from scripts import compare_families
from scripts.common.images import load_images
from scripts.compare_families import FAMILIES, MARKS, SHAPE, Args, load, table
from tests.generative.families.common import recorded_frames

torch.set_num_threads(1)


def test_two_families_on_recorded_frames(tmp_path, capsys):
    recorded_frames(tmp_path)
    docs = tmp_path / "docs"
    docs.mkdir()
    page = docs / "families.md"
    page.write_text(f"before\n{MARKS[0]}\nold\n{MARKS[1]}\nafter\n")
    args = replace(
        compare_families.PRESETS["smoke"],
        out=tmp_path / "run",
        data_dir=tmp_path / "episodes",
        docs=docs,
    )
    rows = json.loads(compare_families.main(args).read_text())["families"]
    assert list(rows) == ["autoencoder", "VAE"]
    frames = load_images("frames", tmp_path / "episodes", SHAPE).part("test").as_tensor()
    vae = load("VAE", tmp_path / "run")
    assert isinstance(vae, VAE)
    with torch.no_grad():
        error = float((vae.eval().reconstruct(frames) - frames).square().mean())
    assert rows["VAE"]["squared_error"] == pytest.approx(error, rel=1e-5)
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert table(rows) in text
    assert table(rows) in capsys.readouterr().out
    picture = np.asarray(Image.open(docs / "images" / "families" / "frames.png"))
    height, width, _ = picture.shape
    assert height == 3 * 64 + 2 * 2
    assert width > 8 * 64 + 7 * 2  # with the names of the families
    assert (docs / "results" / "families" / "frames.json").exists()


def test_every_family_has_a_preset_for_frames():
    for entry in FAMILIES.values():
        settings = entry.settings()
        assert settings.data == "frames"
        model = settings.image if hasattr(settings, "image") else settings.model
        assert SHAPE in vars(model).values()


def test_unknown_families_are_refused():
    with pytest.raises(ValueError, match=r"only is \('VEA',\).*autoencoder, VAE"):
        Args(only=("VEA",))
