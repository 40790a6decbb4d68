"""Runge-Kutta steps against closed forms."""

import itertools
import math

import pytest
import torch

from generative.solvers import (
    SOLVERS,
    equal_steps,
    euler,
    heun,
    probes,
    rk4,
    shifted_steps,
    with_divergence,
)


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


@pytest.mark.parametrize(("name", "order"), [("euler", 1), ("heun", 2), ("rk4", 4)])
def test_orders_of_the_solvers(name, order):
    """dz/dt = z cos t; halving the step divides the error by 2^order."""
    z0 = torch.tensor([[0.7], [-1.3]], dtype=torch.float64)
    exact = z0 * math.exp(math.sin(1.0))
    errors = []
    for steps in (32, 64):
        z, _ = SOLVERS[name](
            lambda t, z: (z * math.cos(t), z.new_zeros(())), z0, equal_steps(0.0, 1.0, steps)
        )
        errors.append(float((z - exact).abs().max()))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.2)


def test_steps_of_lower_order_by_hand():
    def velocity(t, z):
        return z, torch.full_like(z, t)

    z, total = euler(velocity, torch.ones(1, 1), (0.0, 0.5, 1.0))
    assert z.item() == pytest.approx(1.5**2)
    assert total.item() == pytest.approx(0.25)
    z, total = heun(velocity, torch.ones(1, 1), (0.0, 1.0))
    assert z.item() == pytest.approx(1 + 1 + 1 / 2)
    assert total.item() == pytest.approx(0.5)


def test_divergence_of_a_linear_field_is_its_trace():
    """Exact along the axes, and in the mean over all signs."""
    matrix = torch.tensor([[1.0, 2.0], [3.0, -4.5]], dtype=torch.float64)
    x = torch.tensor([[0.3, -1.0], [2.0, 0.5]], dtype=torch.float64)
    _, found = with_divergence(lambda t, z: t * z @ matrix.T, probes(x))(2.0, x)
    torch.testing.assert_close(found, torch.full((2,), 2 * -3.5, dtype=torch.float64))
    signs = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=2)), dtype=torch.float64)
    each = [
        with_divergence(lambda t, z: z @ matrix.T, sign.expand(1, 2, 2))(0.0, x)[1]
        for sign in signs
    ]
    torch.testing.assert_close(torch.stack(each).mean(0), torch.full((2,), -3.5).double())
    drawn = probes(x, "hutchinson", torch.Generator().manual_seed(0))
    assert drawn.shape == (1, 2, 2)
    assert set(drawn.flatten().tolist()) <= {-1.0, 1.0}
    with pytest.raises(ValueError, match="trace is 'half'"):
        probes(x, "half")


def test_divergence_keeps_a_graph_only_where_gradients_are_on():
    weight = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    x = torch.ones(3, 2, dtype=torch.float64)
    velocity = with_divergence(lambda t, z: weight * z.square(), probes(x))
    _, found = velocity(0.0, x)
    (gradient,) = torch.autograd.grad(found.sum(), weight)
    assert float(gradient) == pytest.approx(2 * 2 * 3)  # of 2 weight z, two axes, three points
    with torch.no_grad():
        rate, found = velocity(0.0, x)
    assert not rate.requires_grad
    assert not found.requires_grad
