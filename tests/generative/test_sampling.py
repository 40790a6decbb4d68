"""Temperature, top-k and top-p against their definitions, one probability at a time."""

import numpy as np
import pytest
import torch

from generative.sampling import sample_logits, shape_logits

P = torch.tensor([0.1, 0.4, 0.05, 0.3, 0.15])


def test_temperature():
    """p^(1/t) / sum p^(1/t) (Foster 2023, chapter 5)."""
    for t in (0.2, 0.5, 1.0, 2.0):
        expected = P.double() ** (1 / t)
        expected = expected / expected.sum()
        torch.testing.assert_close(shape_logits(P.double().log(), t).exp(), expected)


def test_temperature_zero_takes_the_most_probable():
    assert shape_logits(P.log(), 0.0).exp().tolist() == [0, 1, 0, 0, 0]
    rows = P.log().expand(20, -1)
    assert (sample_logits(rows, 0.0) == 1).all()


@pytest.mark.parametrize("k", [1, 2, 4, 5, 9])
def test_top_k(k):
    order = sorted(range(5), key=lambda i: -P[i])[:k]
    expected = torch.tensor([float(P[i]) if i in order else 0.0 for i in range(5)])
    torch.testing.assert_close(shape_logits(P.log(), top_k=k).exp(), expected / expected.sum())


@pytest.mark.parametrize("p", [0.05, 0.4, 0.41, 0.7, 0.71, 0.85, 0.9, 0.99, 1.0])
def test_top_p_keeps_the_fewest_that_are_enough(p):
    kept, total = [], 0.0
    for i in sorted(range(5), key=lambda i: -P[i]):
        if total >= p - 1e-7:
            break
        kept.append(i)
        total += float(P[i])
    expected = torch.tensor([float(P[i]) if i in kept else 0.0 for i in range(5)])
    found = shape_logits(P.log(), top_p=p - 1e-6 if p < 1 else 1.0).exp()
    torch.testing.assert_close(found, expected / expected.sum())


def test_draws_have_the_probabilities_and_repeat():
    rows = P.log().expand(20_000, -1)
    drawn = sample_logits(rows, generator=torch.Generator().manual_seed(0))
    shares = np.bincount(drawn.numpy(), minlength=5) / 20_000
    np.testing.assert_allclose(shares, P.numpy(), atol=0.012)
    again = sample_logits(rows, generator=torch.Generator().manual_seed(0))
    assert torch.equal(drawn, again)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((-1.0, 0, 1.0), "temperature is -1.0, and must be at least 0 and finite"),
        ((1.0, -1, 1.0), "top_k is -1, and must be an integer, at least 0"),
        ((1.0, 0, 0.0), "top_p is 0.0, and must be above 0 and at most 1"),
        ((1.0, 0, 1.1), "top_p is 1.1, and must be above 0 and at most 1"),
    ],
)
def test_what_cannot_be_is_explained(options, message):
    with pytest.raises(ValueError, match=message):
        shape_logits(P.log(), *options)
