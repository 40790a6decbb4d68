"""A conversation that a model of texts carries on, with the turns before as its memory.

The history is the model's input, and its window is bounded: the oldest turns are cut whole when the
next question and its answer would not fit, and every reply tells how many turns it was given
without (Foster 2023, chapter 9, on ChatGPT).

    talk = Conversation(model, tokeniser)
    talk.say("my hat is red .").text           # "noted"
    talk.say("what is my hat ?").text          # "red"
    talk.say("what is my hat ?").cut           # turns that no longer fit into the window
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from generative.text.tokens import END, UNKNOWN

if TYPE_CHECKING:
    from generative.data.text import Tokeniser
    from generative.text.gpt import GPT

__all__ = ["ASSISTANT", "STOP", "USER", "Conversation", "Reply", "Turn"]

USER, ASSISTANT, STOP = "user", "assistant", "."
"""Words that open a question, open an answer, and end an answer."""


class Turn(NamedTuple):
    """A question and the answer to it."""

    question: str
    answer: str

    @property
    def text(self) -> str:
        """The turn as the model reads it."""
        return f"{USER} {self.question} {ASSISTANT} {self.answer} {STOP}"


class Reply(NamedTuple):
    """Answer of the model, and what is told about it."""

    text: str
    cut: int
    """Turns of the history, the oldest ones, that the model did not see."""
    unknown: tuple[str, ...]
    """Words of the question that the model does not know."""
    whole: bool
    """False if the answer was longer than the limit, and was cut."""


class Conversation:
    """Turns so far, and a model that reads them with every question.

    Args:
        model: trained on dialogues whose turns are those of `Turn.text`.
        tokeniser: its words.
        max_answer: most words of an answer; so much of the window is kept free.
    Raises:
        ValueError: the words of the frame are not in the vocabulary, or the window has no room for
            an answer.
    """

    def __init__(self, model: GPT, tokeniser: Tokeniser, max_answer: int = 16):
        frame = (USER, ASSISTANT, STOP)
        if UNKNOWN in tokeniser.encode(" ".join(frame)) or tokeniser.kind != "words":
            raise ValueError(
                f"the vocabulary lacks some of {', '.join(frame)}, which dialogues are made of; "
                "train the model on dialogues: train_gpt.py dialogues"
            )
        self.model, self.tokeniser, self.max_answer = model, tokeniser, max_answer
        self.room = model.config.max_len - model.config.from_start + 1
        if max_answer < 1 or max_answer + 2 >= self.room:
            raise ValueError(
                f"max_answer is {max_answer} and the window {self.room} words; give at least 1, "
                "and fewer than the window has beside a question"
            )
        self.turns: list[Turn] = []

    def say(
        self, question: str, temperature: float = 0.0, generator: torch.Generator | None = None
    ) -> Reply:
        """Put a question, or anything else; question and answer become a turn of the history.

        Args:
            question: words; those that the model does not know are read as unknown.
            temperature: see `generative.sampling.shape_logits`; 0 takes the most probable words.
        Raises:
            ValueError: nothing is said, a word of the frame stands in it, or it is too long.
        """
        words = self.tokeniser.decode(self.tokeniser.encode(question)).split()
        if not words or USER in words or ASSISTANT in words:
            raise ValueError(
                f"got {question!r}; say something, without the words {USER!r} and {ASSISTANT!r}"
            )
        prompt, cut = self._prompt(question)
        tokens = torch.tensor([prompt], device=next(self.model.parameters()).device)
        written = self.model.generate(
            tokens, self.max_answer, temperature=temperature, generator=generator
        )[0, len(prompt) :].tolist()
        stop = self.tokeniser.encode(STOP)[0]
        end = next((k for k, token in enumerate(written) if token in (END, stop)), None)
        answer = self.tokeniser.decode(written[:end])
        self.turns.append(Turn(question, answer))
        unknown = tuple(w for w in question.split() if UNKNOWN in self.tokeniser.encode(w))
        return Reply(answer, cut, unknown, end is not None)

    def forget(self, num: int | None = None) -> None:
        """Take back the last turns; all of them without a number."""
        del self.turns[-num if num else 0 :]

    def _prompt(self, question: str) -> tuple[list[int], int]:
        """Tokens of the history that fits and of the question; the number of turns left out."""
        encode = self.tokeniser.encode
        asked = encode(f"{USER} {question} {ASSISTANT}")
        free = self.room - self.max_answer - len(asked)
        if free < 0:
            raise ValueError(
                f"the question has {len(asked) - 2} words; with an answer of {self.max_answer} the "
                f"window of {self.room} holds {self.room - self.max_answer - 2}"
            )
        history: list[int] = []
        for k, turn in enumerate(reversed(self.turns)):
            tokens = encode(turn.text)
            if len(history) + len(tokens) > free:
                return history + asked, len(self.turns) - k
            history = tokens + history
        return history + asked, 0
