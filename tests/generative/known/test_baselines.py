"""The simplest models of images by hand, and by closed forms."""

import math

import numpy as np
import pytest
import torch

from generative.known.baselines import bernoulli_mixture, gaussian_bits, independent_pixels

torch.set_num_threads(1)


def images(*rows: tuple[int, ...]) -> np.ndarray:
    return np.array(rows, dtype=np.uint8)[:, None, :, None]


def test_bits_of_independent_pixels_by_hand():
    """Three training images of two pixels: counts 2 + 1 of 3 + 2, and 0 + 1 of 3 + 2."""
    train, test = images((0, 1), (0, 1), (1, 1)), images((0, 0))
    expected = -(math.log2(3 / 5) + math.log2(1 / 5)) / 2
    assert independent_pixels(train, test, levels=2) == pytest.approx(expected)


def test_independent_pixels_of_many_levels_by_a_loop():
    """More images than are counted at a time, and colours as the last axis."""
    rng = np.random.default_rng(0)
    train = rng.integers(5, size=(1203, 2, 3, 2), dtype=np.uint8)
    test = rng.integers(5, size=(7, 2, 3, 2), dtype=np.uint8)
    bits = 0.0
    for level in range(5):
        share = ((train == level).sum(0) + 1) / (len(train) + 5)
        bits -= float((np.log2(share) * (test == level)).sum())
    assert independent_pixels(train, test, 5) == pytest.approx(bits / test.size, rel=1e-12)


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (images((0, 1)), images((0, 1, 1)), "of one shape"),
        (images((0, 1)), images((0, 1))[:0], "pass some"),
        (images((0, 1)), images((0, 2)), "got level 2 of 2; levels count from 0 to 1"),
    ],
)
def test_images_that_do_not_fit(train, test, message):
    with pytest.raises(ValueError, match=message):
        independent_pixels(train, test, levels=2)


def test_gaussian_of_one_pixel_is_the_closed_form():
    """Levels 0 .. 7, equally often, and noise on them: uniform in [0, 8), of variance 64 / 12."""
    x = np.tile(np.arange(8, dtype=np.uint8), 5000)[:, None]
    found = gaussian_bits(x, x, torch.Generator().manual_seed(0))
    assert found == pytest.approx(math.log2(2 * math.pi * math.e * 64 / 12) / 2, abs=2e-3)


def test_one_bernoulli_is_independent_pixels():
    """Each with half a pixel of either kind more: here as many black as white ones."""
    x = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    assert bernoulli_mixture(x, x, 1, seed=0) == pytest.approx(-2 * math.log(2))


def test_two_bernoullis_tell_two_kinds_of_images_apart():
    x = torch.tensor([[0.0] * 8, [1.0] * 8]).repeat(500, 1)
    found = bernoulli_mixture(x, x, 2, seed=1)
    assert found == pytest.approx(-math.log(2) + 8 * math.log(500.5 / 501), abs=1e-3)
