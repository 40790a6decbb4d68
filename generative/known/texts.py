"""Texts whose probability is known exactly: Markov chains and hidden Markov models.

A model of the next token cannot have a lower loss than the entropy of its texts, and a model that
fills gaps none below that of the exact posterior. Both can be computed here.

    source = markov_text()                     # letters, each drawn by the two before it
    x = source.sample(100, 64)                 # int64 (100, 64), tokens 2 to 9
    source.entropy(64) / 64                    # nats a token, the floor of any model's loss
    source.log_prob(x, seen)                   # of the tokens where seen is True, (100,)
    source.posterior(x, seen)                  # of each token given those, (100, 64, 10)
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from generative.text.corruption import span_lengths
from generative.text.tokens import UNKNOWN
from generative.training.checks import checked
from generative.training.ranges import Count, CountOrZero

__all__ = ["HiddenMarkov", "MarkovText", "hidden_markov_text", "markov_text", "span_log_prob"]

RESERVED = UNKNOWN + 1
"""First token that is a letter; lower ones are reserved."""


class HiddenMarkov:
    """Tokens that depend on a hidden state, which depends on the state before (Rabiner 1989).

    All in float64.

    Args:
        initial: p(first state), (S,).
        transition: p(state | state before), (S, S), rows sum to 1.
        emission: p(letter | state), (S, L), rows sum to 1; letter l is token l + 2.
    Raises:
        ValueError: shapes that do not fit, or rows that do not sum to 1.
    """

    def __init__(self, initial: Tensor, transition: Tensor, emission: Tensor):
        states = len(initial)
        if transition.shape != (states, states) or emission.dim() != 2 or len(emission) != states:
            raise ValueError(
                f"initial is {tuple(initial.shape)}, transition {tuple(transition.shape)}, "
                f"emission {tuple(emission.shape)}; they need to be (S,), (S, S) and (S, L)"
            )
        for rows in (initial, transition, emission):
            if bool((rows < 0).any() | ((rows.sum(-1) - 1).abs() > 1e-6).any()):
                raise ValueError("initial, and the rows of the others, have to sum to 1")
        self.initial, self.transition, self.emission = (
            x.double() / x.double().sum(-1, keepdim=True) for x in (initial, transition, emission)
        )

    @property
    def vocab_size(self) -> int:
        """Number of tokens: the letters, the end of a text, and the unknown."""
        return RESERVED + self.emission.shape[1]

    def sample(self, n: int, length: int, generator: torch.Generator | None = None) -> Tensor:
        """n texts, int64 (n, length)."""
        return self.sample_with_states(n, length, generator)[0]

    @checked
    def sample_with_states(
        self, n: CountOrZero, length: Count, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """n texts and the states behind them, int64 (n, length) both."""
        states = [torch.multinomial(self.initial, n, replacement=True, generator=generator)]
        for _ in range(length - 1):
            states.append(_draw(self.transition[states[-1]], generator))
        hidden = torch.stack(states, 1)
        letters = _draw(self.emission[hidden.flatten()], generator).view(n, length)
        return letters + RESERVED, hidden

    def log_prob(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        """log p in nats of texts (B, T), or of their tokens where seen is True, (B,).

        Raises:
            ValueError: a token that is no letter.
        """
        return self._forward(self._likelihoods(x, seen))[1].sum(1)

    def posterior(self, x: Tensor, seen: Tensor) -> Tensor:
        """Probability of every token at every position of texts (B, T), given the seen tokens.

        By forward and backward messages. (B, T, vocab_size), rows sum to 1.
        """
        likelihoods = self._likelihoods(x, seen)
        ahead = self._forward(likelihoods)[0]
        back, message = [], torch.ones_like(ahead[:, 0])
        for t in reversed(range(x.shape[1])):
            back.append(message)
            message = (message * likelihoods[:, t]) @ self.transition.T
            message = message / message.sum(1, keepdim=True)
        states = ahead * torch.stack(back[::-1], 1)
        letters = (states / states.sum(2, keepdim=True)) @ self.emission
        # A seen token is certain; the messages alone give only its state.
        letters = torch.where(
            seen[:, :, None], torch.nn.functional.one_hot(x - RESERVED, letters.shape[2]), letters
        )
        return torch.nn.functional.pad(letters, (RESERVED, 0))

    def _likelihoods(self, x: Tensor, seen: Tensor | None) -> Tensor:
        """p(token | state), 1 where it is not seen, (B, T, S)."""
        if x.dim() != 2 or bool(((x < RESERVED) | (x >= self.vocab_size)).any()):
            raise ValueError(
                f"got tokens {tuple(x.shape)} from {int(x.min())} to {int(x.max())}; give (B, T) "
                f"from {RESERVED} to {self.vocab_size - 1}"
            )
        likelihoods = self.emission.T[x - RESERVED]
        return likelihoods if seen is None else torch.where(seen[:, :, None], likelihoods, 1.0)

    def _forward(self, likelihoods: Tensor) -> tuple[Tensor, Tensor]:
        """p(state | tokens so far) (B, T, S), log p(token | tokens before) (B, T)."""
        messages, scales = [], []
        message = self.initial.expand(len(likelihoods), -1)
        for t in range(likelihoods.shape[1]):
            message = (message if t == 0 else message @ self.transition) * likelihoods[:, t]
            total = message.sum(1, keepdim=True)
            message = message / total
            messages.append(message)
            scales.append(total.log())
        return torch.stack(messages, 1), torch.cat(scales, 1)


class MarkovText(HiddenMarkov):
    """Letters that depend on the two before them, from their stationary distribution.

    A hidden Markov model with the last two letters for a state, which the letter itself reveals.

    Args:
        table: p(letter | two letters before), (L, L, L), positive, rows sum to 1.
    """

    def __init__(self, table: Tensor):
        table, letters = table.double(), len(table)
        pairs = torch.zeros(letters**2, letters**2, dtype=torch.float64)
        for a, b, c in itertools.product(range(letters), repeat=3):
            pairs[a * letters + b, b * letters + c] = table[a, b, c]
        emission = torch.eye(letters, dtype=torch.float64).repeat(letters, 1)  # (a, b) shows b
        stationary = _stationary(pairs)
        super().__init__(stationary, pairs, emission)
        self.table = table

    def entropy_rate(self) -> float:
        """Nats per letter given all before: sum over pairs of p(a, b) H(c | a, b)."""
        pairs = self.initial.view(self.table.shape[:2])
        return float((pairs * _entropy(self.table)).sum())

    def entropy(self, length: int) -> float:
        """Nats per text of `length` letters: H(a) + H(b | a) + (length - 2) * entropy_rate."""
        pairs = self.initial.view(self.table.shape[:2])
        first, both = float(_entropy(pairs.sum(1))), float(_entropy(self.initial))
        return first if length == 1 else both + (length - 2) * self.entropy_rate()


def markov_text(num_letters: int = 8, sharpness: float = 2.5) -> MarkovText:
    """Letters a, b, c ..: p(c | a, b) grows with exp(sharpness * sin(...)) of the three."""
    a, b, c = torch.meshgrid(*[torch.arange(num_letters, dtype=torch.float64)] * 3, indexing="ij")
    return MarkovText((sharpness * torch.sin(1.0 + 3 * a + 5 * b + 2 * c + a * b * c)).softmax(2))


def hidden_markov_text(
    num_states: int = 4, num_letters: int = 8, stay: float = 0.9, sharpness: float = 3.0
) -> HiddenMarkov:
    """Hidden Markov text whose states mostly stay and each prefer letters of their own."""
    s = num_states
    leave = (1 - stay) / (s - 1)
    transition = torch.full((s, s), leave, dtype=torch.float64)
    transition.fill_diagonal_(stay)
    state, letter = torch.meshgrid(
        torch.arange(s, dtype=torch.float64),
        torch.arange(num_letters, dtype=torch.float64),
        indexing="ij",
    )
    angle = 2 * torch.pi * (letter / num_letters - state / s)
    emission = (sharpness * angle.cos()).softmax(1)
    return HiddenMarkov(torch.full((s,), 1 / s, dtype=torch.float64), transition, emission)


def span_log_prob(
    text: HiddenMarkov, x: Tensor, source: Tensor, rate: float = 0.15, mean: float = 3.0
) -> Tensor:
    """Log probability of the cut-out spans given the rest, nats (B,): the optimum of a T5.

    The source does not tell the length of each span, so its probability is a sum over all ways to
    divide the missing tokens, and the target is one of these:

        p(target | source) = p(whole text) / sum over ways of p(shown tokens at their positions)

    Args:
        text: distribution of x.
        x: whole texts (B, T).
        source: output of `corrupt_spans` with this rate and mean (B, S); tokens from
            text.vocab_size up are sentinels.
    """
    length = x.shape[1]
    taken, pieces = span_lengths(length, rate, mean)
    ways = []
    for bars in itertools.combinations(range(1, taken), pieces - 1):
        ends = (0, *bars, taken)
        sizes = [after - before for before, after in itertools.pairwise(ends)]
        ways.append(torch.tensor(sizes))
    totals = []
    for sizes in ways:
        whole, seen = torch.full_like(x, RESERVED), torch.zeros_like(x, dtype=torch.bool)
        sentinel = source >= text.vocab_size
        jump = torch.zeros_like(source)
        jump[sentinel] = sizes.repeat(len(x)) - 1
        places = torch.arange(source.shape[1]) + jump.cumsum(1) - jump
        shown = torch.where(sentinel, RESERVED, source)
        whole.scatter_(1, places, shown)
        seen.scatter_(1, places, ~sentinel)
        totals.append(text.log_prob(whole, seen))
    return text.log_prob(x) - torch.stack(totals).logsumexp(0)


def _stationary(transition: Tensor) -> Tensor:
    """Distribution that a transition leaves unchanged, (S,)."""
    size = len(transition)
    system = torch.cat([transition.T - torch.eye(size, dtype=torch.float64), torch.ones(1, size)])
    target = torch.cat([torch.zeros(size), torch.ones(1)]).double()
    solution = torch.linalg.lstsq(system.double(), target[:, None]).solution[:, 0]
    solution = solution.clamp_min(0)
    return solution / solution.sum()


def _entropy(p: Tensor) -> Tensor:
    """-sum p log p over the last axis."""
    return torch.special.entr(p).sum(-1)


def _draw(rows: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw one index from each row of probabilities, (N, K) -> (N,)."""
    u = torch.rand(len(rows), 1, generator=generator, dtype=torch.float64)
    return (rows.cumsum(1) <= u).sum(1).clamp_max(rows.shape[1] - 1)
