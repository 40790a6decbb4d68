"""A conversation: what of its history the model is given, and what is told about the rest."""

import pytest
import torch
from torch import nn

from generative.data.text import Tokeniser
from generative.known.dialogues import Dialogues
from generative.text.chat import Conversation, Turn
from generative.text.config import GPTConfig

torch.set_num_threads(1)
DIALOGUES = Dialogues()


class Perfect(nn.Module):
    """Answers by the rules of the dialogues from what it is shown, and keeps what that was."""

    def __init__(self, max_len: int = 72, from_start: bool = True):
        super().__init__()
        self.config = GPTConfig(30, max_len, from_start=from_start)
        self.weight = nn.Parameter(torch.zeros(1))
        self.shown: list[str] = []
        self.tail = " ."

    def generate(self, tokens, num_tokens, **_options):
        text = DIALOGUES.tokeniser.decode(tokens[0])
        self.shown.append(text)
        said = [t.partition(" assistant")[0] for t in text.split("user ")[1:]]
        words = DIALOGUES.tokeniser.encode(DIALOGUES.answer(said) + self.tail)[:num_tokens]
        row = torch.zeros(1, tokens.shape[1] + num_tokens, dtype=torch.int64)
        row[0, : tokens.shape[1]] = tokens[0]
        row[0, tokens.shape[1] : tokens.shape[1] + len(words)] = torch.tensor(words)
        return row


def test_a_fact_is_known_while_it_is_in_sight():
    """Eight turns of nine words fill the window; then the oldest is cut, and told."""
    model = Perfect()
    talk = Conversation(model, DIALOGUES.tokeniser, max_answer=2)
    assert talk.say(DIALOGUES.tell("hat", "red")).text == "noted"
    for k in range(6):
        reply = talk.say(DIALOGUES.ask("hat"))
        assert (reply.text, reply.cut, reply.whole) == ("red", 0, True), k
    # Seven turns are said: with an eighth the window is just full.
    assert talk.say(DIALOGUES.ask("hat"))[:2] == ("red", 0)
    assert talk.say(DIALOGUES.ask("hat"))[:2] == ("unknown", 1)
    assert talk.say(DIALOGUES.ask("hat"))[:2] == ("unknown", 2)
    assert len(talk.turns) == 10
    assert all(len(text.split()) <= 70 for text in model.shown)
    assert len(model.shown[7].split()) == 70  # and two for the answer


@pytest.mark.parametrize("from_start", [True, False])
def test_the_window_is_used_to_the_last_word(from_start):
    """A model that is given its first word sees one more."""
    model = Perfect(72 - (not from_start), from_start)
    talk = Conversation(model, DIALOGUES.tokeniser, max_answer=2)
    cuts = [talk.say(DIALOGUES.ask("hat")).cut for _ in range(9)]
    assert cuts == [0] * 8 + [1]


def test_what_the_model_reads():
    model = Perfect()
    talk = Conversation(model, DIALOGUES.tokeniser, max_answer=2)
    talk.say("my hat is red .")
    talk.say("what is my hat ?")
    first = "user my hat is red . assistant noted ."
    assert model.shown == [
        "user my hat is red . assistant", f"{first} user what is my hat ? assistant"
    ]  # fmt: skip
    assert talk.turns[0] == Turn("my hat is red .", "noted")
    assert talk.turns[0].text == first
    talk.forget(1)
    assert len(talk.turns) == 1
    talk.say("what is my hat ?")
    assert model.shown[-1] == model.shown[1]
    talk.forget()
    assert talk.say("what is my hat ?").text == "unknown"


def test_words_that_are_not_known_and_answers_that_are_too_long():
    model = Perfect()
    talk = Conversation(model, DIALOGUES.tokeniser, max_answer=2)
    assert talk.say("my house is red .").unknown == ("house",)
    model.tail = " grey grey"
    assert not talk.say("what is my hat ?").whole


def test_what_cannot_be_said():
    talk = Conversation(Perfect(), DIALOGUES.tokeniser, max_answer=2)
    for nothing in ("", "my user is red .", "assistant"):
        with pytest.raises(ValueError, match="say something, without the words"):
            talk.say(nothing)
    with pytest.raises(ValueError, match=r"has 69 words; .* window of 72 holds 68"):
        talk.say("my " * 69)
    assert talk.turns == []
    with pytest.raises(ValueError, match="vocabulary lacks some of user, assistant"):
        Conversation(Perfect(), Tokeniser("words", ("", "[UNK]", "user")))
    with pytest.raises(ValueError, match="max_answer is 70"):
        Conversation(Perfect(), DIALOGUES.tokeniser, max_answer=70)
