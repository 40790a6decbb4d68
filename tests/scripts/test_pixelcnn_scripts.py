"""The scripts of the PixelCNNs, beyond the smoke preset of training."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from generative.pixelcnn import GatedNet, PixelCNN
from generative.pixelcnn.config import (
    GatedConfig,
    PixelCNNConfig,
    PlainConfig,
    PlusPlusConfig,
    RecurrentConfig,
)
from generative.training.sizes import SizesAlone
from scripts import explore, train_pixelcnn
from scripts.certified.pixelcnn import largest_leak
from scripts.explored import pixelcnn

torch.set_num_threads(1)


def tiny(network) -> PixelCNN:
    torch.manual_seed(0)
    return PixelCNNConfig((1, 8, 8), 4, 2, network).build().eval()


def test_pixelrnn_has_presets_of_its_own(tmp_path):
    """12 layers for CIFAR-10, as published; a small one runs in seconds."""
    paper, smoke = (train_pixelcnn.PRESETS[name] for name in ("rnn-paper", "smoke-rnn"))
    assert isinstance(paper.model.network, RecurrentConfig)
    assert (paper.data, paper.model.image_shape, paper.model.levels) == (
        "cifar-10",
        (3, 32, 32),
        256,
    )
    assert (paper.model.network.num_recurrent, paper.model.network.hidden_dim) == (12, 129)
    with torch.device("meta"), SizesAlone():
        paper.model.build()
    args = replace(smoke, out=tmp_path / "run", steps=2, log_every=1, picture_every=2)
    model = PixelCNN.from_pretrained(train_pixelcnn.main(args))
    assert isinstance(model.config.network, RecurrentConfig)


def test_presets_are_the_books():
    book = train_pixelcnn.PRESETS["book"]
    model = book.model.build()
    assert sum(p.numel() for p in model.parameters()) == 307_460
    assert (book.batch_size, book.loss.lr, book.steps) == (128, 5e-4, 150 * math.ceil(60_000 / 128))
    mixture = train_pixelcnn.PRESETS["book-mixture"].model.build()
    assert sum(p.numel() for p in mixture.parameters()) == 624_990


def test_every_preset_has_a_model_that_can_be_built():
    for name, args in train_pixelcnn.PRESETS.items():
        with torch.device("meta"):
            model = args.model.build()
            x, labels = torch.zeros(2, *args.model.image_shape), torch.zeros(2).long()
            shape = model.pixel_params(x, labels if model.num_classes else None).shape
        assert shape == (2, model.output.num_params, *args.model.image_shape[1:]), name


def test_explorations(tmp_path):
    model = train_pixelcnn.PRESETS["smoke"].model.build()
    model.save_pretrained(tmp_path / "model")
    out = tmp_path / "pictures"
    smoke = explore.PRESETS["smoke"]
    explore.main(replace(smoke, folder=tmp_path / "model", pictures=out, data="sprites"))
    names = {path.stem for path in out.glob("*.png")}
    assert names == {"temperatures", "completions", "surprise", "reach", "next_pixel", "mixture"}
    for path in out.glob("*.png"):
        assert np.asarray(Image.open(path)).std() > 0, path
    found = json.loads((out / "explore.json").read_text())
    assert 0 < found["independent_pixels_bits_per_dim"] < 2  # of the two bits of four levels
    assert found["test_bits_per_dim"] > 0


@pytest.mark.nightly
def test_explorations_of_classes(tmp_path):
    network = GatedConfig(hidden_dim=9, num_layers=2, num_classes=3)
    torch.manual_seed(0)
    PixelCNNConfig((3, 8, 8), 4, 2, network).build().save_pretrained(tmp_path / "model")
    args = replace(
        explore.PRESETS["smoke"],
        folder=tmp_path / "model",
        pictures=tmp_path / "pictures",
        data="sprites",
        pixelcnn=pixelcnn.Settings(max_images=200, num_samples=2, temperatures=(0.0,)),
    )
    explore.main(args)
    picture = np.asarray(Image.open(tmp_path / "pictures" / "classes.png"))
    assert picture.shape == (3 * 48 + 4, 2 * 48 + 2, 3)  # a row for each class


def test_surprise_is_where_the_image_is_unlikely():
    model = tiny(GatedConfig(hidden_dim=8, num_layers=2))
    x = torch.zeros(2, 1, 8, 8)
    seen = pixelcnn.surprise(model, x)
    expected = -model.pixel_log_probs(x).detach()
    torch.testing.assert_close(seen, expected / expected.max())


def test_reach_shows_the_blind_spot():
    """The plain network sees nothing of the upper right corner; the gated one sees all of it."""
    x = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0)).mul(3).round() / 3
    plain = pixelcnn.reach(tiny(PlainConfig(32, 2, first_kernel=3)), x)[1, 0]
    gated = pixelcnn.reach(tiny(GatedConfig(hidden_dim=32, num_layers=4)), x)[1, 0]
    assert plain[5, 7] == 0
    assert gated[:6].min() == 1
    for seen in (plain, gated):
        assert seen[6, 4] == 0.5
        assert seen[6, 5:].max() == 0
        assert seen[7].max() == 0


@pytest.mark.parametrize(
    "network",
    [
        PlainConfig(8, 2),
        GatedConfig(hidden_dim=8, num_layers=2),
        GatedConfig(hidden_dim=8, num_layers=2, num_classes=2),
        PlusPlusConfig(num_filters=4),
    ],
)
def test_leaks_are_found_where_there_are_any(network):
    model = tiny(network)
    x = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0)).mul(3).round() / 3
    assert largest_leak(model, x) == 0
    masked = [m for m in model.modules() if hasattr(m, "mask")]
    masked[0].mask.fill_(1.0)
    assert largest_leak(model, x) > 0


@pytest.mark.nightly
def test_training_on_digits_with_classes_and_some_of_them_redrawn(tmp_path):
    preset = train_pixelcnn.PRESETS["digits"]
    network = GatedConfig(hidden_dim=8, num_layers=2, num_classes=10, num_views=2)
    args = replace(
        preset, out=tmp_path / "run", model=replace(preset.model, network=network), steps=2,
        num_samples=2,
    )  # fmt: skip
    model = PixelCNN.from_pretrained(train_pixelcnn.main(args))
    assert isinstance(model.network, GatedNet)
    for table, count in ((model.network.classes, 10), (model.network.views, 2)):
        assert len(table) == count
        assert table.detach().flatten(1).any(1).all()  # each was trained
        assert not torch.equal(table[0], table[1])


@pytest.mark.parametrize("name", ["digits-book", "sprites"])
def test_redrawing_what_can_not_be_is_refused(name):
    with pytest.raises(ValueError, match="grey images and a gated network of num_views 2"):
        replace(train_pixelcnn.PRESETS[name], redraw=0.5)


def test_classes_need_a_name_and_a_network_that_has_them():
    with pytest.raises(ValueError, match="label is '' and num_classes 10"):
        replace(train_pixelcnn.PRESETS["digits"], label="")
    with pytest.raises(ValueError, match="label is 'class' and num_classes 0"):
        replace(train_pixelcnn.PRESETS["digits-book"], label="class")


def test_training_on_digits(tmp_path):
    args = replace(
        train_pixelcnn.PRESETS["digits-book"],
        out=tmp_path / "run",
        model=PixelCNNConfig((1, 8, 8), 17, 0, PlainConfig(8, 1)),
        steps=2,
        num_samples=2,
    )
    train_pixelcnn.main(args)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    # Untrained: about as much as for levels that are all equally likely.
    assert result["test_bits_per_dim"] == pytest.approx(math.log2(17), abs=0.5)
    assert (tmp_path / "run" / "images" / "samples-000002.png").exists()
