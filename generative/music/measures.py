"""Likelihood of whole pieces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from generative.music.transformer import pad_tokens

if TYPE_CHECKING:
    from generative.music.rnn import MusicRNN
    from generative.music.transformer import MusicTransformer

__all__ = ["FrameNats", "WordNats", "frame_nats", "word_nats"]


class WordNats(NamedTuple):
    """Means over the elements of pieces."""

    note: float
    """Nats of a note."""
    duration: float
    """Nats of a duration."""
    unknown: int
    """Words that the model does not know."""


@torch.no_grad()
def word_nats(
    model: MusicTransformer, pieces: Sequence[np.ndarray], batch_size: int = 64
) -> WordNats:
    """Nats of a note and of a duration in whole pieces.

    A piece longer than the model's context is read in windows that overlap by half; the overlap
    counts once. The first element of a piece (START) is given.

    Args:
        model: on any device.
        pieces: words of each, integers (T, 2).
        batch_size: windows at a time.
    """
    length = model.config.length
    parts, skips = [], []
    for piece in pieces:
        first = 0
        while True:
            parts.append(piece[first : first + length + 1])
            skips.append(length // 2 if first else 0)
            if first + length + 1 >= len(piece):
                break
            first += length - length // 2
    device = next(model.parameters()).device
    order = sorted(range(len(parts)), key=lambda i: len(parts[i]))
    nats, count, unknown = torch.zeros(2, dtype=torch.float64), 0, 0
    for rows in (order[i : i + batch_size] for i in range(0, len(order), batch_size)):
        tokens = pad_tokens([parts[i] for i in rows]).to(device)
        log_p = model.word_log_probs(tokens).double().cpu()
        for row, i in enumerate(rows):
            own = slice(skips[i], len(parts[i]) - 1)
            nats -= log_p[row, own].sum(0)
            count += len(parts[i]) - 1 - skips[i]
            unknown += int((parts[i][1:][own] == 1).sum())
    note, duration = (nats / count).tolist()
    return WordNats(note, duration, unknown)


class FrameNats(NamedTuple):
    """Nats a frame, the unit of published results."""

    all: float
    """Mean over all frames."""
    after_first: float
    """Mean without the first frame of each piece, as some papers count."""


@torch.no_grad()
def frame_nats(model: MusicRNN, pieces: Sequence[Tensor]) -> FrameNats:
    """Nats a frame of whole piano rolls, (1, T, 88) each, on the model's device."""
    nats = [-model.frame_log_probs(piece)[0] for piece in pieces]
    frames = sum(len(n) for n in nats)
    total, first = (float(sum(n[:k].sum() for n in nats)) for k in (None, 1))
    return FrameNats(total / frames, (total - first) / (frames - len(nats)))
