"""Quantisers against gradients by hand, k-means and lists of all codes."""

import math

import pytest
import torch

from generative.nets.config import FSQConfig, QuantiserConfig
from generative.nets.quantiser import FSQ, VectorQuantiser, count_codes, make_quantiser, perplexity
from tests.dtypes import default_dtype

torch.set_num_threads(1)


def vectors(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def quantiser(**settings) -> VectorQuantiser:
    torch.manual_seed(1)
    return VectorQuantiser(QuantiserConfig(**{"num_codes": 6, "dim": 3, **settings})).double()


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_each_vector_gets_the_nearest_by_a_loop(distance):
    q, z = quantiser(distance=distance), vectors(4, 5, 3)
    found = q(z)
    unit = (lambda v: v / v.norm()) if distance == "cosine" else (lambda v: v)
    for i in range(4):
        for j in range(5):
            away = [float((unit(z[i, j]) - unit(e)).norm()) for e in q.vectors]
            assert int(found.codes[i, j]) == away.index(min(away))
    assert torch.equal(found.codes, q.encode(z))
    assert torch.equal(found.q, q.lookup(found.codes))


def test_the_largest_cosine_is_the_least_distance_on_the_sphere():
    q, z = quantiser(distance="cosine"), vectors(50, 3)
    cosines = torch.cosine_similarity(z[:, None], q.vectors[None], dim=2)
    assert torch.equal(q.encode(z), cosines.argmax(1))


def test_gradient_passes_straight_through_and_leaves_the_list_alone():
    q, z = quantiser(learning="loss"), vectors(7, 3).requires_grad_()
    found = q(z)
    weight = vectors(7, 3, seed=2)
    seen = []
    found.q.register_hook(seen.append)
    (weight * found.q.sin()).sum().backward()
    assert torch.equal(z.grad, seen[0])
    assert torch.equal(z.grad, weight * found.q.detach().cos())
    assert q.vectors.grad is None


def test_gradients_of_the_loss_are_those_by_hand():
    """2 (n_k e_k - sum of its z) / (N d) for the list, 2 beta (z - e) / (N d) for z."""
    q, z = quantiser(learning="loss", beta=0.3), vectors(20, 3).requires_grad_()
    found = q(z)
    found.loss.backward()
    e = q.vectors.detach()
    for k in range(6):
        own = z.detach()[found.codes == k]
        expected = 2 * (len(own) * e[k] - own.sum(0)) / z.numel()
        torch.testing.assert_close(q.vectors.grad[k], expected)
    torch.testing.assert_close(z.grad, 2 * 0.3 * (z.detach() - e[found.codes]) / z.numel())


def test_averages_without_memory_are_a_step_of_k_means():
    q, z = quantiser(decay=0.0, revive=0), vectors(30, 3)
    before, codes = q.vectors.clone(), q.encode(z)
    q.observe(z, codes)
    for k in range(6):
        own = z[codes == k]
        torch.testing.assert_close(q.vectors[k], own.mean(0) if len(own) else before[k])


def test_averages_weigh_batches_by_the_decay():
    q = quantiser(num_codes=2, decay=0.9, revive=0)
    one, two = vectors(3, 3, seed=3), vectors(5, 3, seed=4)
    for batch in (one, two):
        q.observe(batch, torch.zeros(len(batch), dtype=torch.int64))
    expected = (0.9 * one.sum(0) + two.sum(0)) / (0.9 * 3 + 5)
    torch.testing.assert_close(q.vectors[0], expected)


def test_as_many_codes_as_distinct_vectors_leave_no_error():
    tiles = vectors(6, 3)
    z = tiles[torch.tensor([0, 0, 0, 1, 2, 3, 4, 5])]
    q = quantiser(decay=0.0, revive=1)
    torch.manual_seed(0)
    for _ in range(10):
        q.observe(z, q.encode(z))
    found = q(z)
    torch.testing.assert_close(found.q, z, rtol=1e-12, atol=1e-12)
    shares = [3 / 8, *[1 / 8] * 5]
    entropy = -sum(p * math.log(p) for p in shares)
    assert float(perplexity(count_codes(found.codes, 6))) == pytest.approx(math.exp(entropy))


def test_unused_codes_are_put_on_vectors_of_the_batch():
    z = vectors(40, 3)
    for revive in (5, 0):
        q = quantiser(num_codes=4, revive=revive)
        q.vectors[1:] = 100.0  # far from everything, so that only the first is used
        q.observe(z[:1], q.encode(z[:1]), revive=False)
        torch.manual_seed(0)
        for step in range(6):
            q.observe(z, q.encode(z))
            alive = count_codes(q.encode(z), 4) > 0
            # Their first use was too long ago from the beginning.
            assert int(alive.sum()) == (4 if revive else 1), step
    assert not hasattr(quantiser(revive=0), "unused")


def test_a_code_has_its_time_before_it_is_moved():
    z, q = vectors(8, 3), quantiser(num_codes=2, revive=3, learning="loss")
    with torch.no_grad():
        q.vectors[1] = 100.0
    q.unused.zero_()
    for expected in (1, 2):
        q.observe(z, torch.zeros(8, dtype=torch.int64))
        assert q.unused.tolist() == [0, expected]
        assert bool((q.vectors[1] == 100.0).all())
    q.observe(z, torch.zeros(8, dtype=torch.int64))
    assert bool((z == q.vectors[1]).all(1).any())
    assert q.unused.tolist() == [0, 0]


def test_vectors_that_are_not_finite_do_not_enter_the_list():
    z, q = vectors(8, 3), quantiser(revive=1, learning="loss")
    z[3] = math.nan
    before = q.vectors.clone()
    q.observe(z, torch.zeros(8, dtype=torch.int64))
    assert torch.equal(q.vectors, before)


def test_perplexity_of_even_and_of_single_use():
    assert float(perplexity(torch.tensor([7, 7, 7, 7]))) == pytest.approx(4)
    assert float(perplexity(torch.tensor([0, 9, 0]))) == pytest.approx(1)
    assert float(perplexity(torch.zeros(3, dtype=torch.int64))) == 1


def test_empty_batches_have_empty_codes():
    for q in (quantiser(), FSQ(FSQConfig((3, 4, 5))).double()):
        assert q.encode(vectors(0, 2, 3)).shape == (0, 2)
        assert q.lookup(torch.zeros(0, 2, dtype=torch.int64)).shape == (0, 2, 3)


# ---------------------------------------------------------------------------------------------
# FSQ
# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [(8, 5, 5, 5), (2, 3), (4, 4, 2)])
def test_all_codes_of_fsq_are_reached_and_told_apart(levels):
    q = FSQ(FSQConfig(levels)).double()
    codes = torch.arange(math.prod(levels))
    corners = q.lookup(codes)
    assert corners.unique(dim=0).shape == (math.prod(levels), len(levels))
    for i, number in enumerate(levels):
        values = corners[:, i].unique()
        assert len(values) == number
        torch.testing.assert_close(
            values.diff(), torch.full((number - 1,), 1 / (number // 2)).double()
        )
    # The inverse of the squeeze, by hand: what is handed to it comes out as the corner.
    half = (torch.tensor(levels).double() - 1) * 1.001 / 2
    offset = (1 - torch.tensor(levels).double() % 2) / 2
    rounded = corners * (torch.tensor(levels) // 2)
    z = ((rounded + offset) / half).clamp(-0.9999, 0.9999).atanh() - (offset / half).atanh()
    found = q(z)
    assert torch.equal(found.codes, codes)
    assert torch.equal(found.q, corners)
    assert torch.equal(q.encode(z), codes)


def test_gradient_of_fsq_is_that_of_the_squeeze():
    q, z = FSQ(FSQConfig((5, 3))).double(), vectors(6, 2).requires_grad_()
    q(z).q.sum().backward()
    half = torch.tensor([4, 2]).double() * 1.001 / 2
    expected = half / torch.tensor([2.0, 1.0]) * (1 - z.detach().tanh() ** 2)
    torch.testing.assert_close(z.grad, expected)


def test_too_many_codes_are_refused():
    with pytest.raises(ValueError, match=r"make 16,777,216 codes; give some of at most 65,536"):
        FSQConfig((256, 256, 256))


@pytest.mark.parametrize("config", [QuantiserConfig(8, 4), FSQConfig((4, 3, 3, 2))])
def test_quantisers_keep_the_type_of_the_model(config):
    q = make_quantiser(config)
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        q = q.to(dtype)
        with default_dtype(torch.float64):
            found = q(torch.randn(5, 4, dtype=dtype))
        assert found.q.dtype == q.lookup(found.codes).dtype == dtype
    with pytest.raises(ValueError, match=r"float32.*bfloat16"):
        q(torch.randn(5, 4))
