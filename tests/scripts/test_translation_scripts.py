"""Scripts of translators: scores against translators that are known, and what is drawn."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from generative.known.palettes import PARTNERS, SECOND, recoloured
from generative.known.sprites import COLOURS, sprites
from generative.training.run import Run
from generative.translation import CycleGAN, CycleGANConfig, Pix2Pix, Pix2PixConfig
from scripts import explore, train_cyclegan, train_pix2pix
from scripts.certified.translation import differences

torch.set_num_threads(1)


class Painted(nn.Module):
    """Edges of sprites -> the sprite of these edges in one colour."""

    def __init__(self, colour):
        super().__init__()
        self.colour = nn.Parameter(torch.tensor(colour) / 127.5 - 1)
        self.known = sprites()
        outlines = train_pix2pix.source_of(self.known, slice(None), "edges").bool().numpy()
        self.rows = {outline.tobytes(): row for row, outline in enumerate(outlines)}

    def forward(self, x: torch.Tensor, generator=None) -> torch.Tensor:
        rows = [self.rows[outline.tobytes()] for outline in (x > 0).numpy()]
        inside = torch.from_numpy(self.known.images[rows].any(-1))[:, None]
        return torch.where(inside, self.colour[:, None, None], torch.tensor(-1.0))


class Recoloured(nn.Module):
    """Each colour of one palette as another of the second."""

    def __init__(self, source, target, pairing):
        super().__init__()
        colours = [torch.tensor(list(palette.values())) / 127.5 - 1 for palette in (source, target)]
        self.source, self.target = colours[0], nn.Parameter(colours[1][list(pairing)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat = x.movedim(1, -1)
        nearest = (flat[..., None, :] - self.source).square().sum(-1).argmin(-1)
        inside = (flat > -1).any(-1, keepdim=True)
        return torch.where(inside, self.target[nearest], torch.tensor(-1.0)).movedim(-1, 1)


def test_errors_of_the_median_and_of_a_colour_are_the_known_ones():
    median, drawn = differences()
    assert median == pytest.approx(0.2810, abs=1e-4)
    assert drawn == pytest.approx(0.3217, abs=1e-4)


@pytest.mark.parametrize(
    ("colour", "valid"),
    [
        ((200.0, 150.0, 145.0), 0.0),
        pytest.param((230.0, 60.0, 50.0), 1.0, marks=pytest.mark.nightly),
    ],
)
def test_score_of_sprites_that_are_painted(colour, valid):
    """The median colour has the known error and is no sprite; red is one, in the right shape."""
    model = Pix2Pix(Painted(colour), nn.Identity(), (3, 32, 32), 1)
    everything = sprites()
    rows = np.arange(0, len(everything), 3)  # as many of each colour
    found = train_pix2pix.score(model, everything[rows], "edges", everything)
    assert found["valid"] == found["right"] == valid
    colours = np.array(list(COLOURS.values()))
    sizes = everything.images[rows].any(-1).sum((1, 2))
    own = np.abs(colours - np.array(colour)).mean(1) / 255
    expected = np.average(own[everything.factors[rows, 1]], weights=sizes)
    assert found["l1_inside"] == pytest.approx(expected, abs=1e-4)
    assert abs(expected - (0.2810 if not valid else 0.3290)) < 2e-3


@pytest.mark.parametrize(
    ("pairing", "right"),
    [(PARTNERS, 12), ((0, 1, 2, 3, 4, 5), 0)],
)
def test_score_of_a_pairing_of_colours(pairing, right):
    there = Recoloured(COLOURS, SECOND, pairing)
    back = Recoloured(SECOND, COLOURS, np.argsort(pairing))
    model = CycleGAN(there, back, nn.Identity(), nn.Identity(), (3, 32, 32))
    sets = [sprites(), recoloured(sprites(), SECOND)]
    test = [images.part("test") for images in sets]
    found = train_cyclegan.score(model, test, sets)
    assert found.pop("colours_right") == right
    assert found.pop("cycle") == pytest.approx(0.0, abs=1e-6)
    assert set(found.values()) == {1.0}


def test_palettes_draw_both_sets_by_frequency(tmp_path):
    args = replace(train_cyclegan.PRESETS["smoke"], out=tmp_path / "run", batch_size=5000)
    with Run.open(args, kind="train_cyclegan") as run:
        sets = train_cyclegan.load_sets("palettes", tmp_path, tmp_path, (3, 32, 32))
        first, second = train_cyclegan.draw_rows(args, run, sets, 0)
        again, _ = train_cyclegan.draw_rows(args, run, sets, 0)
    assert np.array_equal(first, again)
    shares = [
        np.bincount(images.factors[rows, 1], minlength=6) / 5000
        for images, rows in zip(sets, (first, second), strict=True)
    ]
    assert np.abs(shares[1][list(PARTNERS)] - shares[0]).max() < 0.04
    assert np.abs(shares[1] - shares[0]).max() > 0.1


def test_two_folders_of_images(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        for i in range(6):
            pixels = rng.integers(256, size=(20, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.png")
    args = replace(
        train_cyclegan.PRESETS["smoke"], out=tmp_path / "run", data="folders",
        first_dir=tmp_path / "first", second_dir=tmp_path / "second",
        model=CycleGANConfig((3, 16, 16), 2, 1, 4, 1), steps=2, log_every=1, picture_every=1,
    )  # fmt: skip
    folder = train_cyclegan.main(args)
    result = json.loads((folder.parent / "result.json").read_text())
    assert 0 < result["cycle"] < 1
    assert "colours_right" not in result


@pytest.mark.parametrize("source", ["edges", "grey", "palette"])
def test_sources_fit_the_model_and_the_images(source):
    x = train_pix2pix.source_of(sprites(), np.arange(3), source)
    assert x.shape == (3, train_pix2pix.CHANNELS[source], 32, 32)
    assert x.min() >= 0
    assert x.max() <= 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": "palette"}, "source is 'palette', and model.source_channels is 1; give 3"),
        (
            {"source": "palette", "data": "digits", "model": Pix2PixConfig()},
            "'palette' of digits; give --data sprites",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(train_pix2pix.PRESETS["smoke"], **change)


TINY = {
    "pix2pix": lambda: train_pix2pix.PRESETS["smoke"].model.build(),
    "cyclegan": lambda: train_cyclegan.PRESETS["smoke"].model.build(),
}


@pytest.mark.parametrize(
    "kind",
    # Every night that of colours too, of which scores of pairings are tested above.
    ["pix2pix", pytest.param("cyclegan", marks=pytest.mark.nightly)],
)
def test_exploring(kind, tmp_path):
    TINY[kind]().save_pretrained(tmp_path / "model")
    data = "sprites" if kind == "pix2pix" else "palettes"
    args = replace(
        explore.PRESETS["smoke"], folder=tmp_path / "model", pictures=tmp_path / "explore",
        data=data,
    )  # fmt: skip
    folder = explore.main(args)
    found = json.loads((folder / "explore.json").read_text())
    assert all(np.isfinite(value) for value in found.values())
    pictures = {path.stem: np.asarray(Image.open(path)) for path in folder.glob("*.png")}
    names = {"translations", "patches"}
    assert set(pictures) == (names if kind == "pix2pix" else names | {"colours"})
    height, width, _ = pictures["patches"].shape
    assert height == 4 * 66 - 2
    assert width > 3 * 66 - 2  # with what the rows are
