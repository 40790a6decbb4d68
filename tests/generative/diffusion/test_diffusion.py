"""Diffusion against closed forms for Gaussian data, the papers' formulas, and the diffusers."""

import itertools
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from generative.diffusion import (
    Diffusion,
    DiffusionLearner,
    DiffusionLossConfig,
    ImageDiffusionConfig,
    ListDenoiser,
    MixtureDenoiser,
    PointDiffusionConfig,
    Schedule,
    ScheduleConfig,
    UNetConfig,
    clip_data,
    cosine_betas,
    ddim_noise,
    ddim_step,
    denoising_path,
    diffusion_loss,
    estimates,
    linear_betas,
    log_snr_of,
    noising_path,
    ode_flow,
    ode_log_prob,
    scaled_linear_betas,
    signal_and_noise,
    simple_loss,
    variational_gap,
)
from generative.diffusion.config import DIFFUSION_BOOK, IMAGE_DIFFUSION_BOOK, last_signal
from generative.diffusion.model import within
from generative.known.densities import Gaussian, Standardised, TwoMoons, eight_gaussians
from generative.nets.config import UNET_BOOK
from generative.nets.unet import UNet
from generative.training.files import DamagedFileError, json_bytes, write_folder

torch.set_num_threads(1)
IMAGES = ImageDiffusionConfig((1, 8, 8), UNetConfig((4, 8)), levels=3)
WHY_DIFFUSERS = "checks against the library diffusers: pip install diffusers"


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian(mean=(0.5, -1.0), std=(0.6, 1.7)) -> MixtureDenoiser:
    """The best denoiser of one Gaussian with independent axes."""
    numbers = [torch.tensor(row, dtype=torch.float64) for row in (mean, std)]
    return MixtureDenoiser(numbers[0][None], numbers[1], torch.zeros(1, dtype=torch.float64))


def draw(exact: MixtureDenoiser, n: int, seed: int = 0) -> torch.Tensor:
    """Examples of one Gaussian."""
    eps = torch.randn(n, 2, generator=generator(seed), dtype=torch.float64)
    return exact.means[0] + exact.std * eps


def levels(x: torch.Tensor, log_snr: float) -> torch.Tensor:
    return torch.full((len(x),), log_snr, dtype=x.dtype)


# ---------------------------------------------------------------------------------------------
# Schedules
# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "signal", "noise"),
    [
        (
            ScheduleConfig(),
            (0.95, 0.81045, 0.59448, 0.32244, 0.02),
            (0.31225, 0.58580, 0.80411, 0.94659, 0.99980),
        ),
        (
            ScheduleConfig("cosine"),
            (1.0, 0.92388, 0.70711, 0.38268, 0.0),
            (0.0, 0.38268, 0.70711, 0.92388, 1.0),
        ),
    ],
)
def test_rates_of_the_books_schedules(config, signal, noise):
    t = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0])
    found = signal_and_noise(Schedule(config).log_snr(t))
    ends = 1e-3 if config.kind == "cosine" else 1e-5  # where rates stop short of 0
    np.testing.assert_allclose(found[0], signal, rtol=0, atol=ends)
    np.testing.assert_allclose(found[1], noise, rtol=0, atol=ends)
    torch.testing.assert_close(found[0] ** 2 + found[1] ** 2, torch.ones(5, dtype=torch.float64))


@pytest.mark.parametrize(
    ("betas", "index", "expected"),
    [
        (linear_betas(), (0, 249, 499, 749, 999), (0.9999, 0.524085, 0.078587, 0.003351, 0.00004)),
        (
            linear_betas(endpoint=False),
            (0, 99, 249, 499, 749, 999),
            (0.99990, 0.89711, 0.52441, 0.07878, 0.0033695, 0.000040767),
        ),
        (
            scaled_linear_betas(1000, 0.00085, 0.012),
            (0, 249, 499, 749, 999),
            (0.99915, 0.675432, 0.277669, 0.056623, 0.004660),
        ),
        (cosine_betas(), (0, 249, 499, 749, 999), (0.999959, 0.847012, 0.493843, 0.144272, 0.0)),
    ],
)
def test_tables_of_betas(betas, index, expected):
    alpha_bar = (1 - betas).cumprod(0)[list(index)]
    np.testing.assert_allclose(alpha_bar, expected, rtol=0, atol=6e-6)


def test_a_table_is_read_at_the_steps_of_ddpm():
    schedule = Schedule(ScheduleConfig("linear"))
    betas = np.linspace(1e-4, 0.02, 1000)
    alpha_bar = np.cumprod(1 - betas)
    t = torch.tensor([1, 2, 250, 980, 999, 1000]) / 1000
    np.testing.assert_allclose(schedule.log_snr(t).sigmoid(), alpha_bar[[0, 1, 249, 979, 998, 999]])
    stations = torch.tensor(schedule.steps(1000))
    np.testing.assert_allclose(stations[:-1].double().sigmoid(), alpha_bar[::-1], rtol=1e-6)
    assert stations[-1] == math.inf
    np.testing.assert_allclose(
        torch.tensor(schedule.steps(50)).double().sigmoid()[:-1], alpha_bar[19::20][::-1], rtol=1e-6
    )


def test_log_snr_of_alpha_bar():
    alpha_bar = torch.tensor([0.1, 0.5, 0.9999], dtype=torch.float64)
    expected = (alpha_bar / (1 - alpha_bar)).log()
    np.testing.assert_allclose(log_snr_of(alpha_bar), expected, rtol=1e-12)
    signal, noise = signal_and_noise(log_snr_of(alpha_bar))
    torch.testing.assert_close(signal, alpha_bar.sqrt())
    torch.testing.assert_close(noise, (1 - alpha_bar).sqrt())


def test_stations_in_equal_steps_of_log_snr():
    schedule = Schedule()
    stations = schedule.steps(5, "log-snr")
    np.testing.assert_allclose(np.diff(stations[:5]), (schedule.ends[0] - schedule.ends[1]) / 4)
    assert (stations[0], stations[4]) == pytest.approx(schedule.ends[::-1])


def test_step_by_step_noise_equals_the_jump():
    """x_t by t single steps of the forward process, in the moments: the product of 1 - beta."""
    betas = linear_betas(50, 0.01, 0.3)
    x = 2 + 0.5 * torch.randn(100_000, generator=generator(0), dtype=torch.float64)
    for beta in betas:
        eps = torch.randn(x.shape, generator=generator(int(1e6 * beta)), dtype=torch.float64)
        x = (1 - beta).sqrt() * x + beta.sqrt() * eps
    alpha_bar = float((1 - betas).prod())
    assert float(x.mean()) == pytest.approx(2 * math.sqrt(alpha_bar), abs=0.02)
    assert float(x.var()) == pytest.approx(0.25 * alpha_bar + 1 - alpha_bar, abs=0.02)


# ---------------------------------------------------------------------------------------------
# Samplers, against Gaussian data with the exact denoiser
# ---------------------------------------------------------------------------------------------


def test_exact_denoiser_of_a_gaussian():
    """The regression line of data on x_t, and Bayes by quadrature for a mixture."""
    exact, x = gaussian(), torch.tensor([[0.3, -2.0], [1.5, 0.1]], dtype=torch.float64)
    signal, rate = signal_and_noise(torch.tensor(0.7, dtype=torch.float64))
    gain = signal * exact.std**2 / (signal**2 * exact.std**2 + rate**2)
    expected = exact.means[0] + gain * (x - signal * exact.means[0])
    noise, data = exact(x, levels(x, 0.7))
    torch.testing.assert_close(data, expected)
    torch.testing.assert_close(signal * data + rate * noise, x)


def test_exact_denoiser_of_the_moons_by_quadrature_over_the_plane():
    density = Standardised(TwoMoons(noise=0.2))
    exact = MixtureDenoiser.of(density)
    grid = density.grid(3.0)
    points = grid.points()
    x = torch.tensor([[0.3, -0.4], [1.5, 0.1]], dtype=torch.float64)
    log_snr = torch.tensor([0.7, 3.0], dtype=torch.float64)
    signal, rate = (part[:, None] for part in signal_and_noise(log_snr))
    distance = (x[:, None] - signal[:, None] * points).square().sum(2)
    posterior = (density.log_prob(points) - distance / (2 * rate**2)).softmax(1)
    _, data = exact(x, log_snr)
    torch.testing.assert_close(data, posterior @ points, rtol=1e-6, atol=1e-8)
    variance = (posterior @ points.square() - (posterior @ points).square()).sum(1)
    torch.testing.assert_close(exact.data_variance(x, log_snr), variance, rtol=1e-5, atol=1e-8)
    log_normal = -distance / (2 * rate**2) - (2 * math.pi * rate**2).log()
    expected = (density.log_prob(points) + log_normal).logsumexp(1) + math.log(grid.cell)
    torch.testing.assert_close(exact.log_prob(x, log_snr), expected, rtol=1e-6, atol=1e-8)


def test_exact_denoiser_of_a_list_is_that_of_a_mixture_without_width():
    generator = torch.Generator().manual_seed(0)
    examples = torch.randn(7, 2, 3, generator=generator, dtype=torch.float64)
    weights = torch.randn(7, generator=generator, dtype=torch.float64).log_softmax(0)
    x, log_snr = torch.randn(5, 2, 3, generator=generator), torch.linspace(-4.0, 4.0, 5)
    found = ListDenoiser(examples, weights)(x, log_snr)
    points = MixtureDenoiser(examples.flatten(1), torch.zeros(6, dtype=torch.float64), weights)
    expected = points(x.flatten(1), log_snr)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, other.view_as(x), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=r"those of this list are \(B, 2, 3\)"):
        ListDenoiser(examples, weights)(x.flatten(1), log_snr)
    with pytest.raises(ValueError, match="at least one example and a weight for each"):
        ListDenoiser(examples, weights[:3])


def test_floors_of_the_simple_loss():
    """For data of unit mean square; a normal distribution has the mean of alpha_bar as floor."""
    schedule = Schedule(ScheduleConfig("linear"))
    normal = gaussian((0.0, 0.0), (1.0, 1.0))
    assert normal.floor(schedule, 2**13) == pytest.approx(
        float(schedule.alpha_bar.mean()), rel=1e-3
    )
    for density, floor in ((TwoMoons(), 0.2148), (eight_gaussians(), 0.2242)):
        exact = MixtureDenoiser.of(density)
        size = math.sqrt(np.square(density.std).mean())
        shift = torch.tensor(density.mean, dtype=torch.float64)
        scaled = MixtureDenoiser((exact.means - shift) / size, exact.std / size, exact.log_weights)
        assert scaled.floor(schedule, 2**14) == pytest.approx(floor, abs=8e-4)


def test_the_exact_denoiser_has_no_excess():
    density = Standardised(TwoMoons())
    model, exact = (
        PointDiffusionConfig(hidden_dim=8, num_hidden=1).build(),
        MixtureDenoiser.of(density),
    )
    model.denoise = lambda x, log_snr: exact(x, log_snr)
    found = simple_loss(model, density, n=2000)
    assert found.excess < 1e-9
    assert found.loss == found.floor + found.excess == pytest.approx(exact.floor(model.schedule))


def test_only_mixtures_have_an_exact_denoiser():
    with pytest.raises(ValueError, match="Gaussian is no mixture of Gaussians"):
        MixtureDenoiser.of(Gaussian((0.0, 0.0), ((1.0, 0.0), (0.0, 1.0))))


def test_ddim_on_gaussian_data_is_the_closed_form_map():
    """Of data N(m, s^2) with exact estimates, a step scales (x_t - signal m) by a known number."""
    exact = gaussian()
    mean, std = exact.means[0], exact.std
    z = torch.randn(7, 2, generator=generator(), dtype=torch.float64)
    stations = [-6.0, -2.0, 1.0, 4.0, math.inf]
    expected = z
    for log_snr, target in itertools.pairwise(stations):
        (a, a_rate), (b, b_rate) = (
            signal_and_noise(torch.tensor(v, dtype=torch.float64)) for v in (log_snr, target)
        )
        factor = (a * b * std**2 + a_rate * b_rate) / (a**2 * std**2 + a_rate**2)
        expected = b * mean + factor * (expected - a * mean)
    *_, last = denoising_path(exact, z, stations)
    torch.testing.assert_close(last.x, expected)
    torch.testing.assert_close(last.x, last.data)  # the last step returns the estimate


def test_many_steps_of_ddim_carry_normal_noise_to_the_data():
    """In the limit z becomes m + s z, whatever the way."""
    exact = gaussian()
    z = torch.randn(50, 2, generator=generator(), dtype=torch.float64)
    stations = [*np.linspace(-14, 14, 1500), math.inf]
    *_, last = denoising_path(exact, z, stations)
    expected = exact.means[0] + exact.std * z
    torch.testing.assert_close(last.x, expected, rtol=0, atol=0.02)
    carried = ode_flow(exact, z, -14.0, 14.0, 100)
    torch.testing.assert_close(carried, expected, rtol=0, atol=0.002)
    back = ode_flow(exact, carried, 14.0, -14.0, 100)
    torch.testing.assert_close(back, z, rtol=0, atol=1e-4)


def test_ddim_in_reverse_leads_to_the_noise():
    exact = gaussian()
    x = draw(exact, 50)
    stations = [*np.linspace(-14, 14, 1500), math.inf]
    *_, z = noising_path(exact, x, stations)
    torch.testing.assert_close(z, (x - exact.means[0]) / exact.std, rtol=0, atol=0.03)


@pytest.mark.parametrize(
    "schedule", ["cosine", pytest.param("cosine-betas", marks=pytest.mark.nightly)]
)
def test_clipping_holds_what_a_small_error_of_the_noise_would_blow_up(schedule):
    """64 points with an error of 5 % of the noise, down to log SNR -14, in 20 steps of DDIM."""
    points = 2 * torch.rand(64, 2, generator=generator(), dtype=torch.float64) - 1
    points = (points - points.mean(0)) / points.std(0, correction=0)
    weights = torch.full((64,), -math.log(64), dtype=torch.float64)
    exact = MixtureDenoiser(points, torch.full((2,), 1e-3, dtype=torch.float64), weights)
    errors = generator(2)

    def denoise(x, log_snr):
        noise, _ = exact(x, log_snr)
        noise = noise + 0.05 * torch.randn(x.shape, generator=errors, dtype=x.dtype)
        return estimates(noise, x, log_snr, "noise")

    stations = Schedule(ScheduleConfig(schedule)).steps(20)
    assert stations[0] == -14
    z = torch.randn(4000, 2, generator=generator(1), dtype=torch.float64)

    def deviation(denoise, clip):
        *_, last = denoising_path(denoise, z, stations, clip=clip)
        return float(last.x.std())

    low, high = points.amin(0), points.amax(0)
    assert deviation(denoise, None) == pytest.approx(1.46, abs=0.03)
    expected = deviation(exact, None)
    for quantile in (None, 0.9):
        found = deviation(denoise, lambda x, q=quantile: clip_data(x, low, high, q))
        assert found == pytest.approx(expected, abs=0.03)


def test_clipping_to_the_range_of_data():
    x = torch.tensor([[0.0, 0.5, 3.0, -2.0], [0.2, 0.8, 1.2, 0.4]], dtype=torch.float64)
    clipped = [[0.0, 0.5, 1.0, 0.0], [0.2, 0.8, 1.0, 0.4]]
    np.testing.assert_array_equal(clip_data(x, 0.0, 1.0), clipped)
    # About 1/2, as Imagen's listing has it for numbers from -1 to 1.
    scaled = 2 * x.numpy() - 1
    for q in (0.5, 0.9, 1.0):
        s = np.maximum(np.quantile(np.abs(scaled), q, axis=1), 1)[:, None]
        expected = (np.clip(scaled, -s, s) / s + 1) / 2
        np.testing.assert_allclose(clip_data(x, 0.0, 1.0, q), expected, rtol=1e-12)
    # Ends that differ from axis to axis, and an example that fits already.
    low, high = torch.tensor([-1.0, 0.0]).double(), torch.tensor([1.0, 4.0]).double()
    found = clip_data(torch.tensor([[0.5, 3.0], [3.0, 2.0]]).double(), low, high, 1.0)
    np.testing.assert_allclose(found, [[0.5, 3.0], [1.0, 2.0]])


def test_images_are_sampled_within_the_range_of_pixels():
    """Every estimate is clipped before the step is made of it; by hand, for one that is far off."""
    model = ImageDiffusionConfig(
        (1, 4, 4), UNetConfig((4, 8), depth=1), ScheduleConfig("cosine"), "velocity", steps=5
    ).build()
    model.mean.fill_(0.3)
    model.std.fill_(0.2)
    seen = []

    def denoise(x, log_snr):
        seen.append(x)
        return torch.zeros_like(x), torch.full_like(x, 50.0)

    model.denoise = denoise
    z = torch.randn(2, 1, 4, 4, generator=generator())
    assert torch.equal(model.decode(z), torch.ones(2, 1, 4, 4))
    x, stations = z.double(), model.schedule.steps(5)
    for log_snr, target, found in zip(stations, stations[1:], seen, strict=False):
        torch.testing.assert_close(found.double(), x, rtol=1e-5, atol=1e-5)
        (a, a_rate), (b, b_rate) = (
            signal_and_noise(torch.tensor(v, dtype=torch.float64)) for v in (log_snr, target)
        )
        white = (1 - 0.3) / 0.2
        x = b * white + b_rate * (x - a * white) / a_rate
    seen.clear()
    model.decode(z, clip=None)
    assert float(seen[-1].max()) > 20
    with pytest.raises(ValueError, match=r"clip is \(1.0, 0.0\).*lowest and the highest"):
        model.decode(z, clip=(1.0, 0.0))
    with pytest.raises(ValueError, match=r"clip is None and quantile 0.9"):
        model.sample(1, clip=None, quantile=0.9)


def test_estimates_in_a_range_are_pulled_as_data_are():
    """Past an end: as from that end, and not at all if the data are there; inside as ever."""
    low, high = torch.zeros(()), torch.ones(())
    x = torch.tensor([-2.0, -2.0, -0.5, 0.4, 3.0, 3.0], requires_grad=True)
    data = torch.tensor([0.0, 0.3, 0.0, 0.9, 1.0, 0.0])
    found = within(x, low, high)
    assert found.tolist() == pytest.approx([0.0, 0.0, 0.0, 0.4, 1.0, 1.0])
    ((found - data).square() / 2).sum().backward()
    np.testing.assert_allclose(x.grad, [0.0, -0.3, 0.0, -0.5, 0.0, 1.0], atol=1e-6)
    # Descent from outside ends in the mean of data that are at an end in nine of ten cases.
    data = torch.tensor([0.0] * 9 + [1.0])
    guess = torch.full((1,), -3.0, requires_grad=True)
    for _ in range(400):
        (grad,) = torch.autograd.grad((within(guess, low, high) - data).square().sum(), guess)
        guess = (guess - 0.02 * grad).detach().requires_grad_()
    assert float(guess.detach()) == pytest.approx(0.1, abs=1e-4)


def test_a_model_of_pixels_estimates_pixels():
    shape = (3, 4, 4)
    model = ImageDiffusionConfig(
        shape, UNetConfig((4, 8), depth=1), ScheduleConfig("cosine"), "pixels", steps=3
    ).build()
    images = (
        torch.rand(8, *shape, generator=generator()) * torch.tensor([1, 0.2, 0.6])[:, None, None]
    )
    model.initialise(images)
    model.network.forward = lambda x, log_snr: 5 * x  # mostly out of range
    x, log_snr = torch.randn(8, *shape, generator=generator(1)), torch.linspace(-6, 6, 8)
    noise, data = model.denoise(x, log_snr)
    expected = ((model.mean + model.std * 5 * x).clamp(0, 1) - model.mean) / model.std
    torch.testing.assert_close(data, expected, rtol=1e-5, atol=1e-5)
    signal, rate = (part.view(8, 1, 1, 1) for part in signal_and_noise(log_snr))
    torch.testing.assert_close(signal * data + rate * noise, x, rtol=1e-4, atol=1e-4)
    assert float(model.sample(2, generator()).min()) >= 0


def test_ddpm_on_gaussian_data_has_the_right_variance():
    """In 200 steps its variance is that of the data."""
    exact = gaussian()
    schedule = Schedule(ScheduleConfig("cosine"))
    x = torch.randn(10_000, 2, generator=generator(1), dtype=torch.float64)
    stations = schedule.steps(200)
    draws = generator(2)
    for log_snr, target in itertools.pairwise(stations):
        noise, data = exact(x, levels(x, log_snr))
        x = ddim_step(noise, data, log_snr, target, 1.0, draws)
    torch.testing.assert_close(x.mean(0), exact.means[0], rtol=0, atol=0.05)
    torch.testing.assert_close(x.std(0), exact.std, rtol=0.03, atol=0)


def test_ddpm_is_ddim_with_eta_one():
    """A draw from q(x_s | x_t, data) as Ho et al. 2020 write it, equations 6 and 7."""
    x = torch.randn(5, 2, generator=generator(), dtype=torch.float64)
    noise, data = gaussian()(x, levels(x, -1.0))
    a_t, a_s = (1 / (1 + math.exp(-log_snr)) for log_snr in (-1.0, 0.5))
    beta = 1 - a_t / a_s
    mean = a_s**0.5 * beta / (1 - a_t) * data + (a_t / a_s) ** 0.5 * (1 - a_s) / (1 - a_t) * x
    eps = torch.randn(5, 2, generator=generator(3), dtype=torch.float64)
    theirs = mean + (beta * (1 - a_s) / (1 - a_t)) ** 0.5 * eps
    ours = ddim_step(noise, data, -1.0, 0.5, 1.0, generator(3))
    torch.testing.assert_close(ours, theirs)
    assert ddim_noise(-1.0, 0.5, 1.0) == pytest.approx(2 * ddim_noise(-1.0, 0.5, 0.5))
    assert ddim_noise(-1.0, math.inf, 1.0) == 0


def test_likelihood_of_gaussian_data_by_the_probability_flow():
    """Of the data blurred by the noise that is left, which the flow knows."""
    exact = gaussian()
    x = draw(exact, 20)
    found = ode_log_prob(exact, x, 9.0, -24.0, 200)
    blurred = (exact.std**2 + math.exp(-9.0)).sqrt()
    expected = torch.distributions.Normal(exact.means[0], blurred).log_prob(x).sum(1)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)


def test_likelihood_of_the_moons_by_the_probability_flow():
    density = Standardised(TwoMoons(noise=0.1))
    exact = MixtureDenoiser.of(density)
    x = density.sample(20, generator()).double()
    found = ode_log_prob(exact, x, 12.0, -12.0, 150)
    torch.testing.assert_close(found, density.log_prob(x), rtol=0, atol=2e-3)


def test_hutchinson_trace_is_right_in_the_mean():
    torch.manual_seed(0)
    mixing = 0.3 * torch.randn(2, 2, dtype=torch.float64)

    def denoise(x, log_snr):
        noise = (x @ mixing).tanh()
        return noise, x - noise

    x = torch.randn(1, 2, generator=generator(), dtype=torch.float64)
    with torch.no_grad():
        exact = ode_log_prob(denoise, x, 2.0, -2.0, 4)
        x = x.expand(4000, 2)
        many = ode_log_prob(denoise, x, 2.0, -2.0, 4, "hutchinson", generator())
    assert float(many.std()) > 0.01
    assert float(many.mean() - exact) == pytest.approx(0, abs=4 * float(many.std()) / 4000**0.5)


def test_variational_bound_is_tight_for_the_exact_denoiser():
    """E log p(x | x_start) - gap = -entropy, in the mean over data (Kingma et al. 2021)."""
    exact = gaussian()
    x = draw(exact, 30_000, 1)
    gap = variational_gap(exact, x, 9.0, -12.0, 20, generator(2))
    # Of data given x_start, noise / signal = r: N(m, s^2 + r^2) blurred; as p(x_start | x) has r.
    r2 = math.exp(-9.0)
    first = math.log(2 * math.pi * math.e * r2)
    entropy = (2 * math.pi * math.e * (exact.std**2 + r2)).log().sum() / 2
    assert float(gap.mean()) == pytest.approx(float(entropy) - first, abs=0.05)


# ---------------------------------------------------------------------------------------------
# Samplers, against another library
# ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def diffusers():
    return pytest.importorskip("diffusers", reason=WHY_DIFFUSERS)


@pytest.mark.oracle
@pytest.mark.parametrize(
    ("name", "betas"),
    [
        ("linear", linear_betas()),
        ("scaled_linear", scaled_linear_betas()),
        ("squaredcos_cap_v2", cosine_betas()),
    ],
)
def test_betas_equal_those_of_diffusers(diffusers, name, betas):
    theirs = diffusers.DDPMScheduler(beta_schedule=name).alphas_cumprod
    np.testing.assert_allclose((1 - betas).cumprod(0), theirs, rtol=3e-4, atol=1e-8)


@pytest.mark.oracle
def test_ddpm_steps_equal_those_of_diffusers(diffusers):
    """The same estimates and the same noise, step by step.

    But for the last step, in which diffusers adds noise unless it is step 0 of the training.
    """
    theirs = diffusers.DDPMScheduler(clip_sample=False, timestep_spacing="trailing")
    theirs.set_timesteps(50)
    stations = Schedule(ScheduleConfig("linear")).steps(50)
    x = y = torch.randn(4, 3, 5, 5, generator=generator(1), dtype=torch.float64)
    draws, same = generator(2), generator(2)
    for t, (log_snr, target) in zip(
        theirs.timesteps, itertools.pairwise(stations[:-1]), strict=False
    ):
        y = theirs.step((0.7 * y).sin(), t, y, generator=same).prev_sample
        noise, data = estimates((0.7 * x).sin(), x, levels(x, log_snr), "noise")
        x = ddim_step(noise, data, log_snr, target, 1.0, draws)
    torch.testing.assert_close(x, y.double(), rtol=2e-3, atol=2e-3)


@pytest.mark.oracle
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("prediction", ["noise", "velocity"])
def test_ddim_steps_equal_those_of_diffusers(diffusers, eta, prediction):
    names = {"noise": "epsilon", "velocity": "v_prediction"}
    theirs = diffusers.DDIMScheduler(
        clip_sample=False,
        set_alpha_to_one=True,
        timestep_spacing="trailing",
        prediction_type=names[prediction],
    )
    theirs.set_timesteps(40)
    stations = Schedule(ScheduleConfig("linear")).steps(40)
    x = y = torch.randn(4, 3, 5, 5, generator=generator(1), dtype=torch.float64)
    draws, same = generator(2), generator(2)
    for t, (log_snr, target) in zip(theirs.timesteps, itertools.pairwise(stations), strict=True):
        y = theirs.step((0.7 * y).sin(), t, y, eta=eta, generator=same).prev_sample
        noise, data = estimates((0.7 * x).sin(), x, levels(x, log_snr), prediction)
        x = ddim_step(noise, data, log_snr, target, eta, draws)
    torch.testing.assert_close(x, y.double(), rtol=2e-3, atol=2e-3)


# ---------------------------------------------------------------------------------------------
# Networks
# ---------------------------------------------------------------------------------------------


def test_sizes_are_the_books():
    model = IMAGE_DIFFUSION_BOOK.build()
    assert sum(p.numel() for p in model.parameters()) == 1_950_627
    statistics = [b for name, b in model.network.named_buffers() if "running" in name]
    assert sum(b.numel() for b in statistics) == 2_880
    blocks = [*model.network.down, *model.network.bottom, *model.network.up]
    assert [sum(p.numel() for p in block.parameters()) for block in blocks] == [
        29_792, 18_496, 57_536, 73_856, 144_672, 166_080, 270_720, 295_168,
        298_272, 267_552, 139_456, 118_976, 40_032, 29_792,
    ]  # fmt: skip


# ---------------------------------------------------------------------------------------------
# Models and learner
# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prediction", ["noise", "velocity"])
def test_estimates_from_the_true_output(prediction):
    x, eps = torch.randn(2, 6, 1, 4, 4, generator=generator(), dtype=torch.float64)
    log_snr = torch.linspace(-5, 8, 6, dtype=torch.float64)
    signal, rate = (part.view(6, 1, 1, 1) for part in signal_and_noise(log_snr))
    output = eps if prediction == "noise" else signal * eps - rate * x
    noise, data = estimates(output, signal * x + rate * eps, log_snr, prediction)
    torch.testing.assert_close(noise, eps)
    torch.testing.assert_close(data, x)


def test_losses_by_hand():
    """Weights of one example each, from errors of noise, velocity and data."""
    x = torch.randn(1, 3, generator=generator(), dtype=torch.float64)
    schedule = Schedule(ScheduleConfig(max_signal=0.50001, min_signal=0.5))  # one level only
    signal, rate = 0.5, math.sqrt(0.75)
    snr = (signal / rate) ** 2

    def denoise(noisy, log_snr):
        noise = noisy.sin()
        return noise, (noisy - rate * noise) / signal

    def loss(**settings):
        config = replace(DIFFUSION_BOOK, **settings)
        return diffusion_loss(denoise, x, schedule, config, generator(5))

    draws = generator(5)
    torch.rand(1, generator=draws, dtype=torch.float64)  # the time
    eps = torch.randn(1, 3, generator=draws, dtype=torch.float64)
    noise, data = denoise(signal * x + rate * eps, None)
    velocity = (signal * eps - rate * x) - (signal * noise - rate * data)
    close = {"rtol": 1e-4, "atol": 0}
    torch.testing.assert_close(loss().loss, (eps - noise).abs().mean(), **close)
    torch.testing.assert_close(loss(error="squared").loss, (eps - noise).square().mean(), **close)
    torch.testing.assert_close(
        loss(error="squared", weighting="velocity").loss, velocity.square().mean(), **close
    )
    for gamma in (0.1, 5.0):
        torch.testing.assert_close(
            loss(error="squared", weighting="min-snr", gamma=gamma).loss,
            min(snr, gamma) * (x - data).square().mean(),
            **close,
        )


@pytest.mark.parametrize("even", [False, True])
@pytest.mark.parametrize("drawn", ["time", "log-snr"])
def test_noise_levels_in_training(even, drawn):
    """As asked for, whatever is spread evenly: by their quantiles."""
    seen = []

    def denoise(noisy, log_snr):
        seen.append(log_snr)
        return noisy, noisy

    schedule = Schedule()
    config = DiffusionLossConfig(levels=drawn, even=even)
    diffusion_loss(denoise, torch.zeros(20_000, 1), schedule, config, generator())
    found = seen[0].double().sort().values[2_000::4_000]
    share = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9], dtype=torch.float64)
    high, low = schedule.ends
    expected = schedule.log_snr(1 - share) if drawn == "time" else low + (high - low) * share
    torch.testing.assert_close(found, expected, rtol=0, atol=0.01 if even else 0.2)


def test_average_of_weights_and_batch_statistics():
    torch.manual_seed(0)
    config = ImageDiffusionConfig((1, 8, 8), replace(UNET_BOOK, channels=(4, 8), depth=1))
    model = config.build()
    learner = DiffusionLearner(model, replace(DIFFUSION_BOOK, ema=0.9), steps=30)
    names = ["network.last.weight", "network.down.0.norm.running_mean"]
    expected = None
    for step in range(30):
        learner.update(torch.rand(4, 1, 8, 8))
        now = [learner.model.state_dict()[name].double() for name in names]
        if expected is None:
            expected = [value.clone() for value in now]
        decay = min(0.9, (1 + step) / (10 + step))
        expected = [decay * a + (1 - decay) * b for a, b in zip(expected, now, strict=True)]
    kept = learner.kept.state_dict()
    for name, value in zip(names, expected, strict=True):
        torch.testing.assert_close(kept[name].double(), value, rtol=1e-4, atol=1e-7)
    assert kept["network.down.0.norm.num_batches_tracked"] == 30
    assert not torch.equal(kept[names[0]], learner.model.state_dict()[names[0]])


def test_images_are_normalised_by_their_channels():
    model = ImageDiffusionConfig((3, 8, 8), UNetConfig((4, 8), depth=1)).build()
    x = (
        torch.rand(50, 3, 8, 8, generator=generator())
        * torch.tensor([0.2, 0.5, 1.0])[:, None, None]
    )
    model.initialise(x)
    y = model.normalise(x)
    torch.testing.assert_close(y.mean((0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(y.std((0, 2, 3), correction=0), torch.ones(3))
    torch.testing.assert_close(model.denormalise(y), x)
    with pytest.raises(ValueError, match="same everywhere"):
        model.initialise(torch.zeros(2, 3, 8, 8))


class Known(torch.nn.Module):
    """In place of a network: the best estimate for images whose pixels are independent bits."""

    def __init__(self):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(()))

    def forward(self, x, log_snr):
        signal, rate = (part.view(-1, 1, 1, 1) for part in signal_and_noise(log_snr))
        data = torch.tanh(x * signal / rate**2)  # of pixels that are -1 or 1 with equal chances
        return (x - signal * data) / rate


def test_bound_of_fair_bits_is_tight():
    """Each pixel is black or white with equal chances: log 2 nats each, and no model has less."""
    config = ImageDiffusionConfig(
        (1, 4, 4), UNetConfig((4, 8), depth=1), ScheduleConfig(max_signal=0.9999), levels=2
    )
    model = config.build()
    model.network = Known()
    x = torch.randint(0, 2, (800, 1, 4, 4), generator=generator()).float()
    bound = model.bound(x, num_draws=64, generator=generator(1))
    error = float(bound.std()) / math.sqrt(800)
    assert float(bound.mean()) == pytest.approx(-16 * math.log(2), abs=4 * error + 0.02)
    assert error < 0.1
    bits = model.sample(500, generator(2), steps=60, eta=1.0)
    assert float((bits - bits.round()).abs().max()) < 0.01
    assert float(bits.mean()) == pytest.approx(0.5, abs=0.03)


def test_more_levels_explain_a_pixel_by_its_neighbours():
    """The part of the bound that is between levels, by a sum over them."""
    config = ImageDiffusionConfig((1, 2, 2), UNetConfig((4, 8), depth=1), levels=5)
    model = config.build()
    x = torch.tensor([[[[0.0, 0.25], [0.75, 1.0]]]])
    log_snr = 1.5
    found = model._log_prob_of_levels(x, log_snr, generator(4))
    width = math.exp(-log_snr / 2)  # noise / signal, of numbers from -1 to 1
    eps = torch.randn(x.shape, generator=generator(4))
    total = 0.0
    for pixel, noise in zip(x.flatten().tolist(), eps.flatten().tolist(), strict=True):
        seen = (2 * pixel - 1) + width * noise
        chances = [math.exp(-((seen - v) ** 2) / (2 * width**2)) for v in (-1, -0.5, 0, 0.5, 1)]
        total += math.log(chances[round(4 * pixel)] / sum(chances))
    assert float(found) == pytest.approx(total, abs=1e-4)


def test_encode_and_decode_images():
    """DDIM there and back, with the exact denoiser: the same bits."""
    config = ImageDiffusionConfig(
        (1, 4, 4), UNetConfig((4, 8), depth=1), ScheduleConfig(max_signal=0.999)
    )
    model = config.build()
    model.network = Known()
    x = torch.randint(0, 2, (6, 1, 4, 4), generator=generator()).float()
    z = model.encode(x, steps=200)
    torch.testing.assert_close(model.decode(z, steps=200), x, rtol=0, atol=0.01)
    assert float(z.std()) > 0.3


def test_a_model_in_evaluation_mode_keeps_no_graph():
    """Through 64 steps of the solver; in training mode, or of an input, there is a gradient."""
    torch.manual_seed(0)
    model = PointDiffusionConfig(hidden_dim=8, num_hidden=1, ode_steps=4).build()
    torch.nn.init.normal_(model.network.last.weight, std=0.3)
    x = torch.randn(3, 2, generator=generator())
    for method in (model.log_prob, model.encode, model.decode):
        trained, valued = model.train() and method(x), model.eval() and method(x)
        assert trained.requires_grad
        assert not valued.requires_grad
        torch.testing.assert_close(valued, trained)
        wanted = x.clone().requires_grad_()
        assert torch.autograd.grad(method(wanted).sum(), wanted)[0].any()
        with torch.no_grad():
            assert not method(wanted).requires_grad


def test_points_there_and_back():
    torch.manual_seed(0)
    model = PointDiffusionConfig(hidden_dim=16, num_hidden=2).build()
    torch.nn.init.normal_(model.network.last.weight, std=0.3)
    x = torch.randn(20, 2, generator=generator())
    with torch.no_grad():
        z = model.encode(x)
        torch.testing.assert_close(model.decode(z), x, rtol=0, atol=1e-4)
    exact = model.double()
    row = x[0].double()
    jacobian = torch.autograd.functional.jacobian(lambda r: exact.encode(r[None])[0], row)
    with torch.no_grad():
        normal = torch.distributions.Normal(0.0, 1.0).log_prob(exact.encode(row[None])).sum()
    expected = normal + torch.linalg.slogdet(jacobian).logabsdet
    torch.testing.assert_close(exact.log_prob(row[None])[0], expected, rtol=0, atol=1e-4)


def test_models_of_points_from_before_there_were_waves_are_loaded(tmp_path):
    model = PointDiffusionConfig(hidden_dim=8, num_hidden=1, num_waves=0).build()
    model.save_pretrained(tmp_path / "model")
    saved = json.loads((tmp_path / "model" / "config.json").read_text())
    del saved["config"]["num_waves"]
    files = {
        "config.json": json_bytes(saved),
        "model.safetensors": (tmp_path / "model" / "model.safetensors").read_bytes(),
    }
    write_folder(tmp_path / "older", files)
    again = Diffusion.from_pretrained(tmp_path / "older")
    assert again.config == model.config
    assert torch.equal(again.sample(3, generator()), model.sample(3, generator()))


def test_images_from_before_attention_had_a_place_are_loaded(tmp_path):
    for i, (attention, before) in enumerate((((1,), True), ((), False))):
        network = UNetConfig((4, 8), 1, attention=attention)
        model = ImageDiffusionConfig((1, 4, 4), network).build().eval()
        model.save_pretrained(tmp_path / "model")
        saved = json.loads((tmp_path / "model" / "config.json").read_text())
        saved["config"]["network"]["attention"] = before
        weights = (tmp_path / "model" / "model.safetensors").read_bytes()
        files = {"config.json": json_bytes(saved), "model.safetensors": weights}
        write_folder(tmp_path / f"older {i}", files)
        again = Diffusion.from_pretrained(tmp_path / f"older {i}")
        assert again.config == model.config
        assert torch.equal(again.sample(2, generator()), model.sample(2, generator()))


class Mover(nn.Module):
    """A network that is put together elsewhere: of a frame and of what is done to it."""

    def __init__(self):
        super().__init__()
        self.network = UNet(2, UNetConfig((4, 8), 1, norm="group"), context_dim=3)

    def forward(self, x: torch.Tensor, log_snr: torch.Tensor, context: torch.Tensor):
        return self.network(x, log_snr, context)


def by_hand() -> Diffusion:
    torch.manual_seed(0)
    return Diffusion(Mover(), (2, 4, 4), ScheduleConfig(max_signal=0.999), "velocity", steps=3)


def test_a_model_put_together_by_hand_works_everywhere(tmp_path):
    """Latents with a context: trained, sampled, taken there and back, saved by its weights."""
    model = by_hand()
    x, context = torch.randn(6, 2, 4, 4), torch.randn(6, 3)
    before = model.network.network.told.weight.clone()
    learner = DiffusionLearner(model, DiffusionLossConfig(), steps=4)
    for _ in range(4):
        learner.update((x, context))
    assert not torch.equal(model.network.network.told.weight, before)
    kept = learner.kept
    samples = kept.sample(6, generator(), context=context)
    assert samples.shape == (6, 2, 4, 4)
    assert not torch.equal(kept.sample(6, generator(), context=-context), samples)
    z = kept.encode(x, steps=300, context=context)
    torch.testing.assert_close(kept.decode(z, 300, context), x, rtol=0, atol=0.2)
    kept.save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match=r"Diffusion that was put together by hand.*load_weights"):
        Diffusion.from_pretrained(tmp_path / "model")
    again = by_hand().eval()
    again.load_weights(tmp_path / "model")
    assert torch.equal(again.sample(6, generator(), context=context), samples)
    other = Diffusion(UNet(2, UNetConfig((4, 8), 1)), (2, 4, 4), ScheduleConfig())
    with pytest.raises(DamagedFileError, match="missing weights"):
        other.load_weights(tmp_path / "model")


def test_verbs_that_a_model_has_not_say_so():
    latents, images = by_hand(), IMAGES.build()
    points = PointDiffusionConfig(hidden_dim=8, num_hidden=1).build()
    for call in (lambda: latents.bound(torch.zeros(1, 2, 4, 4)), lambda: points.initialise(0)):
        with pytest.raises(ValueError, match="is for images of some levels"):
            call()
    with pytest.raises(ValueError, match="use bound"):
        images.log_prob(torch.zeros(1, 1, 8, 8))
    with pytest.raises(ValueError, match=r"solver 'rk4' has no eta, clip"):
        points.decode(torch.zeros(1, 2), eta=1.0, clip=None)


def test_gradient_of_the_loss_reaches_every_weight_of_a_model_of_points():
    torch.manual_seed(0)
    model = PointDiffusionConfig(hidden_dim=8, num_hidden=2).build()
    torch.nn.init.normal_(model.network.last.weight)
    model.loss(torch.randn(16, 2)).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.any(), name


def test_learns_one_gaussian():
    """The simple loss comes to its floor, samples to their moments."""
    density = gaussian((0.0, 0.0), (0.4, 1.3))
    torch.manual_seed(0)
    model = PointDiffusionConfig(hidden_dim=32, num_hidden=2).build()
    config = DiffusionLossConfig(weighting="noise", lr=1e-2, final_lr=1e-4, clip=0.0, ema=0.98)
    learner = DiffusionLearner(model, config, steps=300)
    for step in range(300):
        learner.update(draw(density, 256, step).float())
    kept = learner.kept
    x = draw(density, 20_000, 1).float()
    floor = density.floor(model.schedule, 2**12)
    with torch.no_grad():
        found = kept.loss(x, replace(config, error="squared"), generator(2)).noise_mse
    assert float(found) < 1.05 * floor
    std = kept.sample(4000, generator(3)).std(0)
    torch.testing.assert_close(std, density.std.float(), rtol=0.08, atol=0)


NO_SIGNAL = (
    ScheduleConfig("cosine"),
    ScheduleConfig("cosine-betas"),
    ScheduleConfig(min_signal=0.001),
    ScheduleConfig("linear", num_betas=2000),
    ScheduleConfig("linear", beta_end=0.05),
    ScheduleConfig("scaled-linear", beta_end=0.1),
)


@pytest.mark.parametrize(
    "schedule", [ScheduleConfig(), ScheduleConfig("linear"), ScheduleConfig("scaled-linear")]
)
def test_noise_is_predicted_where_signal_is_left(schedule):
    """The book's schedule, DDPM's, and that of latent diffusion; by where they end."""
    assert PointDiffusionConfig(schedule=schedule, prediction="noise").schedule == schedule
    end = float(torch.tensor(Schedule(schedule).ends[1]).sigmoid().sqrt())
    assert last_signal(schedule) == pytest.approx(end, rel=1e-6)


@pytest.mark.parametrize("schedule", NO_SIGNAL)
def test_noise_is_not_predicted_where_no_signal_is_left(schedule):
    table = Schedule(schedule).alpha_bar
    known = {"cosine": 0.0, "offset-cosine": schedule.min_signal}
    end = known[schedule.kind] if table is None else float(table[-1].sqrt())
    assert last_signal(schedule) == pytest.approx(end, rel=1e-9)
    for kind in (ImageDiffusionConfig, PointDiffusionConfig):
        assert kind(schedule=schedule, prediction="velocity").prediction == "velocity"
        with pytest.raises(ValueError, match=r"ends with signal rate .*use prediction velocity"):
            kind(schedule=schedule, prediction="noise")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: ScheduleConfig(max_signal=1.0),
            "max_signal is 1.0, and must be",
        ),
        (lambda: ScheduleConfig(num_betas=0), "num_betas is 0"),
        (lambda: ScheduleConfig(beta_start=0.5), "betas go from 0.5 to 0.02"),
        (lambda: UNetConfig((8,)), r"channels is \(8,\); give two numbers or more"),
        (lambda: UNetConfig(embedding_dim=5), "even number from 4"),
        (lambda: UNetConfig(depth=0), "depth is 0"),
        (lambda: UNetConfig(dropout=1.0), "dropout is 1.0"),
        (lambda: UNetConfig(max_frequency=1.0), "must be above 1"),
        (lambda: ImageDiffusionConfig((3, 20, 20)), "that 8 divides"),
        (lambda: ImageDiffusionConfig(schedule=ScheduleConfig("cosine")), "prediction velocity"),
        (lambda: ImageDiffusionConfig(steps=0), "steps is 0"),
        (lambda: ImageDiffusionConfig(levels=1), "levels is 1"),
        (lambda: PointDiffusionConfig(dim=0), "dim is 0"),
        (
            lambda: Diffusion(nn.Identity(), (2,), ScheduleConfig(), "pixels"),
            "without levels examples are no pixels.*prediction data",
        ),
        (lambda: PointDiffusionConfig(embedding_dim=2), "even number from 4"),
        (lambda: DiffusionLossConfig(gamma=0.0), "gamma is 0.0"),
        (lambda: DiffusionLossConfig(ema=1.0), "ema is 1.0"),
        (lambda: Schedule().steps(0), "num is 0, and must be an integer, at least 1"),
        (lambda: Schedule(ScheduleConfig("linear")).steps(1001), "1 to 1000, the number of betas"),
        (lambda: Schedule().steps(5, "karras"), "give 'time' or 'log-snr'"),
        (
            lambda: ode_log_prob(gaussian(), torch.zeros(1, 2), 1.0, 0.0, 1, "full"),
            "'full'; give 'exact' or 'hutchinson'",
        ),
        (
            lambda: IMAGES.build().bound(torch.full((1, 1, 8, 8), 0.3)),
            "multiples of 1/2",
        ),
    ],
)
def test_what_cannot_be_is_explained(make, message):
    with pytest.raises(ValueError, match=message):
        make()
