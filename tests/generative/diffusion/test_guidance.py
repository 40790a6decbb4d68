"""Guidance against its closed form for Gaussians, and what is left out and told in training."""

import functools
import itertools
import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import torch

from generative.diffusion import (
    Diffusion,
    DiffusionLossConfig,
    Guidance,
    MixtureDenoiser,
    Schedule,
    ScheduleConfig,
    clip_data,
    ddim_noise,
    denoising_path,
    drop_context,
    estimates,
    guided,
    level_losses,
    signal_and_noise,
)

torch.set_num_threads(1)

MEAN, TOLD_VARIANCE, VARIANCE = 1.0, 0.25, 1.25
"""Data given the condition are N(1, 1/4), and of any condition N(0, 5/4)."""
TABLE = {1: (1.0, 0.5), 2: (1.3228, 0.2236), 3: (1.4, 0.1), 4: (1.3968, 0.0447)}
"""Mean and deviation at the end of the guided flow, by scale."""


def gaussian(mean: float, variance: float):
    """Exact denoiser of N(mean, variance), as `MixtureDenoiser` is, without its sums."""

    def denoise(x, log_snr):
        signal, rate = (part[:, None] for part in signal_and_noise(log_snr))
        gain = signal * variance / (signal**2 * variance + rate**2)
        data = mean + gain * (x - signal * mean)
        return (x - signal * data) / rate, data

    return denoise


TOLD, UNTOLD = gaussian(MEAN, TOLD_VARIANCE), gaussian(0.0, VARIANCE)


def test_both_denoisers_of_a_gaussian_are_the_same():
    x, log_snr = torch.linspace(-3, 3, 7)[:, None].double(), torch.linspace(-9, 9, 7).double()
    for mean, variance, denoise in ((MEAN, TOLD_VARIANCE, TOLD), (0.0, VARIANCE, UNTOLD)):
        centre = torch.tensor([[mean]], dtype=torch.float64)
        mixture = MixtureDenoiser(centre, torch.tensor([variance**0.5]).double(), centre[0] * 0)
        for ours, theirs in zip(denoise(x, log_snr), mixture(x, log_snr), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


def stations(num: int) -> list[float]:
    """From log_snr -14 to 14 in equal steps, then data."""
    return [*np.linspace(-14, 14, num).tolist(), math.inf]


def flow_by_formula(scale: float, last: float = 0.0) -> tuple[float, float]:
    """Mean s m int_e^inf r / (v + r^2) Phi(e) / Phi(r) dr with Phi(r) = (v + r^2)^(s/2)
    (u + r^2)^((1 - s)/2), and deviation Phi(e), v and u the variances told and untold: the guided
    flow in the noise-to-signal ratio r is linear in x. From the last ratio e with guidance to 0 the
    plain flow draws all towards m, by the square root of v / (v + e^2)."""
    r = np.concatenate([np.linspace(last, 50, 400_001), np.geomspace(50, 1e7, 40_001)[1:]])
    v, u, s = TOLD_VARIANCE, VARIANCE, scale

    def phi(r):
        return (v + r**2) ** (s / 2) * (u + r**2) ** ((1 - s) / 2)

    mean = s * MEAN * np.trapezoid(r / (v + r**2) * phi(last) / phi(r), r)
    plain = math.sqrt(v / (v + last**2))
    return float(MEAN + plain * (mean - MEAN)), plain * phi(last)


@functools.cache
def linear_ends(scale: float, num: int, interval=None) -> tuple[float, float]:
    """Mean and deviation that DDIM makes of standard normal noise. Every step is linear in x, so
    that the ends of two points tell both."""
    x = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    *_, last = denoising_path(guided(TOLD, UNTOLD, scale, interval), x, stations(num))
    return float(last.x[0]), float(last.x[1] - last.x[0])


@pytest.mark.parametrize("scale", TABLE)
def test_ddim_with_guidance_ends_where_the_guided_flow_does(scale):
    mean, std = TABLE[scale]
    assert flow_by_formula(scale) == pytest.approx((mean, std), abs=6e-5)
    found = linear_ends(scale, 1000)
    assert found[0] == pytest.approx(mean, rel=0.01)
    assert found[1] == pytest.approx(std, rel=0.01 if scale <= 2 else 0.025)


@pytest.mark.parametrize("highest", [-2.0, 0.0, 2.0])
def test_ddim_with_guidance_in_an_interval_ends_where_that_flow_does(highest):
    mean, std = flow_by_formula(3.0, last=math.exp(-highest / 2))
    found = linear_ends(3.0, 2000, (-20.0, highest))
    assert found == pytest.approx((mean, std), rel=0.02)
    assert mean > TABLE[1][0] + 0.1
    assert TABLE[3][1] < std < TABLE[1][1]


def test_outside_the_interval_the_other_denoiser_is_not_asked():
    asked = []

    def untold(x, log_snr):
        asked.extend(log_snr.tolist())
        return UNTOLD(x, log_snr)

    x, within = torch.randn(4, 1), guided(TOLD, untold, 3.0, (-4.0, -1.0))
    everywhere = guided(TOLD, UNTOLD, 3.0)
    for level, wanted in ((-5.0, TOLD), (-4.0, everywhere), (-1.0, everywhere), (0.0, TOLD)):
        log_snr = torch.full((4,), level)
        for ours, theirs in zip(within(x, log_snr), wanted(x, log_snr), strict=True):
            assert torch.equal(ours, theirs)
    assert set(asked) == {-4.0, -1.0}
    mixed = torch.tensor([-5.0, -2.0, -1.5, 3.0])
    found, plain, pushed = (one(x, mixed)[1] for one in (within, TOLD, everywhere))
    assert torch.equal(found[[0, 3]], plain[[0, 3]])
    assert torch.equal(found[1:3], pushed[1:3])


def test_an_interval_needs_a_width():
    with pytest.raises(ValueError, match="lowest and the highest log SNR"):
        guided(TOLD, UNTOLD, 3.0, (0.0, -2.0))


def test_more_steps_come_nearer_to_the_flow():
    errors = [abs(linear_ends(2, num)[1] - TABLE[2][1]) for num in (100, 200, 1000)]
    assert errors[0] > errors[1] > errors[2]
    assert linear_ends(2, 200) == pytest.approx((1.3253, 0.2172), abs=2e-3)


def test_guidance_does_not_draw_from_the_tilted_density():
    """Of density p(x | c)^2 / p(x) mean and deviation are 1.1111 and 0.3727."""
    precision = 2 / TOLD_VARIANCE - 1 / VARIANCE
    tilted = 2 * MEAN / TOLD_VARIANCE / precision, precision**-0.5
    assert tilted == pytest.approx((1.1111, 0.3727), abs=5e-5)
    mean, std = linear_ends(2, 1000)
    assert mean > tilted[0] + 0.2
    assert std < tilted[1] - 0.1


def test_ddpm_with_guidance_follows_its_own_recursion():
    """Mean and variance step by step: x_s = A x_t + b + std z, A and b from two points."""
    steps, scale = stations(200), 2.0
    denoise = guided(TOLD, UNTOLD, scale)
    mean, variance = 0.0, 1.0
    for log_snr, target in itertools.pairwise(steps):
        x = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
        noise, data = denoise(x, torch.full((2,), log_snr, dtype=torch.float64))
        std = ddim_noise(log_snr, target, 1.0)
        signal, rest = (1.0, 0.0) if target == math.inf else (
            math.sqrt(1 / (1 + math.exp(-target))), 1 / (1 + math.exp(target))
        )  # fmt: skip
        ends = (signal * data + math.sqrt(max(0.0, rest - std**2)) * noise)[:, 0].tolist()
        slope = ends[1] - ends[0]
        mean, variance = ends[0] + slope * mean, slope**2 * variance + std**2
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20_000, 1, generator=generator, dtype=torch.float64)
    *_, last = denoising_path(denoise, x, steps, 1.0, generator)
    assert float(last.x.mean()) == pytest.approx(mean, abs=4 * math.sqrt(variance / 20_000))
    assert float(last.x.std()) == pytest.approx(math.sqrt(variance), rel=0.02)
    # A third distribution, neither that of the flow nor the tilted one.
    assert mean < TABLE[2][0] - 0.1
    assert math.sqrt(variance) > TABLE[2][1] + 0.05


# ---------------------------------------------------------------------------------------------
# Models
# ---------------------------------------------------------------------------------------------


class Told(NamedTuple):
    """A condition of two parts, one of them absent."""

    shift: torch.Tensor
    other: torch.Tensor | None = None


class Shifted(torch.nn.Module):
    """Output 0.1 x + shift; remembers what it was told."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(0.1))
        self.told = []

    def forward(self, x, log_snr, condition):
        self.told.append(condition.shift)
        return self.weight * x + condition.shift


def model(prediction: str = "velocity", network: Shifted | None = None) -> Diffusion:
    return Diffusion(network or Shifted(), (2,), ScheduleConfig(), prediction, steps=5)


CONTEXT, NULL = Told(torch.full((4, 1), 0.3)), Told(torch.full((4, 1), -0.2))


def sample(diffusion: Diffusion, **told) -> torch.Tensor:
    return diffusion.sample(4, torch.Generator().manual_seed(0), **told)


def test_scale_one_is_conditional_sampling_bit_for_bit_and_zero_unconditional():
    network = Shifted()
    diffusion = model(network=network)
    for scale, same in ((1.0, CONTEXT), (0.0, NULL)):
        guidance = Guidance(NULL, scale)
        network.told.clear()
        assert torch.equal(
            sample(diffusion, context=CONTEXT, guidance=guidance), sample(diffusion, context=same)
        )
        assert len(network.told) == 10  # one call a step: the other is not asked


def test_both_conventions():
    diffusion = model()
    by_scale = sample(diffusion, context=CONTEXT, guidance=Guidance(NULL, 3.5))
    by_weight = sample(diffusion, context=CONTEXT, guidance=Guidance.of(NULL, 2.5))
    assert torch.equal(by_scale, by_weight)
    assert Guidance.of(NULL, 0.0).scale == 1


@pytest.mark.parametrize("prediction", ["noise", "velocity", "data"])
def test_guidance_is_the_same_for_noise_velocity_and_data(prediction):
    """The network's output, guided first and converted then, gives the same estimates."""
    diffusion, x = model(prediction), torch.randn(4, 2)
    log_snr = torch.tensor([-3.0, 0.0, 1.0, 4.0])
    with torch.no_grad():
        outputs = [diffusion.network(x, log_snr, told) for told in (CONTEXT, NULL)]
        wanted = estimates(outputs[1] + 3 * (outputs[0] - outputs[1]), x, log_snr, prediction)
        found = diffusion.guided(CONTEXT, Guidance(NULL, 3.0))(x, log_snr)
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_dynamic_thresholds_leave_what_is_inside_as_it_is():
    x = torch.rand(3, 3, 4, 4) * 2 - 1
    assert torch.equal(clip_data(x, -1, 1), x)
    torch.testing.assert_close(clip_data(x, -1, 1, quantile=0.995), x, rtol=0, atol=1e-7)
    wide = clip_data(3 * x, -1, 1, quantile=0.995)
    assert wide.abs().max() <= 1
    assert not torch.allclose(wide, (3 * x).clamp(-1, 1))


@pytest.mark.parametrize("prediction", ["noise", "velocity", "data"])
def test_estimates_from_the_true_output_of_every_kind(prediction):
    x, eps = torch.randn(5, 2, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64)
    log_snr = torch.linspace(-4, 4, 5, dtype=torch.float64)
    signal, rate = (part[:, None] for part in signal_and_noise(log_snr))
    outputs = {"noise": eps, "data": x, "velocity": signal * eps - rate * x}
    noise, data = estimates(outputs[prediction], signal * x + rate * eps, log_snr, prediction)
    torch.testing.assert_close(noise, eps)
    torch.testing.assert_close(data, x)


# ---------------------------------------------------------------------------------------------
# Training
# ---------------------------------------------------------------------------------------------


def test_dropped_examples_get_all_of_nothing_and_the_others_nothing_of_it():
    n = 4000
    context = Told(torch.ones(n, 3), None)
    null = Told(torch.zeros(n, 3), None)
    found = drop_context(context, null, 0.2, torch.Generator().manual_seed(0))
    assert isinstance(found, Told)
    assert found.other is None
    assert torch.equal(found.shift.amin(1), found.shift.amax(1))
    assert float(1 - found.shift[:, 0].mean()) == pytest.approx(0.2, abs=4 * 0.4 / n**0.5)
    assert drop_context(context, null, 0.0) is context
    assert torch.equal(drop_context(context.shift, null.shift, 1.0), null.shift)


def test_parts_of_the_two_conditions_have_to_be_the_same():
    with pytest.raises(ValueError, match=r"\(4, 2\).*\(4, 1\)"):
        drop_context(CONTEXT, Told(torch.zeros(4, 2)), 0.5)


def test_the_loss_drops_the_context():
    network = Shifted()
    diffusion, x = model(network=network), torch.randn(4, 2)
    config = DiffusionLossConfig(drop=0.5, weighting="data", error="squared")
    told = Told(torch.ones(4, 1))
    network.told.clear()
    torch.manual_seed(0)
    for _ in range(50):
        assert diffusion.loss(x, config, context=told, null=NULL).loss.isfinite()
    seen = torch.cat(network.told)
    assert seen.unique().tolist() == pytest.approx([-0.2, 1.0])
    with pytest.raises(ValueError, match=r"drop is 0\.5.*pass null"):
        diffusion.loss(x, config, context=told)
    network.told.clear()
    diffusion.loss(x, replace(config, drop=0.0), context=told)
    assert network.told[0] is told.shift


def test_weights_of_data_make_errors_of_the_data_alike():
    """A denoiser whose data are wrong by 1 everywhere loses 1 at every level."""

    def denoise(x, log_snr):
        rate = torch.exp(log_snr / 2)[:, None]  # noise wrong by signal / rate
        return eps_of[0] + rate, x

    x, eps_of = torch.randn(64, 3), []
    from generative.diffusion.model import diffusion_loss

    def remember(x_t, log_snr):
        signal, rate = (part[:, None] for part in signal_and_noise(log_snr))
        eps_of[:] = [(x_t - signal * x) / rate]
        return denoise(x_t, log_snr)

    config = DiffusionLossConfig(weighting="data", levels="log-snr")
    loss = diffusion_loss(remember, x, Schedule(ScheduleConfig()), config).loss
    assert float(loss) == pytest.approx(1, rel=1e-3)


def test_normal_noise_levels():
    from generative.diffusion.model import _draw_levels

    config = DiffusionLossConfig(levels="normal", level_mean=-3.0, level_std=1.5)
    schedule = Schedule(ScheduleConfig("cosine"))
    for even in (True, False):
        drawn = _draw_levels(
            torch.zeros(4000, 2), schedule, replace(config, even=even),
            torch.Generator().manual_seed(0),
        )  # fmt: skip
        assert float(drawn.mean()) == pytest.approx(-3, abs=0.1)
        assert float(drawn.std()) == pytest.approx(1.5, abs=0.06)
    narrow = Schedule(ScheduleConfig(max_signal=0.5))
    drawn = _draw_levels(torch.zeros(400, 2), narrow, config, None)
    high, low = narrow.ends
    assert low - 1e-5 <= float(drawn.min())
    assert float(drawn.max()) <= high + 1e-5


def test_losses_of_levels_are_those_of_the_posterior_variance():
    """Of N(1, 1/4) the best estimate of the data at ratio snr has error 1 / (4 + snr)."""
    generator = torch.Generator().manual_seed(0)
    x = 1 + 0.5 * torch.randn(20_000, 1, generator=generator, dtype=torch.float64)
    for found in level_losses(TOLD, x, (-4.0, 0.0, 3.0), generator):
        wanted = 1 / (4 + math.exp(found.log_snr))
        assert found.data == pytest.approx(wanted, rel=0.04)
        assert found.noise == pytest.approx(found.data * math.exp(found.log_snr), rel=1e-6)
