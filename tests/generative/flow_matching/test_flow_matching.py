"""Flow matching against closed forms for Gaussian data."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from generative.diffusion import MixtureDenoiser, ode_log_prob
from generative.flow_matching import (
    FlowMatching,
    FlowMatchingLearner,
    FlowMatchingLossConfig,
    ImageFlowMatchingConfig,
    MixtureVelocity,
    Pair,
    PointFlowMatchingConfig,
    matching_loss,
    optimal_noise,
)
from generative.known.densities import Gaussian, Standardised, eight_gaussians
from generative.nets.config import ConditionedMLPConfig, UNetConfig
from tests.generative.flow_matching.common import MEAN, STD, GaussianVelocity, draw

torch.set_num_threads(1)
TINY = PointFlowMatchingConfig(
    network=ConditionedMLPConfig(hidden_dim=16, num_hidden=1), steps=4, ode_steps=60
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian_flow(**options) -> FlowMatching:
    return FlowMatching(GaussianVelocity(), (2,), **options)


def rough(seed: int = 0) -> FlowMatching:
    """A tiny flow in float64 whose velocity is anything."""
    torch.manual_seed(seed)
    model = TINY.build().double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def test_the_loss_is_the_error_of_the_velocity():
    """By a loop over the pairs, at the times and with the noise that the seed gives."""
    model, x = rough(), draw(6)
    config = FlowMatchingLossConfig(even=False)
    found = model.loss(x, config, generator(3)).loss
    same = generator(3)
    noise = torch.randn(6, 2, generator=same, dtype=torch.float64)
    times = torch.rand(6, generator=same, dtype=torch.float64)
    errors = []
    for z, data, t in zip(noise, x, times, strict=True):
        velocity = model.network(((1 - t) * z + t * data)[None], t[None])[0]
        errors.append((velocity - (data - z)).square().mean())
    torch.testing.assert_close(found, torch.stack(errors).mean())
    pairs = model.loss(Pair(noise, x), replace(config, pairing="optimal"), generator(4))
    again = model.loss(Pair(noise, x), config, generator(4))
    assert torch.equal(pairs.loss, again.loss)  # given pairs stay together


def test_noise_goes_to_the_nearest_data_if_asked():
    seen = {}

    class Watching(torch.nn.Module):
        def forward(self, x, t):
            seen["x"] = x
            return torch.zeros_like(x)

    model, x = FlowMatching(Watching(), (2,)), draw(6)
    config = FlowMatchingLossConfig(pairing="optimal", even=False)
    model.loss(x, config, generator(3))
    same = generator(3)
    noise = torch.randn(6, 2, generator=same, dtype=torch.float64)
    t = torch.rand(6, 1, generator=same, dtype=torch.float64)
    torch.testing.assert_close(seen["x"], (1 - t) * optimal_noise(noise, x) + t * x)


def test_the_exact_velocity_has_the_closed_form_loss():
    """On an axis of deviation s the variance given x_t is s^2 / (1 - t)^2 + t^2 s^2; its integral
    over t is s pi / 2, as that of 1 / (t^2 + (1 - t)^2) for s = 1."""
    floor = float(STD.mean()) * math.pi / 2
    zeros = torch.zeros(1, dtype=torch.float64)
    exact = MixtureVelocity(MixtureDenoiser(MEAN[None], STD, zeros))
    assert exact.floor(2**13) == pytest.approx(floor, rel=1e-3)
    found = gaussian_flow().loss(draw(2**17), FlowMatchingLossConfig(), generator(9)).loss
    assert float(found) == pytest.approx(floor, rel=0.01)


def test_the_exact_velocity_has_no_excess():
    density = Standardised(eight_gaussians())
    exact = MixtureVelocity.of(density)
    model = TINY.build()
    model.velocity = lambda x, t, context=None: exact(x, t)
    found = matching_loss(model, density, n=1000)
    assert found.excess < 1e-9
    # The same loss by the errors themselves, with their noise.
    x = density.sample(30_000, generator(1))
    loss = model.loss(x, FlowMatchingLossConfig(), generator(2)).loss
    assert float(loss) == pytest.approx(found.loss, rel=0.02)


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2), ("rk4", 4)])
def test_samplers_carry_noise_along_the_closed_form_path(solver, order):
    """z becomes m + s z, with the error of the solver's order."""
    z = torch.randn(50, 2, generator=generator(), dtype=torch.float64)
    errors = []
    for steps in (16, 32):
        *_, x = gaussian_flow(solver=solver).path(z, steps)
        errors.append(float((x - (MEAN + STD * z)).abs().max()))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.6)


def test_encode_and_decode_are_the_closed_form_map():
    model = gaussian_flow(ode_steps=50)
    z = torch.randn(20, 2, generator=generator(), dtype=torch.float64)
    x = MEAN + STD * z
    torch.testing.assert_close(model.decode(z), x, rtol=0, atol=1e-5)
    torch.testing.assert_close(model.encode(x), z, rtol=0, atol=1e-5)


def test_the_likelihood_of_a_gaussian():
    covariance = tuple(tuple(row) for row in STD.square().diag().tolist())
    density = Gaussian(tuple(MEAN.tolist()), covariance)
    x = draw(20)
    found = gaussian_flow(ode_steps=50).log_prob(x)
    torch.testing.assert_close(found, density.log_prob(x), rtol=0, atol=1e-4)


def test_the_likelihood_is_that_of_diffusion_with_the_same_network():
    """Two equations, in t and in log_snr, of a velocity that is anything."""
    model, x = rough(), draw(8)
    by_lines = model.log_prob(x)
    by_diffusion = ode_log_prob(model.denoise, x, 14.0, -14.0, 200)
    # Diffusion leaves a noise of 0.0009 in the data.
    torch.testing.assert_close(by_lines, by_diffusion, rtol=0, atol=0.02)
    assert float((by_lines - by_lines.mean()).abs().max()) > 0.5


def test_the_likelihood_is_the_change_of_variables():
    model, x = rough(1), draw(3)
    found = model.log_prob(x)
    for i, row in enumerate(x):
        jacobian = torch.autograd.functional.jacobian(lambda r: model.encode(r[None])[0], row)
        z = model.encode(row[None])[0]
        normal = -0.5 * float(z.square().sum()) - math.log(2 * math.pi)
        expected = normal + float(torch.linalg.slogdet(jacobian).logabsdet)
        assert float(found[i]) == pytest.approx(expected, abs=1e-5)


def test_pairs_of_a_flow_are_what_reflow_learns():
    model = gaussian_flow()
    pairs = model.pairs(50, generator())
    torch.testing.assert_close(pairs.data, MEAN + STD * pairs.noise, rtol=0, atol=0.01)
    # Lines between such pairs do not cross: with their velocity one step of Euler's is exact.
    slope = STD - 1

    class Straight(torch.nn.Module):
        def forward(self, x, t):
            start = (x - t[:, None] * MEAN) / (1 + t[:, None] * slope)
            return MEAN + slope * start

    straight = FlowMatching(Straight(), (2,))
    exact = Pair(pairs.noise, MEAN + STD * pairs.noise)
    assert float(straight.loss(exact, FlowMatchingLossConfig()).loss) < 1e-20
    one = straight.sample(20, generator(1), steps=1, solver="euler")
    many = straight.sample(20, generator(1), steps=50, solver="rk4")
    torch.testing.assert_close(one, many)


def test_pixels_are_scaled_and_clipped():
    config = ImageFlowMatchingConfig((1, 8, 8), UNetConfig((4, 8), depth=1))
    model = config.build()
    x = torch.rand(3, 1, 8, 8, generator=generator())
    torch.testing.assert_close(model.normalise(x), 2 * x - 1)
    torch.testing.assert_close(model.denormalise(model.normalise(x)), x)
    assert model.denormalise(torch.tensor([3.0, -3.0])).tolist() == [1.0, 0.0]
    # The velocity is 0 at first, so that the loss is E|data - noise|^2.
    loss = float(model.loss(x.repeat(200, 1, 1, 1), generator=generator()).loss.detach())
    assert loss == pytest.approx(1 + float((2 * x - 1).square().mean()), rel=0.02)
    with pytest.raises(ValueError, match="no density"):
        model.log_prob(x)


def test_a_context_reaches_the_network():
    class Told(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(()))

        def forward(self, x, t, context):
            return self.scale * (context - x)

    model = FlowMatching(Told(), (2,), steps=40)
    context = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    z = torch.randn(2, 2, generator=generator())
    # dx/dt = c - x, so x_1 = c + (z - c) / e.
    expected = context + (z - context) / math.e
    torch.testing.assert_close(model.decode(z, context=context), expected)
    sample = model.sample(2, generator(), context=context)
    torch.testing.assert_close(sample, expected, rtol=0, atol=1e-3)
    loss = model.loss(z, context=context, generator=generator()).loss
    loss.backward()
    assert model.network.scale.grad.abs() > 0


def test_learning_a_gaussian_reaches_its_floor():
    torch.manual_seed(0)
    model = PointFlowMatchingConfig(
        network=ConditionedMLPConfig(hidden_dim=32, num_hidden=1)
    ).build()
    learner = FlowMatchingLearner(model, FlowMatchingLossConfig(lr=1e-2, ema=0.98), 200)
    for step in range(200):
        learner.update(draw(256, seed=step).float())
    kept = learner.kept
    t = torch.rand(2000, generator=generator())
    x = (1 - t[:, None]) * torch.randn(2000, 2, generator=generator(1)) + t[:, None] * draw(2000)
    excess = (kept.velocity(x.float(), t) - GaussianVelocity()(x, t)).square().mean()
    assert float(excess) < 0.03


def test_what_does_not_fit_is_told():
    with pytest.raises(ValueError, match="'midpoint'; give one of euler, heun, rk4"):
        TINY.build().sample(2, solver="midpoint")
    with pytest.raises(ValueError, match=r"2 resolutions need a height and width that 2 divides"):
        ImageFlowMatchingConfig((1, 7, 8), UNetConfig((4, 8)))
    with pytest.raises(ValueError, match=r"got z of shape \(2, 3\)"):
        TINY.build().loss(Pair(torch.zeros(2, 3), torch.zeros(2, 2)))
    with pytest.raises(ValueError, match="embedding_dim is 5"):
        ConditionedMLPConfig(embedding_dim=5)


def test_steps_of_the_path_are_counted():
    z = torch.randn(3, 2, generator=generator())
    model = TINY.build()
    for steps, expected in ((None, 4), (7, 7)):
        assert len(list(model.path(z, steps))) == expected
    path = list(itertools.islice(model.path(z), 2))
    np.testing.assert_array_equal(path[0], z)  # a fresh network has no velocity
