"""MeanFlow against the closed form for one Gaussian, whose flow is linear."""

import numpy as np
import pytest
import torch

from generative.diffusion import MixtureDenoiser
from generative.flow_matching import (
    FlowMatchingLossConfig,
    ImageMeanFlowConfig,
    MeanFlow,
    MeanFlowLossConfig,
    MixtureVelocity,
    PointMeanFlowConfig,
    interpolate,
    mean_flow_error,
    mean_flow_target,
)
from generative.known.densities import Standardised, eight_gaussians
from generative.nets.config import ConditionedMLPConfig, UNetConfig
from tests.generative.flow_matching.common import (
    MEAN,
    STD,
    GaussianMeanVelocity,
    GaussianVelocity,
    draw,
    moved,
    width,
)

torch.set_num_threads(1)
TINY = PointMeanFlowConfig(network=ConditionedMLPConfig(hidden_dim=16, num_hidden=2))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def moments(n: int = 6) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Points and two times of each, t before r."""
    both = torch.rand(2, n, generator=generator(7), dtype=torch.float64)
    t, r = both.amin(0), both.amax(0)
    return interpolate(normal(n, 2), draw(n), t), t, r


def rough(config=TINY):
    torch.manual_seed(0)
    model = config.build().double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def exact_model() -> MeanFlow:
    return MeanFlow(GaussianMeanVelocity(), (2,))


def test_the_closed_form_is_the_mean_of_the_velocity():
    x, t, r = moments()
    u = exact_model().mean_velocity(x, t, r)
    torch.testing.assert_close(x + (r - t)[:, None] * u, moved(x, t, r))
    # The integral of the velocity along the path, by its midpoints.
    steps = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
    along = [GaussianVelocity()(moved(x, t, s), s) for s in (t + (r - t) * u for u in steps)]
    torch.testing.assert_close(u, torch.stack(along).mean(0), rtol=1e-5, atol=1e-5)
    # From t to t it is the velocity.
    at_once = exact_model().mean_velocity(x, t, t)
    torch.testing.assert_close(at_once, GaussianVelocity()(x, t))


def test_the_identity_holds_for_the_exact_mean_velocity():
    x, t, r = moments()
    u, target = mean_flow_target(exact_model().mean_velocity, x, t, r, GaussianVelocity()(x, t))
    torch.testing.assert_close(u, target)
    wrong, other = mean_flow_target(
        lambda x, t, r: 1.1 * exact_model().mean_velocity(x, t, r), x, t, r,
        GaussianVelocity()(x, t),
    )  # fmt: skip
    assert float((wrong - other).abs().max()) > 0.01


def test_the_exact_mean_velocity_has_the_closed_form_loss():
    """Along lines both sides differ by J (data - noise - v): J is width(r) / width(t), and the
    variance of data - noise given x_t is STD^2 / width(t)^2. Along paths they differ without J."""
    both = torch.cartesian_prod(*[(torch.arange(400, dtype=torch.float64) + 0.5) / 400] * 2)
    t, r = both.amin(1), both.amax(1)
    u = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    expected = {
        "line": (width(r) * STD / width(t).square()).square().mean(),
        "model": (STD / width(t)).square().mean(),
        # Equal times have the law of one: uniform, not that of the smaller of two.
        "instant": (STD / width(u)).square().mean(),
    }
    for tangent in ("line", "model"):
        for instant in (0.0, 0.5):
            config = MeanFlowLossConfig(tangent=tangent, instant=instant)
            found = exact_model().loss(draw(2**16), config, generator(9)).loss
            mixed = (1 - instant) * expected[tangent] + instant * expected["instant"]
            assert float(found) == pytest.approx(float(mixed), rel=0.02)


def test_one_jump_and_many_land_on_the_data():
    z = normal(20, 2)
    for steps in (1, 2, 5):
        torch.testing.assert_close(exact_model().decode(z, steps), MEAN + STD * z)


def test_jumps_by_hand():
    model, z = rough(), normal(3, 2)
    t = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    half = z + 0.5 * model.network(z, t[:2].expand(3, 2))
    whole = half + 0.5 * model.network(half, t[1:].expand(3, 2))
    first, second = model.path(z, 2)
    torch.testing.assert_close(first, half)
    torch.testing.assert_close(second, whole)
    sample = model.sample(4, generator(1), steps=2)
    assert sample.shape == (4, 2)


@pytest.mark.parametrize(
    "config",
    [
        TINY,
        ImageMeanFlowConfig((1, 8, 8), UNetConfig((4, 8), 1, attention=(1,), max_frequency=8.0)),
    ],
    ids=["perceptron", "U-Net"],
)
def test_the_derivative_along_the_path_is_that_of_small_steps(config):
    model = rough(config)
    x, velocity = normal(2, *model.shape), normal(2, *model.shape, seed=1)
    t, r = torch.tensor([[0.2, 0.5], [0.6, 0.9]], dtype=torch.float64)
    u, target = mean_flow_target(model.mean_velocity, x, t, r, velocity)
    h = 1e-5
    ends = [model.mean_velocity(x + e * velocity, t + e, r) for e in (h, -h)]
    change = (ends[0] - ends[1]) / (2 * h)
    span = (r - t).view(-1, *[1] * (x.dim() - 1))
    torch.testing.assert_close(target, velocity + span * change, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(u, model.mean_velocity(x, t, r))
    assert u.requires_grad
    assert not target.requires_grad
    _, other = mean_flow_target(model.mean_velocity, x, t, r, 0 * velocity, velocity)
    torch.testing.assert_close(other, target - velocity)


def test_equal_times_are_flow_matching():
    model, x = rough(), draw(64)
    losses = model.loss(x, MeanFlowLossConfig(instant=1.0), generator(2))
    found = losses.loss
    assert torch.equal(losses.velocity, found)
    assert float(model.loss(x, MeanFlowLossConfig(instant=0.0)).velocity) == 0
    same = generator(2)
    noise = torch.randn(64, 2, generator=same, dtype=torch.float64)
    t = torch.rand(64, generator=same, dtype=torch.float64)
    velocity = model.network(interpolate(noise, x, t), torch.stack([t, t], 1))
    torch.testing.assert_close(found, (velocity - (x - noise)).square().mean())
    flow = model.flow()
    torch.testing.assert_close(flow.velocity(x, t), model.mean_velocity(x, t, t))
    assert flow.loss(x, FlowMatchingLossConfig()).loss.isfinite()


def test_weights_of_the_errors():
    model, x = rough(), draw(6)
    plain, weighted = (
        model.loss(x, MeanFlowLossConfig(power=power, offset=0.01), generator(2))
        for power in (0.0, 1.0)
    )
    assert torch.equal(plain.loss, plain.squared)
    torch.testing.assert_close(plain.squared, weighted.squared)
    assert float(weighted.loss.detach()) < 1
    grads = [torch.autograd.grad(losses.loss, list(model.parameters()), allow_unused=True)
             for losses in (plain, weighted)]  # fmt: skip
    assert not torch.allclose(grads[0][0], grads[1][0])


def test_half_of_a_batch_of_one_is_possible():
    for instant in (0.0, 0.5, 1.0):
        loss = rough().loss(draw(1), MeanFlowLossConfig(instant=instant)).loss
        assert loss.isfinite()


def test_the_exact_jumps_of_a_mixture():
    zeros = torch.zeros(1, dtype=torch.float64)
    exact = MixtureVelocity(MixtureDenoiser(MEAN[None], STD, zeros))
    x, t, r = moments()
    torch.testing.assert_close(exact.jump(x, t, r), moved(x, t, r), rtol=1e-6, atol=1e-6)
    mean = exact.mean_velocity(x, t, r)
    torch.testing.assert_close(mean, exact_model().mean_velocity(x, t, r), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(exact.mean_velocity(x, t, t), GaussianVelocity()(x, t))


def test_the_exact_mean_velocity_of_a_mixture_has_no_error():
    density = Standardised(eight_gaussians())
    exact, model = MixtureVelocity.of(density), TINY.build()
    found = mean_flow_error(model, density, n=128)
    # A fresh network gives 0 everywhere.
    assert found.error == found.size > 0.1
    model.mean_velocity = lambda x, t, r: exact.mean_velocity(x, t, r)
    best = mean_flow_error(model, density, n=128)
    assert best.error < 1e-9
    assert best.size == found.size


def test_gradients_stop_at_the_target():
    """The gradient of the loss is that of u alone."""
    model = rough()
    x, t, r = moments()
    u, target = mean_flow_target(model.mean_velocity, x, t, r, normal(6, 2, seed=4))
    loss = (u - target).square().mean()
    found = torch.autograd.grad(loss, model.network.last.weight)[0]
    fixed = target.clone()
    plain = (model.mean_velocity(x, t, r) - fixed).square().mean()
    expected = torch.autograd.grad(plain, model.network.last.weight)[0]
    torch.testing.assert_close(found, expected)
    np.testing.assert_array_equal(fixed, target)
