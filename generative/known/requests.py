"""A language of requests and answers that is small enough to write down every answer.

A request is one letter; an answer is up to four tokens. A judge knows what an answer is worth,
people are asked which of several answers is better, and the best policy under a price for leaving a
reference is known exactly:

    J(pi) = E[r] - beta KL(pi || reference),   pi* = reference exp(r / beta) / Z,   J* = beta log Z

    requests = Requests()
    reference = requests.log_probs(sft)                   # of all answers, (prompts, answers)
    best = requests.optimum(reference, requests.rewards, beta=0.5)
    requests.outcome(requests.log_probs(policy), reference, requests.rewards, 0.5).objective
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from generative.text.tokens import END, UNKNOWN, up_to_end

if TYPE_CHECKING:
    from generative.text.gpt import GPT

__all__ = ["Optimum", "RequestOutcome", "Requests", "rms_difference"]


class RequestOutcome(NamedTuple):
    """Result of a policy, means over the prompts."""

    objective: float
    """reward - beta * kl."""
    reward: float
    kl: float
    """KL(policy || reference), nats."""


class Optimum(NamedTuple):
    """The best policy."""

    log_prob: Tensor
    """Log probability of every answer, (prompts, answers)."""
    objective: float
    """beta log Z, mean over the prompts: no policy exceeds it."""


class Requests:
    """The language, its people and its judge.

    Args:
        num_letters: number of letters; each is a request.
        length: largest number of tokens of an answer; shorter ones end with END.
    """

    def __init__(self, num_letters: int = 3, length: int = 4):
        if num_letters < 1 or length < 1:
            raise ValueError(f"got {num_letters} letters, length {length}; give at least 1 of each")
        self.length, self.vocab_size = length, 2 + num_letters
        self.prompts = torch.arange(2, self.vocab_size)[:, None]
        """int64 (prompts, 1)."""
        rows = [row for n in range(length + 1) for row in self._rows(n)]
        self.answers = torch.tensor(rows)
        """int64 (answers, length), END behind the end."""
        self.texts = torch.cat(
            [
                self.prompts[:, None].expand(-1, len(rows), -1),
                self.answers.expand(len(self.prompts), -1, -1),
            ],
            2,
        )
        """Every prompt with every answer, int64 (prompts, answers, 1 + length)."""
        self.rewards = self.judge(self.texts.flatten(0, 1)).view(self.texts.shape[:2])
        """Worth of every answer by the judge, float64 (prompts, answers)."""

    def _rows(self, n: int):
        """All answers of n tokens before the end."""
        for row in itertools.product(range(UNKNOWN, self.vocab_size), repeat=n):
            yield (*row, *[END] * (self.length - n))

    # -----------------------------------------------------------------------------------------
    # People
    # -----------------------------------------------------------------------------------------

    def judge(self, texts: Tensor) -> Tensor:
        """Worth of texts (B, 1 + length), float64 (B,).

        1 if the requested letter occurs, plus 1/4 for each different letter and 1/2 for an end;
        minus 1/2 for each repeated token and for each unknown one.
        """
        prompt, answer = texts[:, :1], texts[:, 1:]
        worth = 1.0 * (answer == prompt).any(1) + 0.5 * (answer == END).any(1)
        for letter in range(2, self.vocab_size):
            worth = worth + 0.25 * (answer == letter).any(1)
        for token in range(UNKNOWN, self.vocab_size):
            worth = worth - 0.5 * ((answer == token).sum(1) - 1).clamp_min(0)
        return (worth - 0.5 * (answer == UNKNOWN).sum(1)).double()

    def ask(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n prompts, all equally likely, int64 (n, 1)."""
        return self.prompts[torch.randint(len(self.prompts), (n,), generator=generator)]

    def demonstrations(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n prompts with answers that people gave, int64 (n, 1 + length).

        People are no experts: they repeat the last token in a quarter of the cases, and otherwise
        say anything; see `demonstration_table`.
        """
        texts = self.ask(n, generator)
        table = self.demonstration_table()
        for _ in range(self.length):
            texts = torch.cat([texts, _draw(table[texts[:, -1]], generator)], 1)
        return texts

    def demonstration_table(self) -> Tensor:
        """p(token | the one before), float64 (V, V).

        A quarter repeats the token; of the rest 20 % is END, 5 % UNKNOWN, and letters are equal.
        Nothing comes after END.
        """
        v = self.vocab_size
        table = torch.full((v, v), 0.75 * 0.75 / (v - 2), dtype=torch.float64)
        table[:, END], table[:, UNKNOWN] = 0.75 * 0.2, 0.75 * 0.05
        table += 0.25 * torch.eye(v, dtype=torch.float64)
        table[END] = torch.eye(v, dtype=torch.float64)[END]
        return table

    def demonstration_log_probs(self) -> Tensor:
        """log p of every answer by people, float64 (prompts, answers)."""
        log_table = self.demonstration_table().log()
        return log_table[self.texts[:, :, :-1], self.texts[:, :, 1:]].sum(2)

    def rank(self, texts: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Rank answers (B, K, 1 + length) from best to worst, as people with the judge's taste do.

        The model of Plackett and Luce: order by worth plus Gumbel noise. The better of two answers
        comes first with probability sigmoid(difference of worths), Bradley and Terry's model.
        """
        worth = self.judge(texts.flatten(0, 1)).view(texts.shape[:2])
        uniform = torch.rand(worth.shape, generator=generator, dtype=torch.float64)
        order = (worth - (-uniform.log()).log()).argsort(1, descending=True)
        return texts.gather(1, order[:, :, None].expand_as(texts))

    # -----------------------------------------------------------------------------------------
    # Exact answers
    # -----------------------------------------------------------------------------------------

    @torch.no_grad()
    def log_probs(self, model: GPT) -> Tensor:
        """log p of every answer by a model, float64 (prompts, answers)."""
        texts = self.texts.flatten(0, 1)
        device = next(model.parameters()).device
        each = model.token_log_probs(texts.to(device))[:, -self.length :].cpu().double()
        return (each * up_to_end(texts[:, 1:])).sum(1).view(self.texts.shape[:2])

    def optimum(self, reference: Tensor, rewards: Tensor, beta: float) -> Optimum:
        """The policy with the largest E[r] - beta KL(policy || reference).

        Args:
            reference: log p of every answer, (prompts, answers).
            rewards: reward of every answer: `self.rewards` or that of a reward model.
        """
        tilted = reference + rewards / beta
        log_z = tilted.logsumexp(1, keepdim=True)
        return Optimum(tilted - log_z, beta * float(log_z.mean()))

    def outcome(
        self, policy: Tensor, reference: Tensor, rewards: Tensor, beta: float
    ) -> RequestOutcome:
        """Reward and KL of a policy, log p of every answer, by summing over all of them."""
        p = policy.exp()
        reward = float((p * rewards).sum(1).mean())
        kl = float((p * (policy - reference)).sum(1).mean())
        return RequestOutcome(reward - beta * kl, reward, kl)


def rms_difference(found: Tensor, true: Tensor, log_weight: Tensor) -> float:
    """Root mean square difference of two rewards of all answers, up to a constant for each prompt.

    Comparisons do not determine this constant, and no policy depends on it.

    Args:
        found, true: (prompts, answers).
        log_weight: log weight of the answers in the mean, (prompts, answers).
    """
    p, difference = log_weight.exp(), found - true
    centred = difference - (p * difference).sum(1, keepdim=True)
    return float((p * centred.square()).sum(1).mean().sqrt())


def _draw(rows: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw one index from each row of probabilities, (N, K) -> (N, 1)."""
    return torch.multinomial(rows, 1, generator=generator)
