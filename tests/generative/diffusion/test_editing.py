"""Filling in, with a denoiser whose conditional distribution is known."""

import math

import pytest
import torch

from generative.diffusion import denoising_path, inpainting_path, noised, signal_and_noise

torch.set_num_threads(1)

RHO = 0.9
COVARIANCE = torch.tensor([[1.0, RHO], [RHO, 1.0]])


def pair(x, log_snr):
    """Exact denoiser of two normal numbers with correlation 0.9."""
    signal, rate = (float(part[0]) for part in signal_and_noise(log_snr))
    gain = signal * COVARIANCE @ torch.linalg.inv(signal**2 * COVARIANCE + rate**2 * torch.eye(2))
    data = x @ gain.T
    return (x - signal * data) / rate, data


def stations(num):
    return [*torch.linspace(-8, 8, num).tolist(), math.inf]


def filled(repeats, n=4000, given=1.5):
    generator = torch.Generator().manual_seed(0)
    known, hole = torch.tensor([[given, 77.0]]).expand(n, 2), torch.tensor([False, True])
    z = torch.randn(n, 2, generator=generator)
    steps = inpainting_path(pair, known, hole, z, stations(25), 1.0, generator, None, repeats)
    *_, last = steps
    assert torch.equal(last.x[:, 0], known[:, 0])
    return last.x[:, 1]


def test_a_hole_is_filled_by_the_conditional_distribution():
    """Of N(1.35, 0.19): the better, the more often each step is taken."""
    once, often = filled(1), filled(8)
    error = [abs(float(x.mean()) - RHO * 1.5) for x in (once, often)]
    assert error[1] < 0.06
    assert error[1] < error[0]
    assert float(often.std()) == pytest.approx(math.sqrt(1 - RHO**2), abs=0.05)


def test_all_of_it_is_plain_sampling():
    z = torch.randn(5, 2, generator=torch.Generator().manual_seed(1))
    hole = torch.ones(2, dtype=torch.bool)
    *_, plain = denoising_path(pair, z, stations(10))
    *_, inside = inpainting_path(pair, torch.zeros(5, 2), hole, z, stations(10))
    assert torch.equal(plain.x, inside.x)


def test_going_on_from_a_noised_example():
    x, eps, steps = torch.full((3, 2), 2.0), torch.ones(3, 2), stations(10)
    all_noise, left = noised(x, eps, steps, 1.0)
    assert left == steps
    signal, rate = (float(part) for part in signal_and_noise(torch.tensor(-8.0)))
    torch.testing.assert_close(all_noise, signal * x + rate * eps)
    little, left = noised(x, eps, steps, 0.3)
    assert left == steps[-4:]
    # The exact denoiser of these numbers leads back near where they were.
    *_, last = denoising_path(pair, little, left)
    assert (last.x - x).abs().max() < 0.2
    assert noised(x, eps, steps, 0.0)[1] == steps[-2:]


@pytest.mark.parametrize(
    ("hole", "message"),
    [
        (torch.ones(2), r"\(2,\) of torch.float32.*bool"),
        (torch.ones(3, dtype=torch.bool), r"\(3,\).*examples \(5, 2\)"),
        (torch.ones(4, 5, 2, dtype=torch.bool), r"\(4, 5, 2\).*examples \(5, 2\)"),
    ],
)
def test_holes_that_do_not_fit_are_told(hole, message):
    with pytest.raises(ValueError, match=message):
        list(inpainting_path(pair, torch.zeros(5, 2), hole, torch.zeros(5, 2), [0.0, 1.0]))
