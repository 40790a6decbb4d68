"""Shared parts of models of texts: losses over tokens, drawing token by token, the learner.

A text is a row of int64 tokens. Token 0 ends it and fills the row after its end, token 1 is any
word outside the vocabulary. A model of the next token has a probability for every text:

    log p(x) = sum_t log p(x_t | 0, x_1 .. x_(t-1)),   t up to the first 0

where the 0 in front is the end of the text before. If the first token is given instead, the sum
begins with the second.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.sampling import sample_logits
from generative.text.config import TextLossConfig
from generative.training.checks import ENCODE_FIRST, check_tensor, checked
from generative.training.learner import ModelLearner, muon_or_adamw
from generative.training.ranges import CountOrZero, NonNegative, Quantile

__all__ = [
    "END",
    "UNKNOWN",
    "TextLearner",
    "TextLossConfig",
    "TextLosses",
    "after_end",
    "generate",
    "next_token_losses",
    "text_log_prob",
    "token_log_probs",
    "token_losses",
    "up_to_end",
    "with_start",
]

END = 0
"""Token that ends a text and fills the rest of its row."""
UNKNOWN = 1
"""Token of everything outside the vocabulary."""

M = TypeVar("M", bound=nn.Module)
TokenStep = Callable[[Tensor, Any], tuple[Tensor, Any]]
"""(new tokens (B, T), state or None) -> logits after the last of them (B, V), state."""


class TextLosses(NamedTuple):
    """Means over the tokens that count."""

    loss: Tensor
    """Cross-entropy, nats."""
    accuracy: Tensor
    """Share of tokens that had the highest probability."""


def token_losses(logits: Tensor, targets: Tensor, counted: Tensor) -> TextLosses:
    """Cross-entropy of logits (B, T, V) and tokens (B, T) where `counted` (B, T) is True."""
    logits, targets = logits[counted], targets[counted]
    right = (logits.detach().argmax(-1) == targets).float().mean()
    return TextLosses(F.cross_entropy(logits, targets), right)


def up_to_end(tokens: Tensor) -> Tensor:
    """Mask of tokens, bool (B, T), True up to and including the first END."""
    ends = tokens == END
    return ends.cumsum(1) - ends.long() == 0


def after_end(tokens: Tensor) -> Tensor:
    """Tokens (B, T) shifted by one: each row begins with END and loses its last token."""
    return F.pad(_tensor(tokens)[:, :-1], (1, 0), value=END)


def with_start(x: Tensor, from_start: bool = True) -> Tensor:
    """Texts (B, T) with an END in front, (B, T + 1), if `from_start`."""
    return F.pad(_tensor(x), (1, 0), value=END) if from_start else _tensor(x)


def _tensor(x: Tensor) -> Tensor:
    check_tensor(x, "tokens", f"needed is int64 (B, T): {ENCODE_FIRST}")
    return x


def next_token_losses(
    logits: Callable[[Tensor], Tensor], x: Tensor, from_start: bool = True, padding: bool = False
) -> TextLosses:
    """Losses of a model of the next token on texts (B, T).

    Args:
        logits: tokens (B, T) -> logits of the token after each, (B, T, V).
        from_start: the first token comes after an END; otherwise it is given and not counted.
        padding: also count the positions after the end of a text.
    """
    inputs, targets = (after_end(x), x) if from_start else (x[:, :-1], x[:, 1:])
    counted = torch.ones_like(targets, dtype=torch.bool) if padding else up_to_end(targets)
    return token_losses(logits(inputs), targets, counted)


def text_log_prob(logits: Callable[[Tensor], Tensor], x: Tensor, from_start: bool = True) -> Tensor:
    """log p of each text (B, T) up to its end, in nats, (B,); see `next_token_losses`."""
    each = token_log_probs(logits, x, from_start)
    return (each * up_to_end(x[:, x.shape[1] - each.shape[1] :])).sum(1)


def token_log_probs(
    logits: Callable[[Tensor], Tensor], x: Tensor, from_start: bool = True
) -> Tensor:
    """log p of each token of texts (B, T) after those before it, nats, (B, T); or (B, T - 1)."""
    inputs, targets = (after_end(x), x) if from_start else (x[:, :-1], x[:, 1:])
    return -F.cross_entropy(logits(inputs).transpose(1, 2), targets, reduction="none")


@checked
@torch.no_grad()
def generate(
    step: TokenStep,
    prompt: Tensor,
    num_tokens: CountOrZero,
    *,
    temperature: NonNegative = 1.0,
    top_k: CountOrZero = 0,
    top_p: Quantile = 1.0,
    generator: torch.Generator | None = None,
    ends: bool = True,
) -> Tensor:
    """Continue each row of prompt (B, T); int64 (B, T + num_tokens).

    Args:
        step: see `TokenStep`; it gets the prompt, then one token at a time.
        temperature, top_k, top_p: see `generative.sampling.shape_logits`.
        ends: END ends a text and fills the rest of its row.
    """
    tokens = torch.empty(
        len(prompt), prompt.shape[1] + num_tokens, dtype=torch.int64, device=prompt.device
    ).fill_(END)
    tokens[:, : prompt.shape[1]] = prompt
    ended = torch.zeros(len(prompt), dtype=torch.bool, device=prompt.device)
    new, state = prompt, None
    for place in range(prompt.shape[1], tokens.shape[1]):
        logits, state = step(new, state)
        drawn = sample_logits(logits, temperature, top_k, top_p, generator)
        if ends:
            drawn = drawn.masked_fill(ended, END)
            ended |= drawn == END
        tokens[:, place] = drawn
        if bool(ended.all()):
            break
        new = drawn[:, None]
    return tokens


class TextLearner(ModelLearner[M]):
    """Adam or Muon on a loss of texts; `kept` holds the weights to save.

    Args:
        model: any model with a `loss`.
        config: see `TextLossConfig`.
        steps: updates over which the learning rate falls.
        loss: batch -> losses, whose field `loss` is minimised; by default that of a model of the
            next token, with the config's `padding`.
    """

    def __init__(
        self,
        model: M,
        config: TextLossConfig,
        steps: int,
        loss: Callable[[Any], Any] | None = None,
    ):
        super().__init__(model, muon_or_adamw(model, config, steps))
        self.config = config
        plain = partial(cast("Any", model).loss, padding=config.padding)
        self._loss = loss or plain

    def update(self, batch: Any) -> dict[str, Tensor]:
        """One step on a batch of texts (B, T), or on any input of `loss`."""
        return self.descend(self._loss(batch))
