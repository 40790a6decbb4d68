"""Predictions of flow matching and EDM within diffusion, against both of these and by hand."""

import itertools
import math
from typing import Any

import pytest
import torch

from generative.diffusion import (
    EDM,
    Diffusion,
    DiffusionLossConfig,
    PointDiffusionConfig,
    Schedule,
    ScheduleConfig,
    estimates,
    into_network,
    scalings,
    signal_and_noise,
)
from generative.flow_matching.paths import as_denoiser, to_diffusion

torch.set_num_threads(1)
LEVELS = torch.tensor([-9.0, -3.0, 0.0, 2.5, 8.0], dtype=torch.float64)
RECTIFIED = ScheduleConfig("rectified")


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


class Bent(torch.nn.Module):
    """Any function of its input and the level."""

    def forward(self, x, log_snr):
        return (2 * x).sin() + 0.1 * log_snr[:, None] * x.flip(1)


class Zero(torch.nn.Module):
    def forward(self, x, log_snr):
        return torch.zeros_like(x)


def test_the_rectified_schedule_is_a_straight_line():
    t = torch.linspace(0.01, 0.99, 9, dtype=torch.float64)
    log_snr = Schedule(RECTIFIED).log_snr(t)
    torch.testing.assert_close(log_snr, 2 * ((1 - t) / t).log())
    data, noise = normal(9, 3), normal(9, 3, seed=1)
    signal, rate = (part[:, None] for part in signal_and_noise(log_snr))
    line = (1 - t[:, None]) * data + t[:, None] * noise
    point = into_network(signal * data + rate * noise, log_snr, "flow")
    torch.testing.assert_close(point, line)
    assert Schedule(RECTIFIED).ends == (14, -14)
    with pytest.raises(ValueError, match="rectified ends with signal rate 0"):
        PointDiffusionConfig(schedule=RECTIFIED, prediction="noise")


def test_flow_is_that_of_flow_matching():
    """A network of points on lines and of times gives diffusion the same estimates."""
    model = Diffusion(Bent(), (3,), RECTIFIED, "flow").double()
    x, network = normal(5, 3), Bent()

    def velocity(x, t):
        return network(x, 2 * (t / (1 - t)).log())

    for found, expected in zip(
        model.denoise(x, LEVELS), as_denoiser(velocity)(x, LEVELS), strict=True
    ):
        torch.testing.assert_close(found, expected)


def test_the_right_velocity_gives_noise_and_data_back():
    data, noise = normal(5, 3), normal(5, 3, seed=1)
    signal, rate = (part[:, None] for part in signal_and_noise(LEVELS))
    found = estimates(data - noise, signal * data + rate * noise, LEVELS, "flow")
    torch.testing.assert_close(found, (noise, data))
    # Points and velocities of the line, and those of diffusion.
    t = (LEVELS / 2).sigmoid()
    line = t[:, None] * data + (1 - t[:, None]) * noise
    x, log_snr = to_diffusion(line, t)
    torch.testing.assert_close(log_snr, LEVELS)
    torch.testing.assert_close(into_network(x, log_snr, "flow"), line)


@pytest.mark.parametrize("sigma_data", [0.5, 1.0, 3.0])
def test_edm_is_that_of_edm(sigma_data):
    model = Diffusion(Bent(), (3,), RECTIFIED, "edm", sigma_data=sigma_data).double()
    x = normal(5, 3)
    expected = EDM(Bent(), (3,), sigma_data).double().denoise(x, LEVELS)
    for found, wanted in zip(model.denoise(x, LEVELS), expected, strict=True):
        torch.testing.assert_close(found, wanted)
    # By the published factors.
    sigma = (-LEVELS / 2).exp()
    parts, whole = scalings(sigma, sigma_data), x * (1 + sigma.square()).sqrt()[:, None]
    inside = into_network(x, LEVELS, "edm", sigma_data)
    torch.testing.assert_close(inside, parts.into[:, None] * whole)
    output = normal(5, 3, seed=2)
    data = estimates(output, x, LEVELS, "edm", sigma_data)[1]
    wanted = parts.skip[:, None] * whole + parts.out[:, None] * output
    torch.testing.assert_close(data, wanted)


@pytest.mark.parametrize("prediction", ["noise", "velocity", "data", "pixels"])
def test_other_networks_see_what_they_saw(prediction):
    x = normal(5, 3)
    assert into_network(x, LEVELS, prediction) is x


def loss(prediction: str, weighting: Any, std: float = 1.0, sigma_data: float = 0.5):
    """That of a network of zeros, of normal data."""
    model = Diffusion(Zero(), (64,), RECTIFIED, prediction, sigma_data=sigma_data).double()
    config = DiffusionLossConfig(weighting=weighting, levels="normal", level_std=1.0)
    x = std * normal(2000, 64, seed=3)
    return float(model.loss(x, config, torch.Generator().manual_seed(4)).loss)


def test_losses_begin_where_they_should():
    """Data - noise has the variance of both, and what EDM asks its network for has variance 1."""
    assert loss("flow", "flow") == pytest.approx(2, rel=0.01)
    assert loss("flow", "flow", std=0.5) == pytest.approx(1.25, rel=0.01)
    assert loss("edm", "edm", std=0.5) == pytest.approx(1, rel=0.01)
    assert loss("edm", "edm", std=3.0, sigma_data=3.0) == pytest.approx(1, rel=0.01)
    assert loss("velocity", "velocity") == pytest.approx(1, rel=0.01)
    assert loss("data", "data", std=0.5) == pytest.approx(0.25, rel=0.01)


@pytest.mark.parametrize(("prediction", "size"), [("flow", 0.3), ("edm", 0.7)])
def test_the_loss_is_the_mean_square_of_what_the_output_lacks(prediction, size):
    """An output that is off by a number everywhere has its square as the loss."""
    data, log_snr = normal(5, 3), LEVELS
    signal, rate = (part[:, None] for part in signal_and_noise(log_snr))
    noise = normal(5, 3, seed=1)
    x = signal * data + rate * noise
    sigma = (-log_snr / 2).exp()
    if prediction == "flow":
        target, weight = data - noise, (1 + sigma).square()
    else:
        parts = scalings(sigma, 0.5)
        target = (data - parts.skip[:, None] * x / signal) / parts.out[:, None]
        weight = 1 + sigma.square() / 0.25
    found = estimates(target + size, x, log_snr, prediction)[0]
    lost = weight * (found - noise).square().mean(1)
    torch.testing.assert_close(lost, torch.full_like(lost, size**2))


def test_ddim_along_the_rectified_schedule_is_eulers_method_of_flow_matching():
    num, model = 8, Diffusion(Bent(), (3,), RECTIFIED, "flow", steps=8).double()
    z, network = normal(4, 3), Bent()
    *_, found = model.path(z)
    # At t = 1 the schedule keeps a little signal, whose level the network is told.
    times = [1 - i / num for i in range(num + 1)]
    first, last = signal_and_noise(torch.tensor(-14.0, dtype=torch.float64))
    x, times[0] = z / (first + last), float(last / (first + last))
    for t, after in itertools.pairwise(times):
        level = torch.full((4,), 2 * math.log((1 - t) / t), dtype=torch.float64)
        x = x + (t - after) * network(x, level)
    torch.testing.assert_close(found.x, x, rtol=1e-6, atol=1e-6)
