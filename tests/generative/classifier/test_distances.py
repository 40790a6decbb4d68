"""Distances of features: closed forms, another library's root of a matrix, sums over pairs, and
what is refused."""

import numpy as np
import pytest
import torch
from scipy import linalg

from generative.classifier import (
    CNNClassifierConfig,
    Moments,
    frechet_distance,
    image_features,
    kernel_distance,
    moments,
)

torch.set_num_threads(1)


def features(n: int, seed: int, mix: float = 1.0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.normal(size=(n, 6)) @ (np.eye(6) + mix * rng.normal(size=(6, 6))))


def test_independent_features_by_the_closed_form():
    """sum of (mean_a - mean_b)^2 + (std_a - std_b)^2."""
    mean, std = torch.tensor([[0.0, 1, 2], [3, 1, -1]]), torch.tensor([[1.0, 2, 0], [2, 2, 3]])
    a, b = (Moments(m.double(), s.double().square().diag()) for m, s in zip(mean, std, strict=True))
    assert frechet_distance(a, b) == pytest.approx(9 + 0 + 9 + 1 + 0 + 9)
    assert frechet_distance(b, a) == pytest.approx(28)


def test_against_the_root_of_another_library():
    a, b = moments(features(200, 0)), moments(features(300, 1))
    root = linalg.sqrtm(a.cov.numpy() @ b.cov.numpy()).real
    expected = float((a.mean - b.mean).square().sum())
    expected += np.trace(a.cov.numpy() + b.cov.numpy() - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-8)


def test_equal_sets_shifted_sets_and_flat_ones():
    x = features(100, 2)
    assert frechet_distance(moments(x), moments(x)) == pytest.approx(0.0, abs=1e-9)
    shift = torch.tensor([3.0, 0, 0, -4, 0, 0])
    assert frechet_distance(moments(x), moments(x + shift)) == pytest.approx(25.0)
    flat = x.clone()
    flat[:, 2:] = 0  # a covariance without full rank
    spread = float(moments(flat).cov.trace())
    point = Moments(flat.mean(0), torch.zeros(6, 6, dtype=torch.float64))
    assert frechet_distance(moments(flat), point) == pytest.approx(spread)


def test_moments_are_those_of_numpy():
    x = features(50, 3).float()
    found = moments(x)
    assert found.mean.dtype == found.cov.dtype == torch.float64
    assert np.allclose(found.mean, x.double().numpy().mean(0))
    assert np.allclose(found.cov, np.cov(x.double().numpy(), rowvar=False))
    assert moments(x[:, :1]).cov.shape == (1, 1)


def test_features_do_not_depend_on_batches_or_mode():
    torch.manual_seed(0)
    config = CNNClassifierConfig((1, 8, 8), 3, (4,), (3,), (2,), hidden_dim=5)
    model, x = config.build().train(), torch.rand(7, 1, 8, 8)
    found = image_features(model, x, batch_size=2)
    assert model.training
    torch.testing.assert_close(found, model.eval().features(x).detach())
    assert found.shape == (7, 5)


def test_what_has_no_distance_is_explained():
    with pytest.raises(ValueError, match=r"\(1, 6\).*at least 2"):
        moments(features(1, 0))
    with pytest.raises(ValueError, match="not finite"):
        moments(torch.tensor([[1.0], [torch.nan]]))
    with pytest.raises(ValueError, match="of 6 and of 5 numbers"):
        frechet_distance(moments(features(9, 0)), moments(features(9, 0)[:, :5]))


def test_kernel_distance_is_the_mean_over_pairs_of_different_rows():
    a, b = features(7, 4), features(5, 5)

    def k(x, y):
        return (float(x @ y) / 6 + 1) ** 3

    inner = [
        np.mean([k(x, y) for i, x in enumerate(z) for j, y in enumerate(z) if i != j])
        for z in (a, b)
    ]
    expected = sum(inner) - 2 * np.mean([k(x, y) for x in a for y in b])
    for chunk in (1, 3, 1000):
        assert kernel_distance(a, b, chunk) == pytest.approx(expected)
    assert kernel_distance(b, a) == pytest.approx(expected)


@pytest.mark.parametrize("n", [3, 30])
def test_kernel_distance_has_the_same_mean_for_any_number_of_rows(n):
    """Normal numbers x with mean 0 and y with mean 1: E(xx' + 1)^3 = 1 + 3 = 4, E(yy' + 1)^3 =
    1 + 3 + 3 * 4 + 16 = 32 and E(xy + 1)^3 = 1 + 3 * 2 = 7."""
    rng = np.random.default_rng(6)
    draws = torch.from_numpy(rng.normal(size=(30_000 // n, 2, n, 1)))
    found = [kernel_distance(x, y + 1) for x, y in draws]
    error = np.std(found) / len(found) ** 0.5
    assert abs(np.mean(found) - (4 + 32 - 2 * 7)) < 4 * error
    assert error < 1


@pytest.mark.parametrize(
    ("n", "widths"), [(1, (6, 6)), (4, (6, 5))], ids=["one row", "other widths"]
)
def test_what_has_no_kernel_distance_is_explained(n, widths):
    a, b = features(n, 0)[:, : widths[0]], features(4, 1)[:, : widths[1]]
    with pytest.raises(ValueError, match=rf"\({n}, 6\) and \(4, {widths[1]}\)"):
        kernel_distance(a, b)
    with pytest.raises(ValueError, match="not finite"):
        kernel_distance(features(3, 0), torch.full((3, 6), torch.nan))
