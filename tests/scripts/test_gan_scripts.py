"""The commands of the GANs, beyond what their smoke presets do."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from generative.classifier import Classifier
from generative.gan import GAN
from generative.gan.config import (
    ConditionalGANConfig,
    GANConfig,
    GANLossConfig,
    ProjectedCriticConfig,
    WGANConfig,
)
from generative.known.sprites import sprites
from generative.training.metrics import read_metrics
from generative.training.run import read_result
from scripts import explore, train_classifier, train_conditional_gan, train_gan, train_wgan
from scripts.certified.gan import colours_shown
from scripts.common.images import classes_of
from scripts.explored import gan as explored
from scripts.train_classifier import FeatureArgs
from scripts.train_gan import rows_and_columns

torch.set_num_threads(1)

IMAGES = ((3, 32, 32), 4, (4, 4, 4))
TINY = {
    "gan": lambda: GANConfig(*IMAGES).build(),
    "wgan": lambda: WGANConfig(*IMAGES).build(),
    "conditional": lambda: ConditionalGANConfig(*IMAGES, num_classes=6).build(),
}


@pytest.mark.parametrize("kind", TINY)
def test_exploring(kind, tmp_path):
    TINY[kind]().save_pretrained(tmp_path / "model")
    args = replace(
        explore.PRESETS["smoke"], folder=tmp_path / "model", pictures=tmp_path / "explore",
        data="sprites", gan=explored.Settings(("colour",), max_images=200, num_samples=16),
    )  # fmt: skip
    folder = explore.main(args)
    found = json.loads((folder / "explore.json").read_text())
    assert 0 < found["nearest_training_image"] < 1
    assert 0 <= found["precision"] <= 1
    assert all(np.isfinite(value) for value in found.values())
    pictures = {path.stem: np.asarray(Image.open(path)) for path in folder.glob("*.png")}
    names = {"samples", "interpolation", "nearest", "heights"}
    assert set(pictures) == (names | {"classes"} if kind == "conditional" else names)
    assert pictures["samples"].shape == pictures["interpolation"].shape == (658, 658, 3)
    assert pictures["nearest"].shape == (130, 658, 3)
    if kind == "conditional":
        assert pictures["classes"].shape == (6 * 66 - 2, 658, 3)


def test_interpolation_begins_and_ends_at_its_points():
    gan = TINY["gan"]().eval()
    z = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        way = explored.between(gan, z, num=3)
        assert way.shape == (6, 3, 32, 32)
        torch.testing.assert_close(way[[0, 2, 3, 5]], gan.generate(z), rtol=1e-4, atol=1e-5)
        angle = torch.nn.functional.cosine_similarity(z[0], z[1], dim=0).acos()
        middle = (z[0] + z[1]) * (angle / 2).sin() / angle.sin()
        torch.testing.assert_close(way[1], gan.generate(middle[None])[0], rtol=1e-4, atol=1e-5)


def test_switching_the_label_keeps_the_noise():
    gan = TINY["conditional"]().eval()
    z = torch.randn(3, 4)
    with torch.no_grad():
        rows = explored.class_switch(gan, z).unflatten(0, (6, 3))
        expected = gan.generate(z, torch.full((3,), 4))
    torch.testing.assert_close(rows[4], expected)


@pytest.mark.parametrize("script", [train_gan, train_wgan])
def test_grid_of_gaussians(script, tmp_path):
    args = replace(script.PRESETS["grid-25"], out=tmp_path / "run", steps=3, batch_size=16)
    script.main(args)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert 0 <= result["modes"] <= 25
    assert 0 <= result["share_at_modes"] <= 1
    picture = np.asarray(Image.open(tmp_path / "run" / "images" / "samples-000003.png"))
    assert picture.shape == (200, 402, 3)  # data and samples


def test_the_curves_of_sprites_are_those_of_the_samples(tmp_path):
    args = replace(train_conditional_gan.PRESETS["smoke"], out=tmp_path / "run", picture_every=5)
    gan = GAN.from_pretrained(train_conditional_gan.main(args))
    lines = [line for line in read_metrics(tmp_path / "run") if "reached" in line]
    assert [line["step"] for line in lines] == [5, 10]
    samples = gan.sample(1000, torch.Generator().manual_seed(0)).mul(255).round().flatten(1)
    known = sprites().as_tensor().mul(255).flatten(1)
    distance, index = torch.cdist(samples.double(), known.double()).min(1)
    assert lines[-1]["reached"] == pytest.approx(len(index.unique()) / 4608)
    assert lines[-1]["valid"] == (distance**2 / 3072 <= 39).double().mean()
    assert read_result(tmp_path / "run")["reached"] == lines[-1]["reached"]


@pytest.mark.nightly
def test_two_kinds_of_losses_train_a_conditional_gan(tmp_path):
    args = replace(
        train_conditional_gan.PRESETS["smoke"],
        out=tmp_path / "run",
        loss=GANLossConfig(objective="hinge", r1=0.1),
        label=("shape",),
        model=ConditionalGANConfig(*IMAGES, dropout=0.0, num_classes=4),
        steps=2,
    )
    gan = GAN.from_pretrained(train_conditional_gan.main(args))
    assert gan.config.num_classes == 4
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert {"c_loss", "label_accuracy", "precision"} <= set(result)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": ("hair",)}, "no label 'hair'; these images have shape, colour"),
        ({"label": ("x",)}, "x has 8 values and the model 6 classes; give --model.num-classes 8"),
    ],
)
def test_labels_that_do_not_fit(change, message, tmp_path):
    args = replace(train_conditional_gan.PRESETS["smoke"], out=tmp_path / "run", **change)
    with pytest.raises(ValueError, match=message):
        train_conditional_gan.main(args)


def test_a_projected_critic_sees_by_the_classifier_of_its_run(tmp_path):
    smoke = train_conditional_gan.PRESETS["smoke"]
    classifier = train_classifier.PRESETS["smoke"]
    args = replace(
        smoke, out=tmp_path / "run", steps=3, log_every=1, picture_every=3,
        model=replace(smoke.model, projected=ProjectedCriticConfig(classifier.cnn, 4, 4)),
        features=FeatureArgs(("shape",), steps=2, batch_size=4),
        loss=replace(train_conditional_gan.PROJECTED, ema=0.5),
    )  # fmt: skip
    gan = GAN.from_pretrained(train_conditional_gan.main(args))
    trained = Classifier.from_pretrained(tmp_path / "run" / "classifier" / "model")
    found = gan.critic.network.state_dict()
    for name, value in trained.state_dict().items():
        assert torch.equal(found[name], value), name
    again = replace(args, features=FeatureArgs(("colour",), steps=2), out=tmp_path / "colours")
    with pytest.raises(ValueError, match=r"6 values .* give --model.projected.features.num"):
        train_conditional_gan.main(again)


def test_each_combination_of_labels_is_a_class():
    everything = sprites()
    classes = classes_of(everything, ("shape", "colour"), 24)
    shape, colour = everything.factors[:, :2].T
    np.testing.assert_array_equal(classes, 6 * shape + colour)


def test_colour_that_a_sprite_shows_whatever_its_shape():
    everything = sprites()
    rows = np.arange(0, len(everything), 7)
    images, colour = everything.images[rows] / np.float32(255), everything.factors[rows, 1]
    np.testing.assert_array_equal(colours_shown(images), colour)
    np.testing.assert_array_equal(colours_shown(0.8 * images), colour)
    dots = np.zeros((2, 32, 32, 3), dtype=np.float32)
    dots[1, 4, 5:7] = np.array([240, 210, 60], dtype=np.float32) / 255  # yellow, far too small
    np.testing.assert_array_equal(colours_shown(dots), [-1, 3])


def test_points_do_not_fit_images(tmp_path):
    args = replace(
        train_gan.PRESETS["smoke"], out=tmp_path / "run", model=train_gan.PRESETS["grid-25"].model
    )
    with pytest.raises(ValueError, match="data are sprites; give --data two-moons or"):
        train_gan.main(args)
    args.model.build().save_pretrained(tmp_path / "model")
    explore.main(explore.Args(tmp_path / "model", tmp_path / "pictures"))
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == ["samples.png"]
    with pytest.raises(ValueError, match="num_samples is 1"):
        explored.Settings(num_samples=1)


@pytest.mark.parametrize(
    ("num_classes", "expected"),
    [(2, (32, 2)), (6, (10, 6)), (10, (6, 10)), (18, (4, 18)), (24, (4, 12)), (72, (4, 18)),
     (103, (6, 18))],
)  # fmt: skip
def test_grids_show_each_class(num_classes, expected):
    """Classes in turn: few have a column each, and one of many stays in its column if it can."""
    rows, columns = rows_and_columns(num_classes)
    assert (rows, columns) == expected
    shown = np.arange(rows * columns) % num_classes
    assert set(shown) == set(range(num_classes))
    if num_classes % columns == 0:
        for column in shown.reshape(rows, columns).T:
            assert len(set(column)) == num_classes // columns
