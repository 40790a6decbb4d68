"""Losses of test texts, a token: of the next one, and of hidden ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from generative.text.corruption import hide_tokens
from generative.text.tokens import up_to_end

if TYPE_CHECKING:
    from generative.text.bert import BERT

__all__ = ["HiddenTokenLoss", "NextTokenLoss", "hidden_token_loss", "next_token_loss"]


class NextTokenLoss(NamedTuple):
    """Nats a token."""

    loss: float
    """Mean over the tokens of the texts up to their ends."""
    with_padding: float
    """Mean over all places, those after the ends included."""


@torch.no_grad()
def next_token_loss(model: Any, texts: Tensor, batch_size: int = 100) -> NextTokenLoss:
    """Loss of the next token of test texts.

    Args:
        model: a GPT or a RecurrentText. If it does not predict the first token
            (`config.from_start`), that token is given and does not count.
        texts: int64 (N, T), filled with 0 after their ends.
        batch_size: texts at a time.
    """
    from_start, device = model.config.from_start, next(model.parameters()).device
    total = everywhere = tokens = places = 0.0
    for x in texts.split(batch_size):
        log_p = model.token_log_probs(x.to(device)).double().cpu()
        counted = up_to_end(x if from_start else x[:, 1:])
        total, tokens = total - float(log_p[counted].sum()), tokens + int(counted.sum())
        everywhere, places = everywhere - float(log_p.sum()), places + log_p.numel()
    return NextTokenLoss(total / tokens, everywhere / places)


class HiddenTokenLoss(NamedTuple):
    """Nats a hidden token."""

    loss: float
    floor: float | None
    """Loss of the exact posterior on the same tokens; None if it is not known."""


@torch.no_grad()
def hidden_token_loss(
    model: BERT,
    texts: Tensor,
    posterior: Callable[[Tensor, Tensor], Tensor] | None = None,
    batch_size: int = 200,
) -> HiddenTokenLoss:
    """Loss of hidden tokens of test texts; every token that is asked for is hidden.

    Args:
        model: its `config.mask_rate` is the share that is hidden; the same ones in every call.
        texts: int64 (N, T).
        posterior: texts (B, T) and seen ones, bool (B, T) -> probability of each token at each
            place, (B, T, V), such as `HiddenMarkov.posterior`.
        batch_size: texts at a time.
    """
    device, generator = next(model.parameters()).device, torch.Generator().manual_seed(0)
    total = exact = count = 0.0
    for x in texts.split(batch_size):
        hidden = hide_tokens(x, model.config.mask_rate, generator)
        seen = x.masked_fill(hidden, model.encoder.mask_token)
        log_p = model.fill(seen.to(device)).cpu().gather(2, x[:, :, None])[:, :, 0]
        total, count = total - float(log_p[hidden].sum()), count + int(hidden.sum())
        if posterior is not None:
            p = posterior(x, ~hidden).gather(2, x[:, :, None])[:, :, 0]
            exact -= float(p[hidden].log().sum())
    return HiddenTokenLoss(total / count, exact / count if posterior is not None else None)
