"""What the commands around classifiers do, beyond the smoke presets of the shared tests."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from generative.classifier import (
    Classifier,
    CNNClassifierConfig,
    MLPClassifierConfig,
)
from generative.known.sprites import sprites
from scripts import explore, train_classifier
from scripts.explored.classifier import HORIZONTAL, Settings, convolve

torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("patch", "response"),
    [
        (((0.6, 0.4, 0.6), (0.1, -0.2, -0.3), (-0.5, -0.4, -0.3)), 2.8),
        (((-0.7, 0.6, 0.2), (0.1, 0.5, -0.3), (-0.3, -0.4, 0.5)), 0.3),  # the book says -0.1
    ],
)
def test_a_convolution_by_hand(patch, response):
    x = torch.tensor(patch)[None, None]
    assert float(convolve(x, HORIZONTAL)[0, 0, 1, 1]) == pytest.approx(response, abs=1e-6)


def test_convolution_by_hand_is_torchs():
    x = torch.rand(2, 1, 7, 5)
    expected = torch.nn.functional.conv2d(x, torch.tensor(HORIZONTAL)[None, None], padding=1)
    torch.testing.assert_close(convolve(x, HORIZONTAL), expected)


def test_exploring(tmp_path):
    config = CNNClassifierConfig(num_classes=4, channels=(4,), kernels=(3,), strides=(4,))
    model = config.build().eval()
    model.save_pretrained(tmp_path / "model")
    args = explore.Args(
        tmp_path / "model", tmp_path / "pictures", "sprites", classifier=Settings("shape", 4)
    )
    explore.main(args)
    found = {path.stem: Image.open(path) for path in (tmp_path / "pictures").glob("*.png")}
    assert set(found) == {"gallery", "confusion", "edges", "filters"}
    result = json.loads((tmp_path / "pictures" / "explore.json").read_text())
    test = sprites().part("test")
    with torch.no_grad():
        losses = model.loss(test.as_tensor(), torch.from_numpy(test.factors[:, 0]))
    assert result["accuracy"] == pytest.approx(float(losses.accuracy))
    assert result["loss"] == pytest.approx(float(losses.loss), rel=1e-5)


def test_exploring_an_mlp(tmp_path):
    MLPClassifierConfig(num_classes=6, hidden_dims=(9,)).build().save_pretrained(tmp_path / "model")
    args = explore.Args(
        tmp_path / "model", tmp_path / "pictures", "sprites", classifier=Settings(("colour",), 4)
    )
    explore.main(args)
    filters = np.asarray(Image.open(tmp_path / "pictures" / "filters.png"))
    assert filters.shape == (3 * 32 + 4, 3 * 32 + 4, 3)  # nine of them


def test_batches_double_and_keep_images_with_their_labels(tmp_path, monkeypatch):
    from generative import classifier

    seen = []

    class Watching(classifier.ClassifierLearner):
        def update(self, batch):
            seen.append(batch)
            return super().update(batch)

    monkeypatch.setattr(classifier, "ClassifierLearner", Watching)
    args = replace(
        train_classifier.PRESETS["smoke"], out=tmp_path / "run", steps=6, batch_size=4, doublings=2
    )
    train_classifier.main(args)
    assert [len(x) for x, _ in seen] == [4, 4, 8, 8, 16, 16]
    known = sprites()
    table = {image.tobytes(): int(row[0]) for image, row in
             zip(known.images, known.factors, strict=True)}  # fmt: skip
    x, labels = seen[-1]
    pixels = x.mul(255).round().byte().movedim(1, -1).numpy()
    assert [table[image.tobytes()] for image in pixels] == labels.tolist()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"factor": ("class",)}, "no label 'class'; these images have shape, colour"),
        ({"factor": ("x",)}, "x has 8 values and the model 4 classes; give --cnn.num-classes 8"),
        (
            {"factor": ("shape", "size")},
            "shape and size has 12 values and the model 4 classes; give --cnn.num-classes 12",
        ),
    ],
)
def test_factors_that_do_not_fit_are_explained(tmp_path, changes, message):
    args = replace(train_classifier.PRESETS["smoke"], out=tmp_path / "run", **changes)
    with pytest.raises(ValueError, match=message):
        train_classifier.main(args)


def test_a_vision_transformer_is_chosen_by_preset(tmp_path):
    smoke = train_classifier.PRESETS["smoke-vit"]
    args = replace(smoke, out=tmp_path / "run", steps=4, log_every=2, picture_every=4)
    model = Classifier.from_pretrained(train_classifier.main(args))
    assert model.config == args.vit
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert 0 <= result["test_accuracy"] <= 1
    for name in ("digits-vit", "fashion-vit"):
        chosen = train_classifier.PRESETS[name]
        assert chosen.network == "vit"
        assert chosen.vit.image_shape[0] == 1
        chosen.vit.build()
    folder = explore.main(
        replace(explore.PRESETS["smoke"], folder=tmp_path / "run", pictures=tmp_path / "explore")
    )
    assert list(folder.glob("*.png"))
