"""Exploring an autoencoder: the pictures, and the errors beside closed forms."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from generative.autoencoder import Autoencoder, ConvAutoencoderConfig, principal_components
from generative.known.sprites import sprites
from scripts import explore
from scripts.explored.autoencoder import components

torch.set_num_threads(1)


def save_tiny(folder, latent_dim: int) -> Autoencoder:
    model = ConvAutoencoderConfig((3, 32, 32), latent_dim, channels=(4, 4)).build().eval()
    model.save_pretrained(folder)
    return model


def test_exploring(tmp_path):
    model = save_tiny(tmp_path / "model", 2)
    args = replace(
        explore.PRESETS["smoke"],
        folder=tmp_path / "model", pictures=tmp_path / "pictures", data="sprites",
    )  # fmt: skip
    explore.main(args)
    found = {path.stem for path in (tmp_path / "pictures").glob("*.png")}
    assert found == {
        "reconstructions", "pca", "denoising", "uniform", "decoded-plane", "plane",
        "plane-over-images",
    }  # fmt: skip
    result = json.loads((tmp_path / "pictures" / "explore.json").read_text())
    images = sprites().thin(200)
    x, seen = images.part("test").as_tensor(), images.part("train", "val").as_tensor()
    with torch.no_grad():
        assert result["mse"] == pytest.approx(float((model.reconstruct(x) - x).square().mean()))
        codes = model.encode(x)
    assert result["mean_image_mse"] == pytest.approx(float((seen.mean(0) - x).square().mean()))
    assert result["code_high"] == pytest.approx(codes.amax(0).tolist(), rel=1e-5)
    # Clipping takes away some of the noise's variance of 0.09: all but a fifth of it at black.
    assert 0.03 < result["noisy_mse"] < 0.09
    assert 0 < result["pca_mse"] < result["mean_image_mse"]


def test_more_than_two_numbers_have_no_plane(tmp_path):
    save_tiny(tmp_path / "model", 3)
    args = replace(
        explore.PRESETS["smoke"],
        folder=tmp_path / "model",
        pictures=tmp_path / "pictures",
        data="sprites",
    )
    explore.main(args)
    names = {path.stem for path in (tmp_path / "pictures").glob("*.png")}
    assert names == {"reconstructions", "pca", "denoising", "uniform"}
    strip = np.asarray(Image.open(tmp_path / "pictures" / "uniform.png"))
    assert strip.shape == (64, 9 * 64 + 8 * 2, 3)


def test_components_of_the_images_they_were_fitted_to():
    """Of the same images the error is what principal_components says, the least there is."""
    images = sprites().thin(150)
    train = images.part("train")
    _, _, least = principal_components(train.as_tensor().flatten(1), 4)
    projected, error = components(images, train, 4)
    assert projected.shape == (len(train), 3, 32, 32)
    # The validation images take part in the fit, so it is nearly but not quite the least.
    assert least <= error < 1.2 * least
