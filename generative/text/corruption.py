"""Corruption of texts for a model to fill in: single tokens (BERT), spans (T5).

Tokens 0 stand after the end of a text and are never chosen.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from generative.text.tokens import END, UNKNOWN

__all__ = ["corrupt_spans", "exchange_tokens", "hide_tokens", "span_lengths"]


def hide_tokens(x: Tensor, rate: float, generator: torch.Generator | None = None) -> Tensor:
    """Choose tokens of texts (B, T) to predict, bool (B, T): a share of `rate`, at least one a row.

    Raises:
        ValueError: a text is empty.
    """
    there = x != END
    if not bool(there.any(1).all()):
        raise ValueError("got an empty text; give every row a token other than 0")
    u = torch.rand(x.shape, generator=generator, device=x.device, dtype=torch.float32)
    u = u.masked_fill(~there, 2.0)
    least = u.argmin(1, keepdim=True)
    return (u < rate).scatter(1, least, True)


def exchange_tokens(
    x: Tensor,
    chosen: Tensor,
    mask_token: int,
    vocab_size: int,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Replace chosen tokens by the mask (80 %), any token (10 %) or none (Devlin et al. 2019, 3.1).

    A model that predicts only at masks in training would learn nothing about other tokens, and
    fine-tuning has no masks.
    """
    u = torch.rand(x.shape, generator=generator, device=x.device, dtype=torch.float32)
    other = torch.randint(UNKNOWN + 1, vocab_size, x.shape, generator=generator, device=x.device)
    masked = torch.where(chosen & (u < 0.8), mask_token, x)
    return torch.where(chosen & (u >= 0.9), other, masked)


def span_lengths(length: int, rate: float = 0.15, mean: float = 3.0) -> tuple[int, int]:
    """(number of cut tokens, number of spans) for a text of `length` tokens, as T5 counts them."""
    taken = min(max(round(length * rate), 1), length - 1)
    return taken, min(max(round(taken / mean), 1), taken, length - taken)


def corrupt_spans(
    x: Tensor,
    first_sentinel: int,
    rate: float = 0.15,
    mean: float = 3.0,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Cut spans out of texts (B, T) (Raffel et al. 2020, 3.1.4).

    Kept and cut spans alternate, beginning with a kept one; their lengths are drawn uniformly from
    all ways to divide the tokens.

    Returns:
        Sources (B, S): the text with a sentinel in place of each span. Targets (B, R): each
        sentinel and its span, and a 0 at the end. The rest of a row is 0.
    Raises:
        ValueError: a text has fewer than two tokens.
    """
    sources, targets = [], []
    for row in x.cpu():
        text = row[row != END]
        if len(text) < 2:
            raise ValueError(f"got a text of {len(text)} tokens; to cut pieces out needs 2 or more")
        taken, pieces = span_lengths(len(text), rate, mean)
        cut = _divide(taken, pieces, generator)
        kept = _divide(len(text) - taken, pieces, generator)
        source, target, place = [], [], 0
        for k, (before, inside) in enumerate(zip(kept, cut, strict=True)):
            sentinel = torch.tensor([first_sentinel + k])
            source += [text[place : place + before], sentinel]
            target += [sentinel, text[place + before : place + before + inside]]
            place += before + inside
        sources.append(torch.cat(source))
        targets.append(torch.cat([*target, torch.tensor([END])]))
    return pad_sequence(sources, True, END).to(x.device), pad_sequence(targets, True, END).to(
        x.device
    )


def _divide(total: int, parts: int, generator: torch.Generator | None) -> list[int]:
    """Draw `parts` positive integers that sum to total, uniformly."""
    bars = torch.randperm(total - 1, generator=generator)[: parts - 1] + 1
    ends = [0, *sorted(bars.tolist()), total]
    return [after - before for before, after in itertools.pairwise(ends)]
