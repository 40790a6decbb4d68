"""Calls of tools in texts: parsing, running, writing, and the loss that a result saves."""

import itertools
import random
from dataclasses import replace

import pytest
import torch
from torch import nn

from generative.data.text import Tokeniser
from generative.known.tool_questions import LENGTH, Questions
from generative.text.config import GPTConfig, ToolformerConfig, gpt2_block
from generative.text.gpt import GPT
from generative.text.tools import (
    Call,
    Candidate,
    Table,
    ToolError,
    answer,
    calculate,
    call_losses,
    call_probability,
    find_call,
    own_tokens,
    run_call,
    sample_calls,
    write,
)

torch.set_num_threads(1)
QUESTIONS = Questions()
TOKENISER = QUESTIONS.tokeniser


class Scripted(nn.Module):
    """Goes on with the next character of the first text that begins like the one so far."""

    def __init__(self, texts: list[str], tokeniser: Tokeniser = TOKENISER):
        super().__init__()
        self.texts, self.tokeniser = texts, tokeniser
        self.config = GPTConfig(len(tokeniser), 64)
        self.weight = nn.Parameter(torch.zeros(1))

    def features(self, rows):
        found = torch.full((*rows.shape, len(self.tokeniser)), -50.0)
        for row, places in zip(rows.tolist(), found, strict=True):
            for k in range(len(row)):
                so_far = self.tokeniser.decode(row[1 : k + 1])
                match = next((t for t in self.texts if t.startswith(so_far)), so_far)
                following = self.tokeniser.encode(match[k : k + 1]) or [0]
                places[k, following[0]] = 0.0
        return found

    def read_out(self, features):
        return features

    def logits(self, rows):
        return self.features(rows)


# ---------------------------------------------------------------------------------------------
# Tools
# ---------------------------------------------------------------------------------------------


def test_sums_equal_those_of_python():
    rng = random.Random(0)
    for _ in range(300):
        pieces = [str(rng.randint(0, 99))]
        for _ in range(rng.randint(0, 5)):
            pieces += [
                rng.choice("+-*"),
                rng.choice(("{}", "({}-3)", "-{}")).format(rng.randint(0, 99)),
            ]
        text = "".join(pieces)
        assert calculate(text) == str(eval(text)), text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "ends where"), ("1+", "ends where"), ("(1", "not closed"), ("1 2", "not expected"),
        ("1)", "not expected"), ("2**3", "no number"), ("abs(1)", "no number"),
        ("1.5", "not expected"), ("9" * 31, "no number"), ("9" * 20 + "*" + "9" * 20, "more than"),
        ("(" * 101, "101 characters"), ("(" * 100, "ends where"), ("²", "no number"),
        ("__import__", "no number"),
    ],
)  # fmt: skip
def test_what_is_no_sum_is_refused(text, says):
    with pytest.raises(ToolError, match=says):
        calculate(text)


def test_calls_are_found_where_a_text_ends_in_one():
    assert find_call("347+85=[CALC(347+85)") == Call("CALC", "347+85")
    assert find_call("a [CALC(2*(3+4))") == Call("CALC", "2*(3+4)")
    assert find_call("[CALC(1)->1]1") is None
    assert find_call("CALC(1)") is None
    assert find_call("[calc(1)") is None
    assert Call("CALC", "1+2").written() == "[CALC(1+2)]"
    assert Call("CALC", "1+2").written("3") == "[CALC(1+2)->3]"
    tools = {"CALC": calculate, "FIND": Table({"bodik": "lam"})}
    assert run_call(Call("FIND", "bodik"), tools) == "lam"
    assert run_call(Call("FIND", "bodek"), tools) == "?"
    assert run_call(Call("CALC", "1+"), tools) == "?"
    assert run_call(Call("OTHER", "1"), tools) == "?"


# ---------------------------------------------------------------------------------------------
# Writing
# ---------------------------------------------------------------------------------------------


def test_the_tool_runs_at_the_arrow_and_its_result_is_put_in():
    """The model would have written another result; it never gets to."""
    model = Scripted(["1+2=[CALC(1+2)->9]9.", "1+2=[CALC(1+2)->3]3.", "1+2=5."])
    assert answer(model, TOKENISER, ["1+2="], {"CALC": calculate}) == ["1+2=[CALC(1+2)->3]3."]
    assert answer(model, TOKENISER, ["1+2="], {}) == ["1+2=[CALC(1+2)->?]"]
    assert answer(model, TOKENISER, ["1+2=", "1"], {"CALC": calculate}, 3) == ["1+2=[CA", "1+2="]
    model = Scripted(["a->b.", "1+2=5."])
    assert answer(model, TOKENISER, ["a"], {"CALC": calculate}) == ["a->b."]
    assert answer(model, TOKENISER, ["1+2="], None) == ["1+2=5."]


def test_texts_of_different_lengths_are_written_as_if_alone():
    torch.manual_seed(0)
    model = GPT(GPTConfig(len(TOKENISER), 24, 2, gpt2_block(16, 2, 0.0), tied=True)).eval()
    prompts = ["12+", "code of ", "", "3"]
    together = write(model, TOKENISER, prompts, 12, temperature=0.0)
    for prompt, text in zip(prompts, together, strict=True):
        row = torch.tensor([TOKENISER.encode(prompt)], dtype=torch.int64)
        expected = TOKENISER.decode(model.generate(row, 12, temperature=0.0)[0])
        assert text == expected
    assert "[" not in "".join(write(model, TOKENISER, ["1"] * 30, 20, banned="[")[0])
    with pytest.raises(ValueError, match="more than the 23 characters"):
        write(model, TOKENISER, ["1" * 24], 1)


def test_the_tools_part_of_a_text_is_not_the_models():
    texts = ["1+2=[CALC(1+2)->3]3.", "a[FIND(a)]b.", "[CALC(1)->1]a[FIND(b)->cc]d"]
    own = own_tokens(texts, 30)
    shown = [
        "".join(c if o else "_" for c, o in zip(t, row, strict=False))
        for t, row in zip(texts, own.tolist(), strict=True)
    ]
    assert shown == ["1+2=[CALC(1+2)->__3.", "a[FIND(a)]b.", "[CALC(1)->__a[FIND(b)->___d"]
    assert own[0, 20:].all()


# ---------------------------------------------------------------------------------------------
# Finding calls
# ---------------------------------------------------------------------------------------------


def small_gpt() -> GPT:
    torch.manual_seed(0)
    block = gpt2_block(16, 2, 0.0)
    return GPT(GPTConfig(len(TOKENISER), LENGTH, 1, block, tied=True, init="normal")).eval()


def test_losses_behind_calls_are_weighted_means():
    """By a loop over the tokens of one text at a time."""
    model, rng = small_gpt(), random.Random(0)
    candidates = [
        QUESTIONS.candidate(QUESTIONS.draw(rng), kind, rng)
        for kind in ("right", "wrong-operand", "early", "wrong-tool")
    ]
    found = call_losses(model, TOKENISER, candidates, 0.3, batch_size=3)
    for k, candidate in enumerate(candidates):
        text, place, call = candidate.text, candidate.place, candidate.call
        for losses, inserted in zip(
            found, ("", call.written(), call.written(candidate.result)), strict=True
        ):
            whole = text[:place] + inserted + text[place:]
            log_p = model.token_log_probs(torch.tensor([TOKENISER.encode(whole)]))[0].tolist()
            total = weight = 0.0
            for t in range(len(text) - place):
                w = max(0.0, 1 - 0.3 * t)
                total -= w * log_p[place + len(inserted) + t]
                weight += w
            assert float(losses[k]) == pytest.approx(total / weight, rel=1e-5)
    expected = torch.minimum(found.without, found.empty) - found.full
    assert torch.equal(found.gain, expected)


def test_a_gain_needs_more_than_the_words_of_a_call():
    """The call alone already tells the answer, so that its result saves nothing."""
    model = Scripted(["1+2=[CALC(1+2)]3.", "1+2=[CALC(1+2)->3]3.", "1+2=7."])
    model.token_log_probs = lambda x: torch.stack(
        [
            row.log_softmax(-1).gather(1, tokens[:, None])[:, 0]
            for row, tokens in zip(
                model.logits(torch.nn.functional.pad(x[:, :-1], (1, 0))), x, strict=True
            )
        ]
    )
    found = call_losses(model, TOKENISER, [Candidate("1+2=3.", 4, Call("CALC", "1+2"), "3")])
    assert float(found.full) == pytest.approx(0, abs=1e-4)
    assert float(found.empty) == pytest.approx(0, abs=1e-4)
    assert float(found.without) > 10
    assert float(found.gain) == pytest.approx(0, abs=1e-4)


def test_calls_are_tried_where_the_model_begins_them():
    model = Scripted(["1+2=[CALC(1+2)->3]3.", "4+4=4."])
    p = call_probability(model, TOKENISER, ["1+2=3.", "4+4=4."])
    assert [len(row) for row in p] == [7, 7]
    assert p[0][4] == pytest.approx(1, abs=1e-6)
    assert max(p[0][:4] + p[0][5:] + p[1]) < 1e-6
    tools = {"CALC": calculate}
    found = sample_calls(model, TOKENISER, ["1+2=3.", "4+4=4."], tools)
    assert found == [Candidate("1+2=3.", 4, Call("CALC", "1+2"), "3")]
    assert found[0].full == "1+2=[CALC(1+2)->3]3."
    # Text that is no call is left out, and so is one that is too long for its limit.
    assert sample_calls(Scripted(["1+2=[CALC1+2)->"]), TOKENISER, ["1+2=3."], tools) == []
    short = ToolformerConfig(longest=5)
    assert sample_calls(model, TOKENISER, ["1+2=3."], tools, short) == []
    # With its result the text has 20 characters; a window of 19 has no room for it.
    for window, fits in ((20, 1), (19, 0)):
        model.config = replace(model.config, max_len=window)
        assert len(sample_calls(model, TOKENISER, ["1+2=3."], tools)) == fits


# ---------------------------------------------------------------------------------------------
# Questions
# ---------------------------------------------------------------------------------------------


def test_questions_of_training_and_kept_ones_are_disjoint():
    rng = random.Random(1)
    seen, kept = ({QUESTIONS.draw(rng, half).text for _ in range(3000)} for half in (True, False))
    assert not seen & kept
    for question in itertools.islice((QUESTIONS.draw(rng) for _ in itertools.count()), 200):
        assert run_call(question.call, QUESTIONS.tools) == question.answer
        text = QUESTIONS.with_note(question, rng)
        assert len(text) < LENGTH
        assert 1 not in TOKENISER.encode(text)


def test_half_of_the_early_notes_have_no_result():
    """So a result in front of a question tells nothing that its call does not tell."""
    rng, early = random.Random(3), []
    for _ in range(4000):
        text = QUESTIONS.with_note(QUESTIONS.draw(rng), rng)
        if text.startswith("["):
            early.append("->" in text)
    assert len(early) / 4000 == pytest.approx(0.1, abs=0.02)
    assert sum(early) / len(early) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("kind", ["right", "wrong-operand", "wrong-tool", "early"])
def test_only_one_kind_of_note_gives_the_answer(kind):
    rng = random.Random(2)
    for _ in range(200):
        question = QUESTIONS.draw(rng)
        candidate = QUESTIONS.candidate(question, kind, rng)
        assert QUESTIONS.is_right(candidate) == (kind == "right")
        assert candidate.text == question.whole
