"""Toolformer: a model of texts that writes calls of tools, and goes on with what they return.

A call stands in the text, "347+185=[CALC(347+185)->532]532.". The model writes as far as the arrow,
the tool's result and the bracket are put behind it, and the model goes on (Schick et al. 2023).
Which calls are worth making, the model finds out itself: it writes calls into texts, and those are
kept whose results make the words behind them more probable.

    tools = {"CALC": calculate, "FIND": Table({"bodik": "lam"})}
    answer(model, tokeniser, ["347+185="], tools)    # ["347+185=[CALC(347+185)->532]532."]

    candidates = sample_calls(model, tokeniser, texts, config)
    losses = call_losses(model, tokeniser, candidates, config.falloff)
    kept = [c.full for c, gain in zip(candidates, losses.gain) if gain >= config.min_gain]

A character is a token here. A tool is any function of a string that returns one, and raises a
`ToolError` where it has no answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from generative.sampling import sample_logits
from generative.text.config import ToolformerConfig
from generative.text.tokens import (
    END,
    TextLosses,
    after_end,
    token_losses,
    up_to_end,
    with_start,
)

if TYPE_CHECKING:
    from generative.data.text import Tokeniser
    from generative.text.gpt import GPT

__all__ = [
    "Call",
    "CallLosses",
    "Candidate",
    "Table",
    "ToolError",
    "ToolformerConfig",
    "answer",
    "calculate",
    "call_losses",
    "call_probability",
    "find_call",
    "own_token_loss",
    "own_tokens",
    "run_call",
    "sample_calls",
    "without_calls",
    "write",
]

OPEN, ARROW, CLOSE = "[", "->", "]"
NO_ANSWER = "?"
"""Sign for the result of a tool that has none."""
MOST_DIGITS = 30
MOST_CHARACTERS = 100
_CALL = re.compile(r"\[([A-Z]+)\(([^()\[\]]*(?:\([^\[\]]*\)[^()\[\]]*)*)\)$")
_WHOLE_CALL = re.compile(r"\[[^\]]*\]")
_RESULT = re.compile(r"->[^\]]*\]?")

Tools = Mapping[str, Callable[[str], str]]


class ToolError(ValueError):
    """A tool has no answer to what it was asked."""


class Call(NamedTuple):
    """A call of a tool."""

    tool: str
    argument: str

    def written(self, result: str | None = None) -> str:
        """Text of the call: "[CALC(1+2)]", or "[CALC(1+2)->3]" with a result."""
        arrow = "" if result is None else f"{ARROW}{result}"
        return f"{OPEN}{self.tool}({self.argument}){arrow}{CLOSE}"


@dataclass(frozen=True)
class Candidate:
    """A call that may be written into a text."""

    text: str
    place: int
    """Characters of the text in front of the call."""
    call: Call
    result: str

    @property
    def full(self) -> str:
        """The text with the call and its result."""
        return self.text[: self.place] + self.call.written(self.result) + self.text[self.place :]


class CallLosses(NamedTuple):
    """Weighted mean loss of the tokens behind each of N calls, nats, (N,) each."""

    without: Tensor
    """In the text as it is."""
    empty: Tensor
    """Behind the call without its result."""
    full: Tensor
    """Behind the call with its result."""

    @property
    def gain(self) -> Tensor:
        """Loss that the result saves, against the better of the two without it, (N,).

        Both count: a call alone may tell something, as its words do (Schick et al. 2023, section
        2), and it may also confuse a model so much that any result seems to help.
        """
        return torch.minimum(self.without, self.empty) - self.full


# ---------------------------------------------------------------------------------------------
# Tools
# ---------------------------------------------------------------------------------------------


def calculate(expression: str) -> str:
    """Value of a sum such as "12+7", "3*(4-10)" or "-2*5", in whole numbers.

    It knows digits, + - * and brackets, and nothing else; no text is ever run as a program.

    Raises:
        ToolError: anything else, or numbers of more than 30 digits.
    """
    if len(expression) > MOST_CHARACTERS:
        raise ToolError(f"the sum has {len(expression)} characters; give at most {MOST_CHARACTERS}")
    pieces = re.findall(r"\d+|[-+*()]|\S", expression)
    value, rest = _sum(pieces)
    if rest:
        raise ToolError(f"{expression!r} is no sum: {rest[0]!r} was not expected")
    return str(value)


def _sum(pieces: list[str]) -> tuple[int, list[str]]:
    """Value of terms joined by + and -, and the pieces behind them."""
    value, rest = _product(pieces)
    while rest and rest[0] in "+-":
        sign = 1 if rest[0] == "+" else -1
        term, rest = _product(rest[1:])
        value = _checked(value + sign * term)
    return value, rest


def _product(pieces: list[str]) -> tuple[int, list[str]]:
    value, rest = _number(pieces)
    while rest and rest[0] == "*":
        factor, rest = _number(rest[1:])
        value = _checked(value * factor)
    return value, rest


def _number(pieces: list[str]) -> tuple[int, list[str]]:
    """Value of a number, a bracket or either with a minus, and the pieces behind it."""
    if not pieces:
        raise ToolError("the sum ends where a number is needed")
    first, rest = pieces[0], pieces[1:]
    if first == "-":
        value, rest = _number(rest)
        return -value, rest
    if first == "(":
        value, rest = _sum(rest)
        if not rest or rest[0] != ")":
            raise ToolError("a bracket is not closed")
        return value, rest[1:]
    if not first.isascii() or not first.isdigit() or len(first) > MOST_DIGITS:
        raise ToolError(f"{first[:20]!r} is no number of at most {MOST_DIGITS} digits")
    return int(first), rest


def _checked(value: int) -> int:
    if abs(value) >= 10**MOST_DIGITS:
        raise ToolError(f"the value has more than {MOST_DIGITS} digits")
    return value


class Table:
    """Look-ups in a table of facts.

    Args:
        facts: answers by what is asked.
    """

    def __init__(self, facts: Mapping[str, str]):
        self.facts = dict(facts)

    def __call__(self, argument: str) -> str:
        """The answer; raises a ToolError if the table has none."""
        if argument not in self.facts:
            raise ToolError(f"the table has no {argument[:40]!r}")
        return self.facts[argument]


def find_call(text: str) -> Call | None:
    """The call that a text ends in, without arrow and result; None if it ends in none."""
    found = _CALL.search(text)
    return Call(found[1], found[2]) if found else None


def run_call(call: Call, tools: Tools) -> str:
    """Result of a call, "?" if there is no such tool or it has no answer."""
    if call.tool not in tools:
        return NO_ANSWER
    try:
        return tools[call.tool](call.argument)
    except ToolError:
        return NO_ANSWER


# ---------------------------------------------------------------------------------------------
# Writing with tools
# ---------------------------------------------------------------------------------------------


@torch.no_grad()
def write(
    model: GPT,
    tokeniser: Tokeniser,
    prompts: Sequence[str],
    num_tokens: int,
    *,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
    banned: str = "",
    react: Callable[[str], str | None] = lambda text: text,
) -> list[str]:
    """Continue texts of different lengths, character by character.

    Args:
        prompts: begin the texts.
        num_tokens: most characters that the model adds to each.
        temperature: see `generative.sampling.shape_logits`; 0 takes the most probable.
        banned: characters that are never written.
        react: text after each new character -> the text to go on with, None to stop there.
    Raises:
        ValueError: a prompt is as long as the model's window.
    """
    texts, active = list(prompts), list(range(len(prompts)))
    room = model.config.max_len - model.config.from_start
    if any(len(text) > room for text in texts):
        raise ValueError(f"a prompt has more than the {room} characters that the model can see")
    out = torch.tensor([tokeniser.vocabulary.index(piece) for piece in banned], dtype=torch.int64)
    device = next(model.parameters()).device
    for _ in range(num_tokens):
        active = [k for k in active if len(texts[k]) <= room]
        if not active:
            break
        rows, last = _rows(model, tokeniser, [texts[k] for k in active])
        features = model.features(rows)[torch.arange(len(rows)), last]
        logits = model.read_out(features).index_fill(1, out.to(device), -torch.inf)
        drawn = sample_logits(logits, temperature, 0, 1.0, generator).tolist()
        going = []
        for k, token in zip(active, drawn, strict=True):
            if token == END:
                continue
            texts[k] += tokeniser.vocabulary[token]
            after = react(texts[k])
            if after is not None:
                texts[k] = after
                going.append(k)
        active = going
    return texts


def answer(
    model: GPT,
    tokeniser: Tokeniser,
    prompts: Sequence[str],
    tools: Tools | None,
    num_tokens: int = 64,
    *,
    temperature: float = 0.0,
    generator: torch.Generator | None = None,
) -> list[str]:
    """Continue texts; at every arrow the tool runs, and its result is put into the text.

    Args:
        prompts: begin the texts.
        tools: by name; None forbids calls, so that the model has to answer by itself.
        num_tokens: most characters that the model writes into each text.
        temperature, generator: see `write`.
    """

    def react(text: str) -> str:
        if not text.endswith(ARROW) or tools is None:
            return text
        call = find_call(text.removesuffix(ARROW))
        return text if call is None else text + run_call(call, tools) + CLOSE

    return write(
        model, tokeniser, prompts, num_tokens, temperature=temperature, generator=generator,
        banned=OPEN if tools is None else "", react=react,
    )  # fmt: skip


def without_calls(text: str) -> str:
    """A text with all calls taken out."""
    return _WHOLE_CALL.sub("", text)


def own_token_loss(model: GPT, batch: tuple[Tensor, Tensor]) -> TextLosses:
    """Mean loss of the tokens that a model has to write.

    Args:
        model: its texts begin after an END.
        batch: texts (B, T), and which of their tokens are its own, (B, T); see `own_tokens`.
    """
    x, own = batch
    return token_losses(model.logits(after_end(x)), x, own & up_to_end(x))


def own_tokens(texts: Sequence[str], length: int) -> Tensor:
    """Mask of characters that the model has to write, bool (N, length).

    False for results and the brackets behind them, which come from tools: a loss over them would
    train the model to foretell its tools. True behind the end of a text.
    """
    own = torch.ones(len(texts), length, dtype=torch.bool)
    for row, text in zip(own, texts, strict=True):
        for found in _RESULT.finditer(text):
            row[found.start() + len(ARROW) : found.end()] = False
    return own


# ---------------------------------------------------------------------------------------------
# Finding calls that help
# ---------------------------------------------------------------------------------------------


@torch.no_grad()
def call_probability(model: GPT, tokeniser: Tokeniser, texts: Sequence[str]) -> list[list[float]]:
    """Probability that a call begins in front of each character of texts, and behind the last."""
    rows, last = _rows(model, tokeniser, texts)
    p = model.logits(rows).softmax(-1)[:, :, tokeniser.vocabulary.index(OPEN)].tolist()
    start = 0 if model.config.from_start else -1
    return [row[max(0, start) : end + 1] for row, end in zip(p, last.tolist(), strict=True)]


def sample_calls(
    model: GPT,
    tokeniser: Tokeniser,
    texts: Sequence[str],
    tools: Tools,
    config: ToolformerConfig | None = None,
    generator: torch.Generator | None = None,
) -> list[Candidate]:
    """Calls that a model writes into texts, each once, with their results.

    At most `num_places` places of a text, those where a call is most probable, and only where it is
    more probable than `min_probability`; `num_calls` draws for each. Calls with whose result a text
    does not fit into the model's window are left out.
    """
    config = config or ToolformerConfig()
    prompts: list[tuple[str, int]] = []
    for text, p in zip(texts, call_probability(model, tokeniser, texts), strict=True):
        places = sorted(range(len(p)), key=lambda place: -p[place])[: config.num_places]
        for place in places:
            if p[place] > config.min_probability:
                prompts += [(text, place)] * config.num_calls

    def react(text: str) -> str | None:
        return None if text.endswith((ARROW, CLOSE)) else text

    begun = [text[:place] + OPEN for text, place in prompts]
    written = write(model, tokeniser, begun, config.longest, generator=generator, react=react)
    found: dict[Candidate, None] = {}
    for (text, place), whole in zip(prompts, written, strict=True):
        stem = whole[place:].removesuffix(ARROW).removesuffix(CLOSE)
        call = find_call(stem)
        if call is not None and call.written() == stem + CLOSE:
            found.setdefault(Candidate(text, place, call, run_call(call, tools)))
    return [candidate for candidate in found if len(candidate.full) <= model.config.max_len]


@torch.no_grad()
def call_losses(
    model: GPT,
    tokeniser: Tokeniser,
    candidates: Sequence[Candidate],
    falloff: float = 0.2,
    batch_size: int = 256,
) -> CallLosses:
    """Losses behind calls: without them, behind them alone, and behind their results.

    The loss is a mean over the text's own tokens behind the place, weighted by max(0, 1 - falloff
    t) for the token t places on. The paper puts a call in front of the whole text, as its model has
    never seen one inside; here the model has, so the call stands where it would be written.

    Args:
        batch_size: candidates at a time.
    """
    parts = [[], [], []]
    for chunk in _chunks(candidates, batch_size):
        inserted = (
            ["" for _ in chunk],
            [c.call.written() for c in chunk],
            [c.call.written(c.result) for c in chunk],
        )
        for part, calls in zip(parts, inserted, strict=True):
            before = [c.text[: c.place] + call for c, call in zip(chunk, calls, strict=True)]
            behind = [c.text[c.place :] for c in chunk]
            part.append(_loss_behind(model, tokeniser, before, behind, falloff))
    return CallLosses(*(torch.cat(part) if part else torch.empty(0) for part in parts))


def _loss_behind(
    model: GPT,
    tokeniser: Tokeniser,
    before: Sequence[str],
    behind: Sequence[str],
    falloff: float,
) -> Tensor:
    """Weighted mean loss of the texts behind others, (N,)."""
    texts = [a + b for a, b in zip(before, behind, strict=True)]
    x = torch.from_numpy(tokeniser.rows(texts, max(map(len, texts))))
    log_p = model.token_log_probs(x.to(next(model.parameters()).device)).cpu()
    x = x[:, x.shape[1] - log_p.shape[1] :]
    first = torch.tensor([len(text) for text in before]) - int(not model.config.from_start)
    distance = torch.arange(x.shape[1]) - first[:, None]
    weights = (1 - falloff * distance).clamp_min(0) * (distance >= 0) * (x != END)
    return -(weights * log_p).sum(1) / weights.sum(1).clamp_min(1e-9)


def _rows(model: GPT, tokeniser: Tokeniser, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Tokens of texts as the model reads them, (N, T), and the place of each one's last."""
    x = torch.from_numpy(tokeniser.rows(texts, max(map(len, texts))))
    start = model.config.from_start
    rows = with_start(x, start).to(next(model.parameters()).device)
    return rows, torch.tensor([len(text) - (not start) for text in texts], device=rows.device)


def _chunks(items: Sequence[Candidate], size: int) -> Iterator[Sequence[Candidate]]:
    for k in range(0, len(items), size):
        yield items[k : k + size]
