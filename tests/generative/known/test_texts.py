"""Texts of known probability against enumeration of all texts."""

import itertools
import math

import pytest
import torch

from generative.known.reviews import GRAPES, TASKS, Reviews, ask
from generative.known.texts import HiddenMarkov, hidden_markov_text, markov_text, span_log_prob
from generative.text.corruption import corrupt_spans, span_lengths

torch.set_num_threads(1)


def all_texts(letters: int, length: int) -> torch.Tensor:
    return torch.tensor(list(itertools.product(range(2, 2 + letters), repeat=length)))


def uneven() -> HiddenMarkov:
    """Three states, two letters, nothing symmetric."""
    return HiddenMarkov(
        torch.tensor([0.5, 0.2, 0.3]).double(),
        torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.4, 0.4, 0.2]]).double(),
        torch.tensor([[0.9, 0.1], [0.3, 0.7], [0.5, 0.5]]).double(),
    )


@pytest.mark.parametrize("text", [markov_text(3), hidden_markov_text(3, 3), uneven()])
def test_probabilities_of_all_texts_sum_to_one(text):
    x = all_texts(text.vocab_size - 2, 5)
    assert float(text.log_prob(x).exp().sum()) == pytest.approx(1, abs=1e-12)


def test_hidden_markov_by_a_sum_over_states():
    text, x = uneven(), torch.tensor([[2, 3, 3, 2]])
    total = 0.0
    for path in itertools.product(range(3), repeat=4):
        p = float(text.initial[path[0]])
        for before, after in itertools.pairwise(path):
            p *= float(text.transition[before, after])
        for state, token in zip(path, x[0].tolist(), strict=True):
            p *= float(text.emission[state, token - 2])
        total += p
    assert float(text.log_prob(x)) == pytest.approx(math.log(total))


@pytest.mark.parametrize("text", [markov_text(3), uneven()])
def test_parts_and_posteriors_by_enumeration(text):
    letters = text.vocab_size - 2
    everything = all_texts(letters, 5)
    p = text.log_prob(everything).exp()
    seen = torch.tensor([True, False, False, True, False])
    for x in text.sample(3, 5, torch.Generator().manual_seed(0)):
        agrees = (everything[:, seen] == x[seen]).all(1)
        found = text.log_prob(x[None], seen[None])
        assert float(found) == pytest.approx(float(p[agrees].sum().log()))
        expected = torch.zeros(5, text.vocab_size, dtype=torch.float64)
        for row, weight in zip(everything[agrees], p[agrees], strict=True):
            expected[torch.arange(5), row] += weight
        expected /= expected.sum(1, keepdim=True)
        torch.testing.assert_close(text.posterior(x[None], seen[None])[0], expected)


def test_entropy_of_a_markov_chain():
    text = markov_text(3)
    for length in (1, 2, 3, 5):
        p = text.log_prob(all_texts(3, length)).exp()
        assert text.entropy(length) == pytest.approx(float(torch.special.entr(p).sum()))
    assert text.entropy(6) - text.entropy(5) == pytest.approx(text.entropy_rate())


def test_a_chain_begins_as_it_goes_on():
    text = markov_text(4)
    torch.testing.assert_close(text.initial @ text.transition, text.initial)


@pytest.mark.parametrize("text", [markov_text(3), uneven()])
def test_samples_have_the_probabilities(text):
    letters = text.vocab_size - 2
    x = text.sample(40_000, 3, torch.Generator().manual_seed(0))
    everything = all_texts(letters, 3)
    shares = torch.stack([(x == row).all(1).double().mean() for row in everything])
    torch.testing.assert_close(shares, text.log_prob(everything).exp(), rtol=0, atol=0.01)


def compositions(total: int, parts: int):
    for bars in itertools.combinations(range(1, total), parts - 1):
        ends = (0, *bars, total)
        yield [b - a for a, b in itertools.pairwise(ends)]


def test_cut_out_pieces_by_enumeration_of_texts_and_cuts():
    """All that could have left the same source, and what share of it has this target."""
    text, length, rate, mean = uneven(), 7, 0.55, 2.0
    taken, pieces = span_lengths(length, rate, mean)
    assert (taken, pieces) == (4, 2)
    joint: dict[tuple, float] = {}
    everything = all_texts(2, length)
    for row, p in zip(everything.tolist(), text.log_prob(everything).exp().tolist(), strict=True):
        for cut, kept in itertools.product(
            compositions(taken, pieces), compositions(length - taken, pieces)
        ):
            place, source, target = 0, [], []
            for k, (before, inside) in enumerate(zip(kept, cut, strict=True)):
                source += [*row[place : place + before], 4 + k]
                target += [4 + k, *row[place + before : place + before + inside]]
                place += before + inside
            key = (tuple(source), tuple(target))
            joint[key] = joint.get(key, 0.0) + p
    x = text.sample(6, length, torch.Generator().manual_seed(1))
    sources, targets = corrupt_spans(x, 4, rate, mean, torch.Generator().manual_seed(2))
    found = span_log_prob(text, x, sources, rate, mean)
    for source, target, log_p in zip(sources.tolist(), targets.tolist(), found, strict=True):
        here = joint[tuple(source), tuple(target[:-1])]
        total = sum(p for (other, _), p in joint.items() if other == tuple(source))
        assert float(log_p) == pytest.approx(math.log(here / total))


def test_reviews_are_all_different_and_sum_to_one():
    reviews = Reviews()
    assert len(set(reviews.texts)) == len(reviews) == 25_920
    assert float(reviews.p.sum()) == pytest.approx(1)
    # Country, province and grape; which of 4 x 12 x 3 descriptions; taste; the ending.
    entropy = 0.0
    for review in reviews.reviews:
        entropy -= review.p * math.log(review.p)
    assert reviews.entropy() == pytest.approx(entropy)
    assert {review.grape for review in reviews.reviews} == set(GRAPES)
    numbers = reviews.sample(4000, torch.Generator().manual_seed(0)).tolist()
    france = sum(reviews.reviews[i].country == "france" for i in numbers) / 4000
    assert france == pytest.approx(0.3, abs=0.025)


def test_tasks_about_a_review():
    import numpy as np

    review, rng = Reviews().reviews[0], np.random.default_rng(0)
    assert ask(review, "sum up", rng)[1] == "merlot from bordeaux , france"
    source, target = ask(review, "which food", rng)
    assert source == f"which food : {review.text}"
    assert f"serve it with {target}" in review.text
    answers = [ask(review, "in order", rng) for _ in range(300)]
    for source, target in answers:
        assert (source == f"in order : {review.text}") == (target == "yes")
        assert sorted(source.split()) == sorted(f"in order : {review.text}".split())
    assert sum(target == "yes" for _, target in answers) == pytest.approx(150, abs=35)
    with pytest.raises(ValueError, match=", ".join(TASKS)):
        ask(review, "translate", rng)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: HiddenMarkov(torch.ones(2) / 2, torch.eye(3), torch.eye(2)), r"\(3, 3\)"),
        (lambda: HiddenMarkov(torch.ones(2), torch.eye(2), torch.eye(2)), "sum to 1"),
        (lambda: markov_text(3).log_prob(torch.tensor([[1, 2]])), "from 1 to 2; give .* 2 to 4"),
    ],
)
def test_what_cannot_be_is_explained(make, message):
    with pytest.raises(ValueError, match=message):
        make()
