"""Texts whose task is posed in the text alone: pairs by a rule that is drawn anew for every text.

A text is a row of pairs, a word and its answer ("dax red blick blue dax red ..."). Which answer a
word has is a rule of that text: a permutation, or a shift along the list of answers. A model can
know it only from the pairs before (few-shot learning, Brown et al. 2020), and how much they tell is
known exactly:

    rules = Rules()
    x = rules.sample(100)                      # int64 (100, 24), tokens 2 to 17
    rules.answer_probs(x)                      # p(answer | pairs before), (100, 12, 8)
    rules.best().accuracy                      # of the best guess after 0, 1, .. pairs, (12,)
    rules.measure(model.logits, x).accuracy    # of a model, (12,)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from generative.known.bursts import (
    counts,
    draw_things,
    entropy_of,
    log_prob_of,
    seen_so_far,
)
from generative.text.tokens import UNKNOWN, after_end
from generative.training.checks import checked
from generative.training.ranges import CountOrZero

__all__ = ["ANSWERS", "WORDS", "ByExamples", "Rules"]

WORDS = ("dax", "blick", "wug", "fep", "toma", "zup", "kiv", "lorp", "neem", "gazz", "hild", "pog")
ANSWERS = (
    "red", "green", "blue", "yellow", "black", "white", "pink", "grey", "brown", "gold", "purple",
    "orange",
)  # fmt: skip
RESERVED = UNKNOWN + 1
"""First token that is a word; lower ones are reserved."""


class ByExamples(NamedTuple):
    """Figures of the answer that follows 0, 1, .. pairs, float64 (num_pairs,) each."""

    accuracy: Tensor
    """Share of answers that had the highest probability."""
    loss: Tensor
    """Cross-entropy of the answer, nats."""


class Rules:
    """Pairs by a rule of the text: a permutation of the answers, or a shift of them.

    The words of the pairs are drawn independently, so a word may come again.

    Args:
        num_words: m, words and as many answers.
        num_pairs: pairs of a text; the last one follows num_pairs - 1 examples.
        shifts: share of the texts whose rule is one of the m shifts, answer = word + s modulo m;
            the others have one of the m! permutations.
        bursts: each text has k of the words only, k even from 1 to m, so that words come again
            more often, see `generative.known.bursts`. The best guess at an answer after given pairs
            is the same as without.
    Raises:
        ValueError: less than two words or more than 12, no pair, or a share outside [0, 1].
    """

    def __init__(
        self,
        num_words: int = 8,
        num_pairs: int = 12,
        shifts: float = 0.5,
        bursts: bool = False,
    ):
        if not 2 <= num_words <= len(WORDS) or num_pairs < 1 or not 0 <= shifts <= 1:
            raise ValueError(
                f"got {num_words} words, {num_pairs} pairs, shifts {shifts}; give 2 to "
                f"{len(WORDS)} words, at least a pair, and a share from 0 to 1"
            )
        self.num_words, self.num_pairs, self.shifts = num_words, num_pairs, shifts
        self.bursts = bursts

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Tokens as words: the end of a text, the unknown, words, answers."""
        return ("", "[UNK]", *WORDS[: self.num_words], *ANSWERS[: self.num_words])

    def draw_rules(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n rules, int64 (n, m): the answer of every word."""
        m = self.num_words
        permutations = torch.rand(n, m, generator=generator).argsort(1)
        by = torch.randint(m, (n, 1), generator=generator)
        shifted = (torch.arange(m) + by) % m
        is_shift = torch.rand(n, 1, generator=generator) < self.shifts
        return torch.where(is_shift, shifted, permutations)

    @checked
    def sample(
        self, n: CountOrZero, generator: torch.Generator | None = None, rule: Tensor | None = None
    ) -> Tensor:
        """n texts, int64 (n, 2 num_pairs).

        Args:
            rule: int64 (m,), one rule for all texts; drawn anew for each without it.
        """
        m = self.num_words
        rules = self.draw_rules(n, generator) if rule is None else rule.expand(n, -1)
        words = draw_things(n, self.num_pairs, m, self.bursts, generator)
        return self.join(words, rules.gather(1, words))

    def join(self, words: Tensor, answers: Tensor) -> Tensor:
        """Words and answers from 0 to m - 1, (B, P) both -> the tokens of texts, (B, 2 P)."""
        return torch.stack([words + RESERVED, answers + RESERVED + self.num_words], 2).flatten(1)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Texts (B, 2 P) -> words and answers from 0 to m - 1, (B, P) both.

        Raises:
            ValueError: a text that is no row of words, each with an answer behind it.
        """
        m = self.num_words
        pairs = x.unflatten(1, (-1, 2)) if x.dim() == 2 and x.shape[1] % 2 == 0 else None
        if pairs is not None:
            words, answers = pairs[..., 0] - RESERVED, pairs[..., 1] - RESERVED - m
            if not bool(((words < 0) | (words >= m) | (answers < 0) | (answers >= m)).any()):
                return words, answers
        raise ValueError(
            f"got tokens {tuple(x.shape)}; give rows of pairs, a word from {RESERVED} to "
            f"{RESERVED + m - 1} and an answer from {RESERVED + m} to {RESERVED + 2 * m - 1}"
        )

    # -----------------------------------------------------------------------------------------
    # The best possible
    # -----------------------------------------------------------------------------------------

    def answer_probs(self, x: Tensor) -> Tensor:
        """p(answer | word, pairs before) in texts (B, 2 P), float64 (B, P, m), by Bayes' rule.

        A permutation gives an unseen word one of the unused answers, all equally; a shift is known
        after one pair. After d different words the odds of shift against permutation are
        shifts / m to (1 - shifts) (m - d)! / m!, as long as all pairs fit one shift.
        """
        words, answers = self.split(x)
        m, (n, num_pairs) = self.num_words, words.shape
        known = torch.full((n, m), -1)
        fits = torch.ones(n, dtype=torch.bool)
        by = torch.zeros(n, dtype=torch.int64)
        rows, found = torch.arange(n), []
        one_hot = torch.nn.functional.one_hot
        for k in range(num_pairs):
            seen = known >= 0
            d = seen.sum(1)
            used = one_hot(known.clamp_min(0), m).mul(seen[:, :, None]).amax(1)
            of_permutation = (1 - used).double() / (m - d).clamp_min(1)[:, None]
            of_shift = one_hot((words[:, k] + by) % m, m).double()
            share = self._shift_posterior()[d] * fits
            p = share[:, None] * of_shift + (1 - share)[:, None] * of_permutation
            p[d == 0] = 1 / m
            before = known[rows, words[:, k]]
            certain = one_hot(before.clamp_min(0), m).double()
            found.append(torch.where((before >= 0)[:, None], certain, p))
            difference = (answers[:, k] - words[:, k]) % m
            by = torch.where(d == 0, difference, by)
            fits = fits & (difference == by)
            known[rows, words[:, k]] = answers[:, k]
        return torch.stack(found, 1)

    def log_prob(self, x: Tensor) -> Tensor:
        """log p of texts (B, 2 P) in nats, float64 (B,); -inf where no rule gives a text."""
        words, answers = self.split(x)
        p = self.answer_probs(x).gather(2, answers[:, :, None])[:, :, 0]
        different = torch.nn.functional.one_hot(words, self.num_words).amax(1).sum(1)
        of_words = [self.words_log_prob(d, words.shape[1]) for d in range(self.num_words + 1)]
        return p.log().sum(1) + torch.tensor(of_words, dtype=torch.float64)[different]

    def words_log_prob(self, different: int, num_pairs: int) -> float:
        """ln p of a row of so many words, of which so many are different, in nats."""
        return log_prob_of(different, num_pairs, self.num_words, self.bursts)

    def best(self) -> ByExamples:
        """Accuracy and loss of the exact posterior after 0, 1, .. pairs, in closed form.

        After n pairs d of the k words of a text are known with probability P_n(d), where

            P_(n+1)(d) = P_n(d) d / k + P_n(d - 1) (k - d + 1) / k;

        k is m, with bursts any number from 1 to m. By a permutation the best guess at a word that
        is not known is right with probability 1 / (m - d), by a shift always once d > 0; the guess
        that suits a shift is no worse for a permutation.
        """
        m, w = self.num_words, self.shifts
        accuracy, loss = torch.zeros(2, self.num_pairs, dtype=torch.float64)
        for k in (sizes := counts(m, self.bursts)):
            for n, known in enumerate(seen_so_far(k, self.num_pairs - 1)):
                for d, p in enumerate(known):
                    new = 1 - d / k
                    permutation = 1 - new + new / max(1, m - d)
                    right = w * (1.0 if d else 1 / m) + (1 - w) * permutation
                    accuracy[n] += p * right / len(sizes)
                    loss[n] += p * new * self._unseen_loss(d) / len(sizes)
        return ByExamples(accuracy, loss)

    def entropy(self) -> float:
        """Nats per text: of its words, and the loss of every answer."""
        words = entropy_of(self.num_pairs, self.num_words, self.bursts)
        return words + float(self.best().loss.sum())

    def _shift_posterior(self) -> Tensor:
        """Probability of a shift after d different words that fit one, float64 (m + 1,)."""
        m, w = self.num_words, self.shifts
        shift = torch.full((m + 1,), w / m, dtype=torch.float64)
        ways = [math.factorial(m - d) / math.factorial(m) for d in range(m + 1)]
        permutation = (1 - w) * torch.tensor(ways, dtype=torch.float64)
        return shift / (shift + permutation)

    def _unseen_loss(self, d: int) -> float:
        """Mean loss in nats of the answer to a word that is not among the d known ones."""
        m, w = self.num_words, self.shifts
        if d == m:
            return 0.0
        if d == 0:
            return math.log(m)
        share = float(self._shift_posterior()[d])
        expected = -math.log(share + (1 - share) / (m - d))
        if w == 1:
            return expected
        other = -math.log((1 - share) / (m - d))
        fitting = m * math.factorial(m - d) / math.factorial(m)
        chance = (expected + (m - d - 1) * other) / (m - d)
        return w * expected + (1 - w) * (fitting * chance + (1 - fitting) * math.log(m - d))

    # -----------------------------------------------------------------------------------------
    # A model
    # -----------------------------------------------------------------------------------------

    @torch.no_grad()
    def measure(
        self, logits: Callable[[Tensor], Tensor], x: Tensor, batch_size: int = 200
    ) -> ByExamples:
        """Accuracy and loss of a model's answers after 0, 1, .. pairs, means over texts.

        Args:
            logits: tokens (B, T) -> logits of the token after each, (B, T, V); the first token is
                the END of the text before.
            x: texts (N, 2 P).
            batch_size: texts at a time.
        """
        right, nats = [], []
        for rows in x.split(batch_size):
            log_p = logits(after_end(rows))[:, 1::2].double().log_softmax(-1)
            answers = rows[:, 1::2]
            right.append(log_p.argmax(-1) == answers)
            nats.append(-log_p.gather(2, answers[:, :, None])[:, :, 0])
        return ByExamples(torch.cat(right).double().mean(0).cpu(), torch.cat(nats).mean(0).cpu())
