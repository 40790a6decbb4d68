"""Pairs by a rule that is drawn anew for every text, against a list of all rules."""

import itertools
import math

import pytest
import torch

from generative.known.rules import Rules

torch.set_num_threads(1)


def listed(rules: Rules) -> list[tuple[float, tuple[int, ...]]]:
    """Every rule with its probability; shifts are listed beside the permutations."""
    m = rules.num_words
    permutations = list(itertools.permutations(range(m)))
    of_permutations = [((1 - rules.shifts) / len(permutations), p) for p in permutations]
    shifts = [(rules.shifts / m, tuple((w + s) % m for w in range(m))) for s in range(m)]
    return of_permutations + shifts


def brute_force(rules: Rules, words: list[int], answers: list[int]) -> list[list[float]]:
    """p(answer | pairs before) by going through all rules."""
    table = []
    for k, word in enumerate(words):
        p = [0.0] * rules.num_words
        for weight, rule in listed(rules):
            if all(rule[w] == a for w, a in zip(words[:k], answers[:k], strict=True)):
                p[rule[word]] += weight
        table.append([x / sum(p) for x in p])
    return table


@pytest.mark.parametrize("shifts", [0.0, 0.5, 1.0])
def test_posterior_is_that_of_all_rules(shifts):
    rules = Rules(4, 6, shifts)
    x = rules.sample(40, torch.Generator().manual_seed(0))
    words, answers = rules.split(x)
    found = rules.answer_probs(x)
    for row, w, a in zip(found, words.tolist(), answers.tolist(), strict=True):
        expected = torch.tensor(brute_force(rules, w, a), dtype=torch.float64)
        torch.testing.assert_close(row, expected, rtol=0, atol=1e-12)


def chance(rules: Rules, words: tuple[int, ...]) -> float:
    """p(words): even, with bursts the mean over all sets of words that a text may draw from."""
    m, n = rules.num_words, len(words)
    if not rules.bursts:
        return m**-n
    p = 0.0
    for k in range(1, m + 1):
        sets = list(itertools.combinations(range(m), k))
        p += sum(set(words) <= set(some) for some in sets) / len(sets) / k**n / m
    return p


@pytest.mark.parametrize("bursts", [False, True])
@pytest.mark.parametrize("shifts", [0.0, 0.3, 1.0])
def test_best_accuracy_and_loss_over_all_texts(shifts, bursts):
    """The closed form equals the mean over every text there can be."""
    rules = Rules(3, 4, shifts, bursts)
    right, nats, total = torch.zeros(4).double(), torch.zeros(4).double(), 0.0
    for weight, rule in listed(rules):
        if not weight:
            continue
        for words in itertools.product(range(3), repeat=4):
            p = torch.tensor(brute_force(rules, list(words), [rule[w] for w in words]))
            answers = torch.tensor([rule[w] for w in words])
            # Equal guesses are drawn, so a tie is right in its share.
            best = p.double() >= p.amax(1, keepdim=True) - 1e-6
            hit = best[range(4), answers].double() / best.sum(1)
            share = weight * chance(rules, words)
            right += share * hit
            nats -= share * p[range(4), answers].double().log()
            total += share
    assert total == pytest.approx(1)
    torch.testing.assert_close(rules.best().accuracy, right, rtol=0, atol=1e-6)
    torch.testing.assert_close(rules.best().loss, nats, rtol=0, atol=1e-6)


def test_known_values():
    assert Rules(8, 3, 1.0).best().accuracy.tolist() == [1 / 8, 1, 1]
    # Without shifts: (E d + 1 - P(all known)) / m, with E d = m (1 - (1 - 1/m)^n).
    accuracy = Rules(5, 12, 0.0).best().accuracy
    for n in range(12):
        all_known = sum((-1) ** k * math.comb(5, k) * (1 - k / 5) ** n for k in range(6))
        expected = (5 * (1 - 0.8**n) + 1 - all_known) / 5
        assert float(accuracy[n]) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("bursts", [False, True])
def test_probabilities_of_all_texts_sum_to_one(bursts):
    rules = Rules(3, 3, bursts=bursts)
    texts = [
        rules.join(torch.tensor([words]), torch.tensor([answers]))
        for words in itertools.product(range(3), repeat=3)
        for answers in itertools.product(range(3), repeat=3)
    ]
    log_p = rules.log_prob(torch.cat(texts))
    assert float(log_p.exp().sum()) == pytest.approx(1, abs=1e-12)
    finite = log_p[log_p > -math.inf]
    assert -float((finite.exp() * finite).sum()) == pytest.approx(rules.entropy(), abs=1e-12)


def test_words_of_bursts_come_as_often_as_they_should():
    """How many different words a text has, beside the exact probabilities of all texts."""
    rules = Rules(4, 3, bursts=True)
    words, _ = rules.split(rules.sample(20_000, torch.Generator().manual_seed(3)))
    found = torch.tensor([len(set(row)) for row in words.tolist()]).bincount(minlength=4) / 20_000
    expected = torch.zeros(4)
    for row in itertools.product(range(4), repeat=3):
        assert rules.words_log_prob(len(set(row)), 3) == pytest.approx(math.log(chance(rules, row)))
        expected[len(set(row))] += chance(rules, row)
    torch.testing.assert_close(found, expected, rtol=0, atol=0.015)


def test_the_exact_posterior_measured_as_a_model():
    """It reaches the closed form, up to the chance of 4,000 texts."""
    rules = Rules(4, 6)
    x = rules.sample(4000, torch.Generator().manual_seed(1))

    def logits(tokens: torch.Tensor) -> torch.Tensor:
        """Of the answers behind words; of what stands behind answers nothing is asked."""
        text = torch.cat([tokens[:, 1:], torch.full((len(tokens), 1), 6)], 1)
        p = rules.answer_probs(text)
        table = torch.full((*text.shape, len(rules.vocabulary)), -1e9, dtype=torch.float64)
        table[:, 1::2, 2 + rules.num_words :] = p.clamp_min(1e-30).log()
        return table

    found, best = rules.measure(logits, x), rules.best()
    torch.testing.assert_close(found.accuracy, best.accuracy, rtol=0, atol=0.03)
    torch.testing.assert_close(found.loss, best.loss, rtol=0, atol=0.05)


def test_one_rule_for_all_texts_and_wrong_input():
    rules = Rules(4, 3)
    rule = torch.tensor([2, 3, 1, 0])
    words, answers = rules.split(rules.sample(20, torch.Generator().manual_seed(0), rule))
    assert torch.equal(answers, rule[words])
    with pytest.raises(ValueError, match="give rows of pairs"):
        rules.split(torch.tensor([[2, 2]]))
    with pytest.raises(ValueError, match="give 2 to 12 words"):
        Rules(1)
