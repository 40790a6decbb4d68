"""Runge-Kutta steps against closed forms."""

import itertools
import math

import pytest
import torch

from generative.solvers import equal_steps, rk4, shifted_steps


def test_runge_kutta_has_order_four():
    """dz/dt = z cos t has z exp(sin t); halving the step divides the error by 16."""

    def velocity(t, z):
        return z * math.cos(t), z.square()

    z0 = torch.tensor([[0.7], [-1.3]], dtype=torch.float64)
    exact = z0 * math.exp(math.sin(2.0))
    # The integral of exp(2 sin t), by a fine sum.
    times = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 100_000
    integral = z0.square() * (2 * times.sin()).exp().mean() * 2
    errors = []
    for steps in (8, 16, 32):
        z, total = rk4(velocity, z0, equal_steps(0.0, 2.0, steps))
        errors.append([(z - exact).abs().max(), (total - integral).abs().max()])
    for coarse, fine in itertools.pairwise(errors):
        assert 12 < coarse[0] / fine[0] < 20
        assert 11 < coarse[1] / fine[1] < 22


def test_runge_kutta_step_by_hand():
    """One step for dz/dt = z is the exponential series up to the fourth power."""
    z, total = rk4(lambda t, z: (z, torch.full_like(z, t)), torch.ones(1, 1), (0.0, 1.0))
    assert z.item() == pytest.approx(1 + 1 + 1 / 2 + 1 / 6 + 1 / 24)
    assert total.item() == pytest.approx(0.5)


def test_random_shifts_leave_the_mean_of_an_integral_exact():
    """Of 20 sin^2(20 t) + t, far too fast for 4 equal steps, over shifts of all sizes."""

    def velocity(t, z):
        return torch.zeros_like(z), torch.full_like(z, 20 * math.sin(20 * t) ** 2 + t)

    exact = 10 - math.sin(40) / 4 + 0.5
    z = torch.zeros(1, 1, dtype=torch.float64)
    equal = float(rk4(velocity, z, equal_steps(1.0, 0.0, 4))[1])
    shifted = [
        float(rk4(velocity, z, shifted_steps(1.0, 0.0, 4, (i + 0.5) / 200))[1]) for i in range(200)
    ]
    assert abs(sum(shifted) / 200 + exact) < 0.3 * abs(equal + exact)
    times = shifted_steps(1.0, 0.0, 4, 0.3)
    assert times == pytest.approx([1.0, 0.925, 0.675, 0.425, 0.175, 0.0])
