"""The cheapest pairing against all pairings, and against SciPy's."""

import itertools

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from generative.assignment import assign


@pytest.mark.parametrize("n", [1, 2, 5, 6])
def test_no_pairing_is_cheaper(n):
    cost = np.random.default_rng(n).normal(size=(n, n))
    found = assign(cost)
    assert sorted(found) == list(range(n))
    rows = np.arange(n)
    best = min(cost[rows, list(order)].sum() for order in itertools.permutations(range(n)))
    assert cost[rows, found].sum() == pytest.approx(best)


@pytest.mark.parametrize("kind", ["distances", "ties"])
def test_the_cost_is_that_of_scipy(kind):
    rng = np.random.default_rng(0)
    if kind == "ties":
        cost = rng.integers(3, size=(60, 60)).astype(float)
    else:
        a, b = rng.normal(size=(2, 60, 2))
        cost = np.square(a[:, None] - b).sum(2)
    rows, columns = linear_sum_assignment(cost)
    found = assign(cost)
    assert sorted(found) == list(range(60))
    assert cost[rows, found].sum() == pytest.approx(cost[rows, columns].sum())


def test_what_can_not_be_paired_is_told():
    with pytest.raises(ValueError, match=r"\(2, 3\); a pairing needs \(N, N\)"):
        assign(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="not finite"):
        assign(np.array([[0.0, np.inf], [1.0, 2.0]]))
    assert assign(np.zeros((0, 0))).shape == (0,)
