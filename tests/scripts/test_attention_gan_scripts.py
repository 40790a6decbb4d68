"""The commands of GANs with attention, beyond what their smoke preset does."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import tyro
from matplotlib import colormaps
from PIL import Image
from torch import nn

from generative.attention_gan import AttentionGAN, AttentionGANConfig
from generative.attention_gan.config import SAGAN_LOSS
from generative.known.scenes import agreement, read
from generative.training.metrics import Metrics
from scripts import explore, train_attention_gan
from scripts.common.images import load_images
from scripts.explored import attention_gan as explored

torch.set_num_threads(1)

TINY = AttentionGANConfig(
    (3, 32, 32), 24, 8, (4, 8, 8), attention_side=16, shared_dim=4, split_z=True
)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("config", "pictures"),
    [
        (TINY, {"samples", "classes", "attention", "truncation"}),
        pytest.param(
            AttentionGANConfig((3, 32, 32), 0, 4, (4, 8), attention="none"),
            {"samples", "truncation"},
            marks=pytest.mark.nightly,  # draws less of the same
        ),
    ],
)
def test_exploring(config, pictures, tmp_path):
    config.build().save_pretrained(tmp_path / "model")
    args = replace(
        explore.PRESETS["smoke"],
        folder=tmp_path / "model",
        pictures=tmp_path / "explore",
        data="sprites",
        attention_gan=explored.Settings(truncations=(0.5,), num_samples=48, looks=2),
    )
    folder = explore.main(args)
    found = json.loads((folder / "explore.json").read_text())
    kinds = ("diversity", "precision", "recall")
    assert set(found) == {f"{kind}_{bound}" for kind in kinds for bound in ("whole", "0.5")}
    assert all(0 <= value <= 1 for value in found.values())
    drawn = {path.stem: np.asarray(Image.open(path)).shape for path in folder.glob("*.png")}
    assert set(drawn) == pictures
    columns = config.num_classes or 12
    assert drawn["samples"] == (8 * 66 - 2, columns * 66 - 2, 3)
    assert drawn["truncation"][0] == 2 * 66 - 2
    assert drawn["truncation"][1] > columns * 66 - 2  # with labels
    if "attention" in pictures:
        assert drawn["attention"] == (2 * (192 + 21 + 2) - 2, 4 * 194 - 2, 3)
        assert drawn["classes"][0] == 6 * 66 - 2
        assert drawn["classes"][1] > 10 * 66 - 2


FRAME = [51, 255, 230]


def panels_of(picture: np.ndarray, columns: int) -> list[list[np.ndarray]]:
    """Panels of 192 pixels below their titles, row by row."""
    return [
        [picture[top + 21 : top + 213, left : left + 192] for left in range(0, 194 * columns, 194)]
        for top in range(0, len(picture), 215)
    ]


def test_looks_show_where_a_place_looks():
    """With keys that tell bright places, all places look at the bright square."""
    torch.manual_seed(0)
    gan = AttentionGANConfig((3, 16, 16), 0, 4, (8, 16), attention_side=8).build().eval()
    maps = torch.zeros(1, 8, 8, 4, 4)
    maps[..., 0, 3] = 1  # the quarter at the top right
    image = torch.zeros(1, 3, 16, 16)
    image[:, :, 2:4, 12:14] = 1.0
    image[:, :, 12, 2] = 0.5
    gan.look = lambda z: (image, maps)
    (panels,) = panels_of(explored.looks(gan, torch.zeros(1, 4), ()), 4)
    places = ((1, 6), (6, 1), (0, 0))
    assert all(panels[0][24 * row, 24 * column].tolist() == FRAME for row, column in places)
    for panel, (row, column) in zip(panels[1:], places, strict=True):
        assert panel[24 * row, 24 * column].tolist() == FRAME
        assert panel[10, 160].min() > 150  # the black ground where all look
        assert panel[100, 100].max() < 10  # that where none looks
    assert panels[1][150, 30].min() > 70  # the point,
    assert np.ptp(panels[1][150, 30].astype(int)) <= 1  # in grey
    (panels,) = panels_of(explored.looks(gan, torch.zeros(1, 4), (), ((7, 0), (2, 5))), 3)
    for row, column in ((7, 0), (2, 5)):
        assert panels[0][24 * row, 24 * column].tolist() == FRAME
    assert panels[1][24 * 7, 0].tolist() == panels[2][24 * 2, 24 * 5].tolist() == FRAME
    assert panels[1][24 * 2, 24 * 5].tolist() != FRAME


def test_heat_is_matplotlibs_magma_over_grey():
    weights = torch.tensor([[0.0, 0.2], [0.4, 0.1]])
    image = torch.rand(3, 4, 4, generator=generator(0))
    seen = explored.heat(image, weights)
    grey = image[:, 1, 2].max()
    for (row, column), share in (((0, 1), 0.5), ((1, 0), 1.0), ((0, 0), 0.0)):
        colour = torch.tensor(colormaps["magma"](share)[:3])
        part = 0.4 + 0.5 * share
        grey = image[:, 2 * row, 2 * column].max()
        expected = (1 - part) * grey + part * colour
        torch.testing.assert_close(seen[:, 2 * row, 2 * column], expected.float())


@pytest.mark.parametrize(
    ("attention", "message"),
    [
        ("pooled", r"row 3, column 16; this generator's attention has rows 0 to 15 and columns 0"),
        ("none", r"places are given, and this generator has no attention; leave them out"),
    ],
)
def test_places_that_are_not_there_are_refused_at_once(attention, message, tmp_path):
    replace(TINY, attention=attention).build().save_pretrained(tmp_path / "model")
    args = replace(
        explore.PRESETS["smoke"],
        folder=tmp_path / "model",
        pictures=tmp_path / "explore",
        data="sprites",
        attention_gan=explored.Settings(places=((0, 15), (3, 16))),
    )
    with pytest.raises(ValueError, match=message):
        explore.main(args)
    assert not (tmp_path / "explore").exists()


def test_places_are_pairs_on_the_command_line():
    args = tyro.cli(explore.Args, args=["runs/sagan", "--attention-gan.places", "3", "5", "9", "2"])
    assert args.attention_gan.places == ((3, 5), (9, 2))


def test_ways_between_classes_begin_and_end_at_them():
    gan = TINY.build().eval()
    z = torch.randn(2, 8, generator=generator(0))
    with torch.no_grad():
        way = explored.class_ways(gan, z, num=3)
        expected = gan.generate(z[[0, 0, 1, 1]], torch.tensor([0, 12, 12, 0]))
    torch.testing.assert_close(way[[0, 2, 3, 5]], expected)


def test_diversity_by_a_loop():
    samples = torch.rand(13, 1, 2, 2, generator=generator(0))  # classes 0, 1, 2 in turn
    pairs = [(0, 3), (1, 4), (2, 5), (6, 9), (7, 10), (8, 11)]
    expected = np.mean([float((samples[a] - samples[b]).abs().mean()) for a, b in pairs])
    assert explored.diversity(samples, 3) == pytest.approx(expected)


def test_equal_objects_are_labelled_by_what_they_hold(tmp_path):
    images = load_images("equal-objects", tmp_path, (3, 24, 24))
    assert len(images) == 24 * (36 + 84 + 126)
    assert images.factor_names == ("count", "shape", "colour")
    rows = np.arange(0, len(images), 61)
    cells = read(images.as_tensor(rows)).cells
    count, shape, colour = images.factors[rows].T
    assert ((cells != 24).sum(1).numpy() == count + 2).all()
    assert (cells.amin(1).numpy() == 6 * shape + colour).all()
    found = agreement(images.as_tensor(rows), torch.from_numpy(count + 2))
    assert found == (1, 1, 1, 1)
    assert len(images.part("test")) == len(images) // 10


def test_scenes_and_letters_are_what_their_cells_say(tmp_path):
    """Every third one has letters, all of them, in about a quarter of its cells."""
    images = load_images("scenes-and-letters", tmp_path, (3, 24, 24))
    rows = np.arange(0, len(images), 101)
    cells = read(images.as_tensor(rows), letters=True).cells
    assert (cells.numpy() == images.factors[rows]).all()
    letters = images.factors[2::3]
    objects = np.delete(images.factors, np.s_[2::3], axis=0)
    assert len(objects) == 2 * len(letters) == 20_736
    assert ((objects != 24).sum(1) == 2).all()
    assert set(np.unique(letters)) == {24, *range(25, 51)}
    assert np.mean(letters == 24) == pytest.approx(0.75, abs=0.01)


def test_counts_that_were_asked_for_reach_the_scenes(tmp_path):
    """A model that draws so many objects as its class says agrees, and its images in any order."""
    scenes = load_images("equal-objects", tmp_path, (3, 24, 24))
    of_count = [np.flatnonzero(scenes.factors[:, 0] == c)[0] for c in range(3)]

    class Perfect(nn.Module):
        num_classes = 3

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(()))

        def sample(self, n, generator):
            return scenes.as_tensor(np.array([of_count[i % 3] for i in range(n)]))

    assert train_attention_gan.objects_of(Perfect(), 600, seed=0) == (1, 1, 1, 1)


def test_model_without_classes_needs_no_label(tmp_path):
    args = replace(
        train_attention_gan.PRESETS["smoke"],
        out=tmp_path / "run",
        model=AttentionGANConfig((3, 24, 24), 0, 4, (4, 4), attention_side=12),
        data="equal-objects",
        steps=2,
    )
    gan = AttentionGAN.from_pretrained(train_attention_gan.main(args))
    assert gan.sample(2).shape == (2, 3, 24, 24)
    assert "colours" not in json.loads((tmp_path / "run" / "result.json").read_text())


def test_smoke_presets_are_of_both_models(tmp_path):
    """BigGAN's noise goes to all blocks; SAGAN's to the first layer, and classes to each norm."""
    biggan, sagan = (train_attention_gan.PRESETS[name] for name in ("smoke", "smoke-sagan"))
    assert biggan.model.split_z
    assert biggan.model.shared_dim
    assert not sagan.model.split_z
    assert not sagan.model.shared_dim
    assert sagan.loss == SAGAN_LOSS
    args = replace(sagan, out=tmp_path / "run", steps=2, log_every=1, picture_every=2)
    gan = AttentionGAN.from_pretrained(train_attention_gan.main(args))
    assert gan.sample(2, labels=1).shape == (2, 3, 32, 32)


def test_scenes_are_scored_by_their_objects(tmp_path):
    args = replace(train_attention_gan.PRESETS["objects"], out=tmp_path / "run", steps=1)
    train_attention_gan.main(replace(args, batch_size=4))
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert {"colours", "shapes", "count", "valid"} <= set(result)


@pytest.mark.parametrize(
    ("spreads", "stops"),
    [([0.5, *[0.01] * 5], True), ([0.5, *[0.01] * 4], False), ([0.01] * 9, False)],
)
def test_collapse_stops_the_run_with_step_and_seed(spreads, stops, tmp_path):
    class Run:
        path, config = tmp_path, train_attention_gan.PRESETS["smoke"]

    metrics = Metrics(tmp_path, tensorboard=False)
    for i, spread in enumerate(spreads):
        metrics.log(100 * (i + 1), {"spread": spread})
    if not stops:
        return train_attention_gan.stop_if_collapsed(Run())
    with pytest.raises(RuntimeError, match=r"collapsed: since step 200 \(seed 1\).*0\.01.*--loss"):
        train_attention_gan.stop_if_collapsed(Run())
