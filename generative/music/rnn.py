"""Recurrent networks on piano rolls: the probability of each key in the next frame.

    model = MusicRNN.from_pretrained("runs/music_rnn/model")
    rolls = model.sample(4, length=64)            # (4, 64, 88), 0 or 1
    model.log_prob(rolls)                         # (4,), nats, exact
    model.frame_log_probs(rolls)                  # (4, 64), nats of each frame

An LSTM or GRU reads the previous frames and gives 88 logits; given these frames the keys are
independent (Boulanger-Lewandowski, Bengio & Vincent 2012, the baseline of their RNN-RBM). Pieces of
a batch have different lengths: frames of -1 are behind the end and are not counted.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.music.config import MusicLossConfig, MusicRNNConfig
from generative.music.learner import MusicLearner
from generative.training.checks import check_dtype, check_some, check_tensor, checked, placed
from generative.training.pretrained import Pretrained
from generative.training.ranges import Count, CountOrZero

__all__ = [
    "PADDING",
    "MusicLearner",
    "MusicLossConfig",
    "MusicRNN",
    "MusicRNNConfig",
    "MusicRNNLoss",
    "pad_rolls",
    "shift_keys",
]

PADDING = -1.0
"""Value of all keys of a frame behind the end of a piece."""


class MusicRNNLoss(NamedTuple):
    """Nats per frame (`loss`) and per piece (`piece_nats`); means over the batch."""

    loss: Tensor
    piece_nats: Tensor


class MusicRNN(Pretrained, nn.Module):
    """An LSTM or GRU of one or more layers with a logit for every key."""

    config_class = MusicRNNConfig

    def __init__(self, config: MusicRNNConfig | None = None):
        super().__init__()
        self.config = config = config or MusicRNNConfig()
        kind = nn.LSTM if config.cell == "lstm" else nn.GRU
        between = config.dropout if config.num_layers > 1 else 0.0
        self.rnn = kind(
            config.num_keys, config.hidden_dim, config.num_layers, batch_first=True, dropout=between
        )
        self.head = nn.Linear(config.hidden_dim, config.num_keys)
        self.input_dropout, self.dropout = (
            nn.Dropout(share) for share in (config.input_dropout, config.dropout)
        )

    def logits(self, x: Tensor) -> Tensor:
        """Logit of each key at each time, given the frames before: (B, T, K) -> (B, T, K).

        Before the first frame the network reads silence.
        """
        check_dtype(x, "piano rolls", self)
        before = F.pad(x[:, :-1].clamp_min(0), (0, 0, 1, 0))
        h, _ = self.rnn(self.input_dropout(before))
        return self.head(self.dropout(h))

    def frame_log_probs(self, x: Tensor) -> Tensor:
        """Log probability of each frame given those before it, (B, T) nats; 0 behind the end.

        Raises:
            ValueError: x is not float (B, T, K) of 0, 1, and -1 behind the end.
        """
        x = check_rolls(x, self.config.num_keys, self)
        there = x[:, :, 0] != PADDING
        costs = F.binary_cross_entropy_with_logits(self.logits(x), x.clamp_min(0), reduction="none")
        return -costs.sum(2) * there

    def log_prob(self, x: Tensor) -> Tensor:
        """Exact log probability of each piece given its length, (B,) nats."""
        return self.frame_log_probs(x).sum(1)

    def loss(self, x: Tensor, count_padding: bool = False) -> MusicRNNLoss:
        """Mean nats of the frames up to the ends of pieces, and of the pieces.

        Args:
            count_padding: frames behind the end count in `loss` as silent ones.
        """
        check_some(x, self)
        if count_padding:
            x = check_rolls(x, self.config.num_keys, self).clamp_min(0)
        nats = -self.frame_log_probs(x)
        num_frames = (x[:, :, 0] != PADDING).sum()
        return MusicRNNLoss(nats.sum() / num_frames, nats.sum(1).mean())

    @checked
    @torch.no_grad()
    def sample(
        self,
        n: CountOrZero,
        generator: torch.Generator | None = None,
        length: Count | None = None,
        beginning: Tensor | None = None,
    ) -> Tensor:
        """n pieces (n, length, K) of 0 and 1.

        Args:
            length: frames; `config.length` by default.
            beginning: frames (n, T, K) that the pieces begin with, T below length.
        """
        frame = torch.zeros(n, 1, self.config.num_keys, **placed(self))
        if beginning is not None:
            check_rolls(beginning, self.config.num_keys, self)
        frames, state = [], None
        for t in range(length or self.config.length):
            h, state = self.rnn(frame, state)
            p = self.head(h).sigmoid()
            frame = torch.bernoulli(p, generator=generator)
            if beginning is not None and t < beginning.shape[1]:
                frame = beginning[:, t : t + 1].to(frame.device)
            frames.append(frame)
        return torch.cat(frames, 1)


def check_rolls(x: Tensor, num_keys: int, model: nn.Module) -> Tensor:
    """Return x if it is (B, T, K) of 0 and 1 with frames of -1 behind the end, of the type in which
    a model computes.

    Raises:
        ValueError: x is something else; says what it is.
    """
    wanted = f"needed is float (B, T, {num_keys}) of 0 and 1, and -1 behind a piece's end"
    check_tensor(x, "piano rolls", wanted)
    if x.dim() != 3 or x.shape[1] < 1 or x.shape[2] != num_keys:
        raise ValueError(f"got piano rolls of shape {tuple(x.shape)}; {wanted}")
    check_dtype(x, "piano rolls", model)
    if not bool(((x == 0) | (x == 1) | (x == PADDING)).all()):
        raise ValueError(f"got values from {float(x.min()):.4g} to {float(x.max()):.4g}; {wanted}")
    return x


def pad_rolls(rolls: list[np.ndarray]) -> Tensor:
    """Piano rolls (T, K) of different lengths as one float32 (B, T, K), padded with -1."""
    longest = max(len(roll) for roll in rolls)
    shape = (len(rolls), longest, rolls[0].shape[1])
    x = torch.full(shape, PADDING, dtype=torch.float32)
    for row, roll in zip(x, rolls, strict=True):
        row[: len(roll)] = torch.from_numpy(np.ascontiguousarray(roll)).float()
    return x


def shift_keys(roll: np.ndarray, semitones: int) -> np.ndarray:
    """Move a piano roll (T, K) up by `semitones` keys, or as far as no note is lost."""
    used = np.flatnonzero(roll.any(0))
    if not len(used):
        return roll
    semitones = int(np.clip(semitones, -used[0], roll.shape[1] - 1 - used[-1]))
    return np.roll(roll, semitones, axis=1)
