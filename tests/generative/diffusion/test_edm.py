"""EDM against closed forms: variances of its parts, the best linear denoiser, Gaussian data."""

import itertools
import math

import numpy as np
import pytest
import torch

from generative.diffusion import (
    EDM,
    Churn,
    EDMLossConfig,
    ImageEDMConfig,
    MixtureDenoiser,
    PointEDMConfig,
    Preconditioned,
    ddim_step,
    estimates,
    heun_path,
    rho_sigmas,
    scalings,
)
from generative.diffusion.edm import draw_sigmas
from generative.known.densities import Gaussian
from generative.nets.config import ConditionedMLPConfig, UNetConfig

torch.set_num_threads(1)
SIGMAS = torch.tensor([0.002, 0.05, 0.3, 0.5, 2.0, 80.0], dtype=torch.float64)
TINY = PointEDMConfig(network=ConditionedMLPConfig(hidden_dim=8, num_hidden=1), sigma_data=0.7)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


class Zero(torch.nn.Module):
    def forward(self, x, log_snr):
        return torch.zeros_like(x)


@pytest.mark.parametrize("sigma_data", [0.5, 1.0, 3.0])
def test_input_and_target_have_variance_one_at_every_level(sigma_data):
    """The coefficients of data and noise in each, whose squares add up."""
    s, found = SIGMAS, scalings(SIGMAS, sigma_data)
    ones = torch.ones_like(s)
    into = (found.into * sigma_data).square() + (found.into * s).square()
    torch.testing.assert_close(into, ones)
    # The target of the network is (data - skip (data + sigma eps)) / out.
    target = ((1 - found.skip) / found.out * sigma_data).square()
    target = target + (found.skip * s / found.out).square()
    torch.testing.assert_close(target, ones)
    torch.testing.assert_close(found.weight * found.out.square(), ones)
    torch.testing.assert_close(found.noise, s.log() / 4)


@pytest.mark.parametrize("sigma_data", [0.5, 1.0, 3.0])
def test_a_network_of_zeros_is_the_best_linear_denoiser(sigma_data):
    """For normal data it is the best of all."""
    std = torch.full((2,), sigma_data, dtype=torch.float64)
    exact = MixtureDenoiser(torch.zeros(1, 2).double(), std, torch.zeros(1).double())
    model = EDM(Zero(), (2,), sigma_data)
    x, log_snr = normal(6, 2), -2 * SIGMAS.log()
    for found, expected in zip(model.denoise(x, log_snr), exact(x, log_snr), strict=True):
        torch.testing.assert_close(found, expected)


def test_the_skip_is_what_makes_the_output_smallest():
    """Of all factors of x, c_skip leaves the least variance to the network (appendix B.6)."""
    s, sigma_data = 0.8, 0.5
    grid = torch.linspace(0, 1, 100_001, dtype=torch.float64)
    left = (1 - grid).square() * sigma_data**2 + grid.square() * s**2
    best = float(grid[left.argmin()])
    found = scalings(torch.tensor([s], dtype=torch.float64), sigma_data)
    assert float(found.skip) == pytest.approx(best, abs=1e-4)
    assert float(found.out.square()) == pytest.approx(float(left.min()), rel=1e-6)


def test_with_unit_variance_the_network_gives_minus_the_velocity():
    torch.manual_seed(0)
    network = torch.nn.Linear(2, 2).double()

    class Plain(torch.nn.Module):
        def forward(self, x, log_snr):
            return network(x) + log_snr[:, None]

    x, log_snr = normal(6, 2), -2 * SIGMAS.log()
    found = EDM(Plain(), (2,), 1.0).denoise(x, log_snr)
    expected = estimates(-Plain()(x, log_snr), x, log_snr, "velocity")
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_fresh_network_has_a_loss_of_one():
    model = TINY.build().double()
    x = 0.7 * normal(2**16, 2)
    found = model.loss(x, EDMLossConfig(), generator(5))
    assert float(found.loss) == pytest.approx(1, rel=0.01)
    # Half the variance: by hand, E of out^2-weighted errors of the linear estimate.
    sigma = draw_sigmas(x, EDMLossConfig(), generator(5))
    parts = scalings(sigma, 0.7)
    small = ((1 - parts.skip).square() * 0.49 / 2 + (parts.skip * sigma).square()) * parts.weight
    found = model.loss(x / math.sqrt(2), EDMLossConfig(), generator(5)).loss
    assert float(found) == pytest.approx(float(small.mean()), rel=0.01)


@pytest.mark.parametrize("even", [False, True])
def test_levels_are_log_normal(even):
    sigma = draw_sigmas(torch.zeros(20_000, 1).double(), EDMLossConfig(even=even), generator())
    assert float(sigma.log().mean()) == pytest.approx(-1.2, abs=0.03)
    assert float(sigma.log().std()) == pytest.approx(1.2, abs=0.03)


def test_noise_levels_of_the_steps():
    """The published formula for 18 steps (equation 5)."""
    found = rho_sigmas(18)
    i = np.arange(18)
    expected = (80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    np.testing.assert_allclose(found[:-1], expected)
    assert found[-1] == 0
    assert (found[0], found[17]) == pytest.approx((80, 0.002))
    assert rho_sigmas(1) == pytest.approx([80, 0])


def closed(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """The best estimate of data N(1, 0.6^2)."""
    gain = 0.36 / (0.36 + sigma.square())[:, None]
    return 1 + gain * (x - 1)


def test_heun_is_of_order_two_along_the_closed_form_path():
    """x - 1 keeps its number of deviations sqrt(0.36 + sigma^2)."""
    sigmas = [3.0, 0.1]
    x = 1 + math.sqrt(0.36 + 9) * normal(20, 2)
    exact = 1 + math.sqrt((0.36 + 0.01) / (0.36 + 9)) * (x - 1)
    errors = []
    for num in (32, 64):
        levels = np.geomspace(*sigmas, num + 1).tolist()
        *_, found = heun_path(closed, x, levels)
        errors.append(float((found - exact).abs().max()))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.3)


def test_the_last_step_asks_once_and_is_eulers():
    calls = []

    def denoise(x, sigma):
        calls.append(float(sigma[0]))
        return closed(x, sigma)

    x = normal(3, 2)
    *_, last = heun_path(denoise, x, [2.0, 1.0, 0.0])
    assert calls == [2.0, 1.0, 1.0]
    first, _ = heun_path(closed, x, [2.0, 1.0, 0.0])
    torch.testing.assert_close(last, closed(first, torch.full((3,), 1.0, dtype=torch.float64)))


def test_eulers_step_is_ddim():
    x, sigma, target = normal(4, 2), 2.0, 0.7
    data = closed(x, torch.full((4,), sigma, dtype=torch.float64))
    noise = (x - data) / sigma
    euler = x + (target - sigma) * noise
    found = ddim_step(noise, data, -2 * math.log(sigma), -2 * math.log(target))
    # Diffusion has x at length 1 / sqrt(1 + sigma^2).
    torch.testing.assert_close(found * math.sqrt(1 + target**2), euler)


def test_churn_adds_the_noise_of_the_higher_level():
    churn = Churn(amount=1.0, low=0.5, high=10.0, scale=1.1)
    x, seen = normal(5, 2), []

    def denoise(x, sigma):
        seen.append((x, float(sigma[0])))
        return torch.zeros_like(x)

    list(heun_path(denoise, x, [2.0, 1.0, 0.4, 0.0], churn, generator(3)))
    higher = 2 * (1 + 1 / 3)
    eps = normal(5, 2, seed=3)
    assert seen[0][1] == pytest.approx(higher)
    torch.testing.assert_close(seen[0][0], x + 1.1 * math.sqrt(higher**2 - 4) * eps)
    assert seen[4][1] == 0.4  # below `low` nothing is added
    much = Churn(amount=100.0)
    list(itertools.islice(heun_path(denoise, x, [2.0, 1.0], much), 1))
    assert seen[-2][1] == pytest.approx(2 * math.sqrt(2))


def deviation(steps: int, churn: Churn) -> float:
    """That of samples of data N(0, 0.6^2), every step of which multiplies x by a number."""
    sigmas = rho_sigmas(steps)
    variance = sigmas[0] ** 2
    for sigma, target in itertools.pairwise(sigmas):
        if churn.low <= sigma <= churn.high:
            grown = sigma * (1 + min(churn.amount / steps, math.sqrt(2) - 1))
            variance, sigma = variance + grown**2 - sigma**2, grown
        slopes = [1 / v * v**2 / (0.36 + v**2) if v else 0 for v in (sigma, target)]
        factor = 1 + (target - sigma) * slopes[0]
        if target:
            factor = 1 + (target - sigma) * (slopes[0] + slopes[1] * factor) / 2
        variance *= factor**2
    return math.sqrt(variance)


@pytest.mark.parametrize("churn", [Churn(), Churn(amount=20.0, low=0.05, high=50.0)])
def test_samples_of_gaussian_data(churn):
    """Their deviation is that of the linear recursion, and for many steps that of the data."""
    model = EDM(Zero(), (2,), 0.6, steps=18)
    model.estimate.register_parameter("unused", torch.nn.Parameter(torch.zeros(1).double()))
    x = model.sample(50_000, generator(1), churn=churn)
    assert float(x.std()) == pytest.approx(deviation(18, churn), rel=0.01)
    assert float(x.mean()) == pytest.approx(0, abs=0.02)
    assert deviation(18, churn) > 0.63
    assert deviation(500, churn) == pytest.approx(0.6, rel=1e-3)


def test_the_likelihood_of_gaussian_data():
    model = EDM(Zero(), (2,), 0.6)
    x = 0.6 * normal(10, 2)
    density = Gaussian((0.0, 0.0), ((0.36, 0.0), (0.0, 0.36)))
    torch.testing.assert_close(model.log_prob(x), density.log_prob(x), rtol=0, atol=2e-3)
    z = model.encode(x)
    torch.testing.assert_close(z, x / 0.6, rtol=0, atol=2e-3)
    torch.testing.assert_close(model.decode(z), x, rtol=0, atol=1e-5)


def test_any_network_can_be_wrapped():
    """The wrapper by hand, with what the network is told."""
    seen = {}

    class Network(torch.nn.Module):
        def forward(self, x, log_snr, context):
            seen.update(x=x, log_snr=log_snr, context=context)
            return 2 * x

    x, context = normal(6, 3), normal(6, 1)
    found = Preconditioned(Network(), 0.5)(x, SIGMAS, context)
    parts = [part[:, None] for part in scalings(SIGMAS, 0.5)]
    torch.testing.assert_close(seen["x"], parts[2] * x)
    torch.testing.assert_close(seen["log_snr"], -2 * SIGMAS.log())
    assert seen["context"] is context
    torch.testing.assert_close(found, parts[0] * x + 2 * parts[1] * parts[2] * x)


def test_what_does_not_fit_is_told():
    with pytest.raises(ValueError, match=r"sigma_min is 2\.0 and sigma_max 1\.0"):
        PointEDMConfig(sigma_min=2.0, sigma_max=1.0)
    with pytest.raises(ValueError, match="2 resolutions need a height and width that 2 divides"):
        ImageEDMConfig((1, 7, 8), UNetConfig((4, 8)))
    with pytest.raises(ValueError, match="no density"):
        ImageEDMConfig((1, 8, 8), UNetConfig((4, 8), 1)).build().log_prob(torch.zeros(1, 1, 8, 8))
    with pytest.raises(ValueError, match="num is 0"):
        rho_sigmas(0)
