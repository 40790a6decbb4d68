"""Sines and cosines beside what a network sees."""

import math

import numpy as np
import pytest
import torch

from generative.nets.embeddings import Waves, sine_positions, sinusoidal_embedding


def test_waves_by_their_formula():
    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    found = Waves(math.pi / 4, 3)(x).numpy()
    for row, values in zip(x.tolist(), found, strict=True):
        phases = [math.pi / 4 * 2**k * value for value in row for k in range(3)]
        expected = [*row, *map(math.sin, phases), *map(math.cos, phases)]
        np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)


def test_a_blur_fades_waves_as_their_mean_over_it():
    """E sin(w (x + blur eps)), by Gauss-Hermite quadrature."""
    x, blur = torch.tensor([[0.3], [0.3]]), torch.tensor([0.0, 0.4])
    found = Waves(1.0, 2)(x, blur).numpy()
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    weights = weights / weights.sum()
    for values, std in zip(found, blur.tolist(), strict=True):
        at = 0.3 + std * nodes
        expected = [weights @ f(w * at) for f in (np.sin, np.cos) for w in (1.0, 2.0)]
        np.testing.assert_allclose(values, [0.3, *expected], rtol=1e-5)


def test_no_waves_leave_the_input_as_it_is():
    x = torch.randn(3, 2)
    assert Waves(1.0, 0)(x) is x


def test_frequencies_are_no_weights():
    waves = Waves(1.0, 4)
    assert not waves.state_dict()
    assert waves.double().frequencies.dtype == torch.float64


def test_embedding_by_a_loop():
    x = torch.tensor([0.0, 0.25, 0.9])
    found = sinusoidal_embedding(x)
    assert found.shape == (3, 32)
    ratio = math.log(1000) / 15
    for row, value in zip(found, x.tolist(), strict=True):
        for i in range(16):
            angle = 2 * math.pi * math.exp(i * ratio) * value
            assert float(row[i]) == pytest.approx(math.sin(angle), abs=2e-3)
            assert float(row[16 + i]) == pytest.approx(math.cos(angle), abs=2e-3)
    assert math.exp(ratio) == pytest.approx(1.58489, abs=1e-5)


def test_sine_positions_by_their_formula():
    found = sine_positions(60, 7)
    for position, channel in ((0, 0), (3, 1), (59, 4), (17, 6)):
        angle = position / 10_000 ** (2 * (channel // 2) / 7)
        expected = math.cos(angle) if channel % 2 else math.sin(angle)
        assert found[position, channel] == pytest.approx(expected, abs=1e-5)


def test_derivatives_along_directions_are_autograds():
    waves = Waves(math.pi / 4, 3).double()
    x = torch.randn(4, 2, dtype=torch.float64)
    directions = torch.randn(3, 4, 2, dtype=torch.float64)
    found, slopes = waves.along(x, directions)
    assert torch.equal(found, waves(x))
    for direction, slope in zip(directions, slopes, strict=True):
        _, expected = torch.func.jvp(waves, (x,), (direction,))
        torch.testing.assert_close(slope, expected)
