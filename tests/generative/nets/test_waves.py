"""Sines and cosines beside what a network sees."""

import math

import numpy as np
import torch

from generative.nets.waves import Waves


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
