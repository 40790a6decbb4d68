"""The Wasserstein distance of samples against closed forms; `energy_test` is in test_densities."""

import numpy as np
import pytest
import torch

from generative.known.two_samples import wasserstein


def test_on_a_line_the_smallest_goes_with_the_smallest():
    x, y = np.random.default_rng(0).normal(size=(2, 40, 1))
    expected = np.sqrt(np.square(np.sort(x, 0) - np.sort(y, 0)).mean())
    assert wasserstein(torch.from_numpy(x), torch.from_numpy(y)) == pytest.approx(expected)


def test_a_shifted_sample_is_as_far_as_the_shift():
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    order = torch.randperm(50, generator=torch.Generator().manual_seed(1))
    shift = torch.tensor([3.0, 0.0, 4.0])
    assert wasserstein(x, x[order] + shift) == pytest.approx(5.0, rel=1e-6)
    assert wasserstein(x, x[order]) == 0


def test_two_gaussians_are_as_far_as_their_means_and_deviations():
    """(|m - n|^2 + (s - t)^2)^(1/2) for normal laws on a line, in the limit of many points."""
    u = torch.special.ndtri((torch.arange(1000, dtype=torch.float64) + 0.5) / 1000)[:, None]
    assert wasserstein(1 + 2 * u, 0.5 * u) == pytest.approx(np.hypot(1, 1.5), rel=2e-3)


def test_other_samples_are_refused():
    with pytest.raises(ValueError, match="got 2 and 3 points"):
        wasserstein(torch.zeros(2, 2), torch.zeros(3, 2))
    with pytest.raises(ValueError, match=r"\(2, 2\) and \(2, 3\)"):
        wasserstein(torch.zeros(2, 2), torch.zeros(2, 3))
