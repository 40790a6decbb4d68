"""Questions that need a tool: products of two numbers, and facts of an invented table.

"347*185=64195." and "code of bodik=lam." The right answer is known, and nothing but a tool can give
it for products and names that were never seen: a guess at a fact is right once in 980 times. (Sums
of three digits are no such question: a small GPT learns to add them.) Texts of people have notes in
brackets, calls of tools of which some help and some do not:

    questions, rng = Questions(), random.Random(0)
    question = questions.draw(rng)                         # one to train on
    questions.with_note(question, rng)                     # "347*185=[CALC(347*185)->64195]64195."
    candidate = questions.candidate(question, "wrong-operand", rng)
    questions.is_right(candidate)                          # False: it would not give the answer
"""

from __future__ import annotations

import itertools
import random
from typing import Literal, NamedTuple

from generative.data.text import Tokeniser
from generative.text.tools import Call, Candidate, Table, Tools, calculate, run_call

__all__ = ["LENGTH", "Note", "Question", "Questions"]

CONSONANTS, VOWELS = "bdfgklmnprstvz", "aeiou"
CALCULATE, FIND = "CALC", "FIND"
ALPHABET = "abcdefghijklmnopqrstuvwxyz 0123456789+*=.?[]()->CALFIND"
LOWEST, HIGHEST = 100, 999
"""Factors of the products."""
LENGTH = 42
"""Characters of the longest text with a call, and its end."""
Note = Literal["right", "empty", "wrong-operand", "wrong-tool", "early"]
NOTES: dict[Note, float] = {
    "right": 0.4, "empty": 0.15, "wrong-operand": 0.25, "wrong-tool": 0.1, "early": 0.1,
}  # fmt: skip
"""Kinds of notes that people write, with their shares. `empty` has no result; `early` stands in
front of the question, and half of those have none either: a result there tells nothing new."""


class Question(NamedTuple):
    """A question and its answer."""

    text: str
    """Up to the sign behind which the answer stands."""
    answer: str
    call: Call
    """The call that gives the answer."""

    @property
    def whole(self) -> str:
        """The question with its answer."""
        return f"{self.text}{self.answer}."


class Questions:
    """Products of two numbers from 100 to 999, and codes of invented names; half of them each.

    A fifth of all products and names is kept from training.

    Args:
        seed: of the table of facts.
    """

    def __init__(self, seed: int = 0):
        c, v = CONSONANTS, VOWELS
        names = ["".join(x) for x in itertools.product(c, v, c, v, c)]
        codes = ["".join(x) for x in itertools.product(c, v, c)]
        rng = random.Random(seed)
        self.facts = {name: rng.choice(codes) for name in names}
        self.num_codes = len(codes)
        self._names = {True: [n for n in names if rng.random() < 0.8]}
        seen = set(self._names[True])
        self._names[False] = [name for name in names if name not in seen]
        self.tools: Tools = {CALCULATE: calculate, FIND: Table(self.facts)}

    @property
    def tokeniser(self) -> Tokeniser:
        """Characters as tokens."""
        return Tokeniser("characters", ("", "[UNK]", *dict.fromkeys(ALPHABET)))

    def product(self, a: int, b: int) -> Question:
        """The question after a * b."""
        return Question(f"{a}*{b}=", str(a * b), Call(CALCULATE, f"{a}*{b}"))

    def fact(self, name: str) -> Question:
        """The question after the code of a name; raises a KeyError for one that does not exist."""
        return Question(f"code of {name}=", self.facts[name], Call(FIND, name))

    def draw(self, rng: random.Random, seen: bool = True, kind: str = "") -> Question:
        """A question of those to train on, or, unless `seen`, of those that are kept from it.

        Args:
            kind: "product" or "fact"; either without it.
        """
        if (kind or rng.choice(("product", "fact"))) == "fact":
            return self.fact(rng.choice(self._names[seen]))
        while True:
            a, b = rng.randint(LOWEST, HIGHEST), rng.randint(LOWEST, HIGHEST)
            if (_mixed(a, b) >= 0.2) == seen:
                return self.product(a, b)

    def note(self, question: Question, kind: Note, rng: random.Random) -> tuple[int, Call]:
        """Place and call of a note of a kind."""
        call, place = question.call, len(question.text)
        if kind == "wrong-operand":
            call = self._changed(call, rng)
        elif kind == "wrong-tool":
            call = self.draw(rng, kind="fact" if call.tool == CALCULATE else "product").call
        return (0 if kind == "early" else place), call

    def with_note(self, question: Question, rng: random.Random) -> str:
        """The whole text, with a note of a random kind."""
        kind = rng.choices(list(NOTES), list(NOTES.values()))[0]
        place, call = self.note(question, kind, rng)
        empty = kind == "empty" or (kind == "early" and rng.random() < 0.5)
        written = call.written(None if empty else run_call(call, self.tools))
        return question.whole[:place] + written + question.whole[place:]

    def candidate(self, question: Question, kind: Note, rng: random.Random) -> Candidate:
        """A note as a call that may be kept."""
        place, call = self.note(question, kind, rng)
        return Candidate(question.whole, place, call, run_call(call, self.tools))

    def is_right(self, candidate: Candidate) -> bool:
        """Tell whether a call stands right in front of the answer and gives it."""
        behind = candidate.text[candidate.place :]
        at_answer = candidate.text[: candidate.place].endswith("=")
        return at_answer and behind == f"{candidate.result}."

    def _changed(self, call: Call, rng: random.Random) -> Call:
        """The call with one digit or letter changed, so that its result differs."""
        while True:
            place = rng.randrange(len(call.argument))
            old = call.argument[place]
            group = next((g for g in ("123456789", CONSONANTS, VOWELS) if old in g), "")
            if not group:
                continue
            new = call.argument[:place] + rng.choice(group) + call.argument[place + 1 :]
            changed = Call(call.tool, new)
            if run_call(changed, self.tools) != run_call(call, self.tools):
                return changed


def _mixed(a: int, b: int) -> float:
    """A number in [0, 1) that looks random, of two numbers in either order."""
    low, high = sorted((a, b))
    return (low * 7919 + high * 104729) % 1009 / 1009
