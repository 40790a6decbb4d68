"""Dialogues in which the right answer is somewhere in the history, or nowhere.

A user tells colours of things and asks for them: "user my hat is red . assistant noted ." and "user
what is my hat ? assistant red ."; what was never told is "unknown", and what was told again is as
told last. The user's turns are drawn, the answers follow, so every probability is known:

    dialogues = Dialogues(num_turns=8)
    x = dialogues.sample(100)                  # int64 (100, 72), nine words a turn
    dialogues.log_prob(x)                      # nats, (100,)
    dialogues.answer(["my hat is red .", "what is my hat ?"])   # "red"
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from generative.data.text import Tokeniser
from generative.known.bursts import draw_things, entropy_of, log_prob_of
from generative.text.chat import ASSISTANT, STOP, USER, Turn
from generative.training.checks import checked
from generative.training.ranges import CountOrZero

__all__ = ["COLOURS", "THINGS", "TURN", "Dialogues"]

THINGS = ("hat", "cat", "car", "cup", "bag", "boat", "coat", "door")
COLOURS = ("red", "green", "blue", "yellow", "black", "white", "pink", "grey")
NOTED, NEVER = "noted", "unknown"
TURN = 9
"""Words of every turn."""


class Dialogues:
    """Dialogues of a fixed number of turns.

    Args:
        num_turns: turns of a text.
        bursts: each dialogue is about some of the things only, see `generative.known.bursts`. The
            right answers are the same as without.
    Raises:
        ValueError: no turn.
    """

    def __init__(self, num_turns: int = 8, bursts: bool = False):
        if num_turns < 1:
            raise ValueError(f"num_turns is {num_turns}; a dialogue needs one at least")
        self.num_turns, self.bursts = num_turns, bursts
        frame = (USER, ASSISTANT, STOP, "?", "my", "is", "what", NOTED, NEVER)
        self.tokeniser = Tokeniser("words", ("", "[UNK]", *frame, *THINGS, *COLOURS))

    def tell(self, thing: str, colour: str) -> str:
        """Sentence of a user that tells a colour."""
        return f"my {thing} is {colour} {STOP}"

    def ask(self, thing: str) -> str:
        """Sentence of a user that asks for a colour."""
        return f"what is my {thing} ?"

    def answer(self, said: Sequence[str]) -> str:
        """The right answer to the last of a user's sentences, after all of them."""
        known: dict[str, str] = {}
        found = NOTED
        for sentence in said:
            words = sentence.split()
            if words[0] == "my":
                known[words[1]] = words[3]
                found = NOTED
            else:
                found = known.get(words[3], NEVER)
        return found

    @checked
    def sample(self, n: CountOrZero, generator: torch.Generator | None = None) -> Tensor:
        """n dialogues, int64 (n, 9 num_turns); a turn tells or asks, both as often."""
        size = (n, self.num_turns)
        tells = torch.rand(size, generator=generator) < 0.5
        things = draw_things(*size, len(THINGS), self.bursts, generator)
        colours = torch.randint(len(COLOURS), size, generator=generator)
        return self.join(tells, things, colours)

    def join(self, tells: Tensor, things: Tensor, colours: Tensor) -> Tensor:
        """A user's turns, (B, N) each -> dialogues with the right answers, int64 (B, 9 N).

        Args:
            tells: bool, whether a turn tells a colour or asks for one.
            things, colours: numbers in `THINGS` and `COLOURS`; a turn that asks has no colour.
        """
        index = self.tokeniser.vocabulary.index
        n, num_turns = tells.shape
        known = torch.full((n, len(THINGS)), index(NEVER))
        rows = torch.arange(n)
        thing, colour = things + index(THINGS[0]), colours + index(COLOURS[0])
        found = []
        for t in range(num_turns):
            told = self._turn(("my", -1, "is", -2, STOP), thing[:, t], colour[:, t])
            asked = self._turn(("what", "is", "my", -1, "?"), thing[:, t], colour[:, t])
            reply = torch.where(tells[:, t], index(NOTED), known[rows, things[:, t]])
            before = known[rows, things[:, t]]
            known[rows, things[:, t]] = torch.where(tells[:, t], colour[:, t], before)
            said = torch.where(tells[:, t, None], told, asked)
            one = torch.ones(n, 1, dtype=torch.int64)
            user, assistant, stop = (one * index(w) for w in (USER, ASSISTANT, STOP))
            found.append(torch.cat([user, said, assistant, reply[:, None], stop], 1))
        return torch.cat(found, 1)

    def log_prob(self, x: Tensor) -> Tensor:
        """log p of dialogues (B, T) in nats, float64 (B,); -inf where an answer is wrong."""
        text = [self.tokeniser.decode(row) for row in x]
        return torch.tensor([self._log_prob(t) for t in text], dtype=torch.float64)

    def entropy(self) -> float:
        """Nats per dialogue: for every turn log 2, log 8 more for half of them, and its things."""
        each = math.log(2) + 0.5 * math.log(len(COLOURS))
        return self.num_turns * each + entropy_of(self.num_turns, len(THINGS), self.bursts)

    def _log_prob(self, text: str) -> float:
        said: list[str] = []
        things: set[str] = set()
        total = 0.0
        for turn in text.split(f"{USER} ")[1:]:
            question, _, _ = turn.partition(f" {ASSISTANT} ")
            said.append(question)
            expected = Turn(question, self.answer(said)).text
            if f"{USER} {turn}".strip() != expected:
                return -math.inf
            total -= math.log(2)
            things.add(question.split()[1 if question.startswith("my") else 3])
            total -= math.log(len(COLOURS)) if question.startswith("my") else 0.0
        if len(said) != self.num_turns:
            return -math.inf
        return total + log_prob_of(len(things), len(said), len(THINGS), self.bursts)

    def _turn(self, words: Sequence[str | int], thing: Tensor, colour: Tensor) -> Tensor:
        """Tokens of a sentence, (B, words); -1 stands for the thing, -2 for the colour."""
        columns = [
            {-1: thing, -2: colour}[word]
            if isinstance(word, int)
            else torch.full_like(thing, self.tokeniser.vocabulary.index(word))
            for word in words
        ]
        return torch.stack(columns, 1)
