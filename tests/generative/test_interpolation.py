"""Arcs from one noise to another."""

import math

import torch

from generative.interpolation import slerp


def test_slerp_by_the_book_keeps_the_variance():
    a, b = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    u = torch.linspace(0, 1, 11)
    between = slerp(a, b, u, math.pi / 2)
    assert between.shape == (11, 3, 64, 64)
    for i in (0, 3, 10):
        expected = b * math.sin(math.pi / 2 * u[i]) + a * math.cos(math.pi / 2 * u[i])
        torch.testing.assert_close(between[i], expected)
    assert float((between.std((1, 2, 3)) - 1).abs().max()) < 0.02


def test_slerp_goes_along_the_circle():
    a, b = torch.tensor([1.0, 0.0]), torch.tensor([math.cos(2.0), math.sin(2.0)])
    u = torch.tensor([0.0, 0.25, 1.0])
    expected = torch.stack([(2 * u).cos(), (2 * u).sin()], 1)
    torch.testing.assert_close(slerp(a, b, u), expected)
    torch.testing.assert_close(slerp(a, a, u), a.expand(3, 2))
