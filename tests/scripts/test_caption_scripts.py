"""Exploring the worlds with captions: the pictures, and floors that a caption lowers."""

import json
from dataclasses import replace

import pytest
import torch
from PIL import Image

from scripts import explore

torch.set_num_threads(1)


def test_exploring(tmp_path):
    args = explore.PRESETS["smoke"]
    settings = replace(args.captions, floor_pictures=6, small_cells=400)
    args = replace(args, folder=explore.CAPTIONS, pictures=tmp_path, captions=settings)
    explore.main(args)
    names = {path.stem for path in tmp_path.glob("*.png")}
    assert names == {"captions", "estimates", "floors", "emoji"}
    # Estimates: a row for the noisy picture and for each of three captions, four levels.
    width, height = Image.open(tmp_path / "estimates.png").size
    assert width == 4 * (24 * 4 + 2) - 2
    assert height > 4 * 24 * 4
    found = json.loads((tmp_path / "explore.json").read_text())
    assert found["captions"]["relation"] == 2208
    floors = found["floors"]
    nothing, pair, relation = (floors[name]["-4"]["data"] for name in floors)
    assert nothing > pair > relation > 0
    assert found["upsampler"]["2x2, noise 0.1"]["accuracy"] == pytest.approx(0.81, abs=0.06)
    assert found["entropy"]["three red discs"] == pytest.approx(4.4308, abs=1e-4)
