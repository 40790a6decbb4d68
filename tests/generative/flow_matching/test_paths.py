"""Lines against closed forms: both directions to diffusion, times, pairs."""

import itertools
import math

import numpy as np
import pytest
import torch

from generative.diffusion import MixtureDenoiser, denoising_path, ode_flow
from generative.flow_matching import (
    FlowMatchingLossConfig,
    MeanFlowLossConfig,
    MixtureVelocity,
    as_denoiser,
    as_velocity,
    draw_times,
    from_diffusion,
    interpolate,
    noise_and_data,
    optimal_noise,
    to_diffusion,
    velocity_from_data,
    velocity_from_noise,
)
from generative.known.densities import Standardised, eight_gaussians
from generative.solvers import equal_steps, rk4

torch.set_num_threads(1)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


TIMES = torch.tensor([0.05, 0.3, 0.5, 0.8, 0.97], dtype=torch.float64)


def test_one_estimate_gives_the_other_two():
    noise, data = normal(5, 2, 3), normal(5, 2, 3, seed=1)
    x = interpolate(noise, data, TIMES)
    np.testing.assert_allclose(x[1], 0.7 * noise[1] + 0.3 * data[1])
    velocity = data - noise
    for found in (velocity_from_noise(noise, x, TIMES), velocity_from_data(data, x, TIMES)):
        torch.testing.assert_close(found, velocity)
    for found, expected in zip(noise_and_data(velocity, x, TIMES), (noise, data), strict=True):
        torch.testing.assert_close(found, expected)


def test_lines_in_the_terms_of_diffusion_and_back():
    noise, data = normal(5, 2), normal(5, 2, seed=1)
    x = interpolate(noise, data, TIMES)
    scaled, log_snr = to_diffusion(x, TIMES)
    signal, rate = log_snr.sigmoid().sqrt()[:, None], (-log_snr).sigmoid().sqrt()[:, None]
    torch.testing.assert_close(scaled, signal * data + rate * noise)
    back, t = from_diffusion(scaled, log_snr)
    torch.testing.assert_close(back, x)
    torch.testing.assert_close(t, TIMES)


def test_the_exact_denoiser_is_the_exact_velocity_and_back():
    """Against the mean of data - noise over the parts of a mixture, written out for this line."""
    density = Standardised(eight_gaussians())
    exact = MixtureDenoiser.of(density)
    x = normal(5, 2)
    velocity = as_velocity(exact)(x, TIMES)
    for i, t in enumerate(TIMES.tolist()):
        variance = (t * exact.std) ** 2 + (1 - t) ** 2
        offset = x[i] - t * exact.means
        share = (-0.5 * (offset.square() / variance).sum(1)).softmax(0)
        # Of one part, data - noise and x_t are jointly normal.
        slope = (t * exact.std.square() - (1 - t)) / variance
        torch.testing.assert_close(velocity[i], share @ (exact.means + slope * offset))
    again = as_denoiser(as_velocity(exact))
    seen, log_snr = to_diffusion(x, TIMES)
    for found, expected in zip(again(seen, log_snr), exact(seen, log_snr), strict=True):
        torch.testing.assert_close(found, expected)


def test_both_equations_carry_noise_to_the_same_data():
    """Along straight lines in t, and in diffusion's terms in log_snr; and DDIM goes there too."""
    exact = MixtureVelocity.of(Standardised(eight_gaussians()))
    z = normal(20, 2)

    def rate(t: float, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return exact(x, torch.full((len(x),), t, dtype=x.dtype)), x.new_zeros(())

    straight, _ = rk4(rate, z, equal_steps(0.0, 1.0, 100))
    curved = ode_flow(as_denoiser(exact), z, -14.0, 14.0, 200)
    # Diffusion begins with a signal rate of 0.0009, and leaves as much noise.
    torch.testing.assert_close(straight, curved, rtol=0, atol=0.02)
    stations = [*np.linspace(-14, 14, 800), math.inf]
    *_, last = denoising_path(as_denoiser(exact), z, stations)
    torch.testing.assert_close(straight, last.x, rtol=0, atol=0.1)


def test_ends_of_the_path():
    """At t = 0 the velocity is the mean of the data less the noise."""
    exact = MixtureVelocity.of(Standardised(eight_gaussians()))
    x = normal(4, 2)
    found = exact(x, torch.zeros(4, dtype=torch.float64))
    torch.testing.assert_close(found, -x, rtol=0, atol=1e-5)
    assert exact(x, torch.ones(4, dtype=torch.float64)).isfinite().all()


@pytest.mark.parametrize("even", [False, True])
def test_times_have_their_law(even):
    x = torch.zeros(20_000, 2)
    uniform = draw_times(x, FlowMatchingLossConfig(), generator(), even)
    assert uniform.shape == (20_000,)
    assert 0 <= uniform.min() <= uniform.max() <= 1
    np.testing.assert_allclose(uniform.sort().values, np.linspace(0, 1, 20_000), atol=0.02)
    config = MeanFlowLossConfig(times="logit-normal", mean=0.4, std=0.7)
    logits = draw_times(x.double(), config, generator(1), even).logit()
    assert float(logits.mean()) == pytest.approx(0.4, abs=0.02)
    assert float(logits.std()) == pytest.approx(0.7, abs=0.02)


def test_even_times_are_one_shift_of_equal_distances():
    t = draw_times(torch.zeros(8, 1), FlowMatchingLossConfig(), generator(), even=True)
    np.testing.assert_allclose(np.diff(t), 1 / 8, rtol=1e-5)


def test_the_cheapest_pairing_of_a_batch():
    noise, data = normal(5, 1, 3), normal(5, 1, 3, seed=1)
    found = optimal_noise(noise, data)
    assert {tuple(row.flatten().tolist()) for row in found} == {
        tuple(row.flatten().tolist()) for row in noise
    }
    cost = float((found - data).square().sum())
    orders = itertools.permutations(range(5))
    assert cost == pytest.approx(
        min(float((noise[list(order)] - data).square().sum()) for order in orders)
    )
