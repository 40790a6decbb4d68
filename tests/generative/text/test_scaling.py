"""The fit of losses by size and data: laws that are known, and the best size by search."""

import pytest
import torch

from generative.text.scaling import ScalingLaw, fit_scaling

torch.set_num_threads(1)
LAW = ScalingLaw(a=40.0, alpha=0.34, b=300.0, beta=0.28)


def grid(law: ScalingLaw) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    weights = torch.tensor([1e3, 1e4, 1e5, 1e6])
    tokens = torch.tensor([1e5, 1e6, 1e7])
    n, d = (x.flatten() for x in torch.meshgrid(weights, tokens, indexing="ij"))
    return n, d, law.excess(n, d)


@pytest.mark.parametrize("law", [LAW, ScalingLaw(2.0, 0.8, 5000.0, 0.6)])
def test_a_law_is_found_again(law):
    found = fit_scaling(*grid(law))
    for value, expected in zip(found, law, strict=True):
        assert value == pytest.approx(expected, rel=1e-3)


def test_noise_and_one_failed_run_move_it_little():
    n, d, excess = grid(LAW)
    noise = torch.randn(len(n), generator=torch.Generator().manual_seed(0)).double()
    excess = excess * (0.01 * noise).exp()
    excess[5] *= 3
    found = fit_scaling(n, d, excess, delta=1e-3)
    assert found.alpha == pytest.approx(LAW.alpha, abs=0.05)
    assert found.beta == pytest.approx(LAW.beta, abs=0.05)


def test_the_best_size_is_that_of_a_search():
    for operations in (1e12, 1e15):
        sizes = torch.logspace(2, 9, 100_000, dtype=torch.float64)
        excess = LAW.excess(sizes, operations / 6 / sizes)
        expected = float(sizes[excess.argmin()])
        assert LAW.best_size(operations) == pytest.approx(expected, rel=1e-3)


def test_what_cannot_be_fitted():
    n, d, excess = grid(LAW)
    with pytest.raises(ValueError, match="n at least 4"):
        fit_scaling(n[:3], d[:3], excess[:3])
    with pytest.raises(ValueError, match="n at least 4"):
        fit_scaling(n, d[:5], excess)
    with pytest.raises(ValueError, match="below the entropy is chance"):
        fit_scaling(n, d, excess - excess.median())
