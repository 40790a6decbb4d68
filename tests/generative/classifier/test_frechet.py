"""Frechet distance: closed forms, another library's root of a matrix, and what is refused."""

import numpy as np
import pytest
import torch
from scipy import linalg

from generative.classifier import (
    CNNClassifierConfig,
    Moments,
    frechet_distance,
    image_features,
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
