"""Bits per number of a set of images."""

import numpy as np
import pytest
import torch

from generative.data.image_set import ImageSet
from generative.pixelcnn import GatedConfig, PixelCNNConfig, bits_per_dim

torch.set_num_threads(1)


def test_bits_are_over_all_images():
    """In pieces of 100, the last of which is smaller."""
    torch.manual_seed(0)
    model = PixelCNNConfig((1, 8, 8), 4, 2, GatedConfig(hidden_dim=8, num_layers=2)).build().eval()
    pixels = np.random.default_rng(0).integers(4, size=(130, 8, 8, 1), dtype=np.uint8)
    images = ImageSet(pixels, np.zeros((130, 1), np.int64), np.zeros(130, np.uint8), levels=4)
    with torch.no_grad():
        nats = -model.log_prob(images.as_tensor()).double()
    expected = nats / np.log(2) / 64
    assert bits_per_dim(model, images) == pytest.approx(float(expected.mean()), rel=1e-5)
    some = float(expected[[0, 43, 86]].mean())
    assert bits_per_dim(model, images, most=3) == pytest.approx(some, rel=1e-5)
