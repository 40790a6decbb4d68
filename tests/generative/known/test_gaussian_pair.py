"""The Gaussian pair against published-by-formula values, sampling, and SciPy's distribution."""

import pytest
import torch
from scipy import stats
from torch.nn import functional as F

from generative.known.gaussian_pair import GaussianPair

torch.set_num_threads(1)
PAIR = GaussianPair()


@pytest.mark.parametrize(
    ("log_snr", "given", "alone"),
    [(-6, 0.2998, 1.3169), (0, 0.2308, 0.4912), (2, 0.0933, 0.1150)],
)
def test_least_errors(log_snr: float, given: float, alone: float):
    assert PAIR.denoising_mse(log_snr) == pytest.approx(given, abs=5e-5)
    assert PAIR.denoising_mse(log_snr, text=False) == pytest.approx(alone, abs=5e-5)


@pytest.mark.parametrize("log_snr", [-3.0, 1.0])
def test_the_exact_denoiser_has_the_least_error(log_snr: float):
    generator = torch.Generator().manual_seed(0)
    y, z = PAIR.draw(20_000, generator)
    level = torch.full((len(z),), log_snr)
    eps = torch.randn(z.shape, generator=generator)
    x = level.sigmoid().sqrt()[:, None] * z + (-level).sigmoid().sqrt()[:, None] * eps
    found = (PAIR.denoise(x, level, y) - z).square().mean()
    assert found == pytest.approx(PAIR.denoising_mse(log_snr), rel=0.01)


def test_cosine_prefers_the_mean_to_a_sample():
    generator = torch.Generator().manual_seed(0)
    y, z = PAIR.draw(20_000, generator)
    mean = F.cosine_similarity(PAIR.posterior_mean(y), z).mean()
    sample = F.cosine_similarity(PAIR.posterior(y, generator), z).mean()
    assert mean == pytest.approx(0.863, abs=0.005)
    assert sample == pytest.approx(0.748, abs=0.005)


def test_nats_of_buckets_are_those_of_scipy():
    generator = torch.Generator().manual_seed(0)
    y, z = PAIR.draw(50, generator)
    directions, _ = torch.linalg.qr(torch.randn(16, 3, generator=generator, dtype=torch.float64))
    mean = torch.full((16,), 0.1, dtype=torch.float64)
    borders = torch.tensor([[-0.5, 0.0, 2.5], [-1.0, 0.2, 1.0], [-3.0, -2.0, 4.0]])
    parts = ((z.double() - mean) @ directions).T.contiguous()
    codes = torch.stack([torch.bucketize(parts[k], borders[k].double()) for k in range(3)], 1)
    wanted = torch.zeros(50, dtype=torch.float64)
    centres = (PAIR.posterior_mean(y.double()) - mean) @ directions
    for row in range(50):
        for k in range(3):
            edges = [-float("inf"), *borders[k].tolist(), float("inf")]
            low, high = edges[codes[row, k]], edges[codes[row, k] + 1]
            law = stats.norm(float(centres[row, k]), 0.3**0.5)
            wanted[row] -= torch.tensor(law.cdf(high) - law.cdf(low)).log()
    torch.testing.assert_close(PAIR.code_nats(y, codes, mean, directions, borders), wanted)


def test_far_buckets_keep_their_digits():
    """A bucket of ten deviations away has a probability that a plain difference rounds to 0."""
    y = torch.zeros(1, 16)
    borders = torch.tensor([[5.5, 6.0]])
    directions = torch.eye(16)[:, :1]
    found = PAIR.code_nats(y, torch.tensor([[1]]), torch.zeros(16), directions, borders)
    law = stats.norm(0, 0.3**0.5)
    assert float(found) == pytest.approx(-float(torch.tensor(law.sf(5.5) - law.sf(6.0)).log()))
