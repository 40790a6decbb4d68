"""Dialogues whose right answers follow from the history."""

import math

import pytest
import torch

from generative.known.dialogues import COLOURS, THINGS, TURN, Dialogues

torch.set_num_threads(1)


def test_answers_follow_from_what_was_said_last():
    dialogues = Dialogues()
    said = [dialogues.tell("hat", "red"), dialogues.tell("cat", "blue"), dialogues.ask("hat")]
    assert dialogues.answer(said) == "red"
    assert dialogues.answer(said[:2]) == "noted"
    assert dialogues.answer([*said, dialogues.tell("hat", "pink"), said[-1]]) == "pink"
    assert dialogues.answer([*said, dialogues.ask("door")]) == "unknown"


def test_samples_are_dialogues_with_right_answers():
    """By the sentences: each answer is the one that `answer` gives."""
    dialogues = Dialogues(6)
    x = dialogues.sample(50, torch.Generator().manual_seed(0))
    assert x.shape == (50, 6 * TURN)
    for row in x:
        words = dialogues.tokeniser.decode(row).split()
        said = []
        for k in range(0, len(words), TURN):
            turn = words[k : k + TURN]
            assert (turn[0], turn[6], turn[8]) == ("user", "assistant", ".")
            said.append(" ".join(turn[1:6]))
            assert turn[7] == dialogues.answer(said)
    assert torch.isfinite(dialogues.log_prob(x)).all()
    wrong = x.clone()
    wrong[:, 7] = dialogues.tokeniser.vocabulary.index("grey")
    assert (dialogues.log_prob(wrong)[x[:, 7] != wrong[:, 7]] == -math.inf).all()


@pytest.mark.parametrize("bursts", [False, True])
def test_entropy_is_the_mean_over_all_dialogues_of_a_turn(bursts):
    """All user turns are listed."""
    dialogues = Dialogues(1, bursts)
    tells = torch.ones(len(THINGS) * len(COLOURS), 1, dtype=torch.bool)
    pairs = torch.cartesian_prod(torch.arange(len(THINGS)), torch.arange(len(COLOURS)))
    told = dialogues.join(tells, pairs[:, :1], pairs[:, 1:])
    things = torch.arange(len(THINGS))[:, None]
    asked = dialogues.join(torch.zeros_like(things, dtype=torch.bool), things, things)
    log_p = dialogues.log_prob(torch.cat([told, asked]))
    assert float(log_p.exp().sum()) == pytest.approx(1, abs=1e-12)
    assert -float((log_p.exp() * log_p).sum()) == pytest.approx(dialogues.entropy(), abs=1e-12)
    with pytest.raises(ValueError, match="needs one at least"):
        Dialogues(0)


@pytest.mark.parametrize("bursts", [False, True])
def test_things_of_a_dialogue_come_again_with_bursts(bursts):
    """Mean of ln p over samples is the entropy, and two turns are about one thing as often as
    listing says."""
    dialogues = Dialogues(2, bursts)
    x = dialogues.sample(4000, torch.Generator().manual_seed(0))
    nats = -float(dialogues.log_prob(x).mean())
    assert nats == pytest.approx(dialogues.entropy(), abs=0.05)
    words = [dialogues.tokeniser.decode(row).split() for row in x]
    things = [
        [next(w for w in turn if w in THINGS) for turn in (row[:9], row[9:])] for row in words
    ]
    alike = sum(a == b for a, b in things) / len(things)
    expected = sum(1 / k for k in range(1, 9)) / 8 if bursts else 1 / 8
    assert alike == pytest.approx(expected, abs=0.02)
