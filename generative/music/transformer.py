"""A decoder Transformer of music: notes and durations in two streams of words.

    model = MusicTransformer.from_pretrained("runs/music_transformer/model")
    tokens = model.sample(4, length=100, temperature=0.9)      # (4, 100, 2)
    model.scores(tokens)[0].write_midi("new.mid")
    model.log_prob(tokens)                                     # (4,), nats
    maps = []
    notes, durations = model.next_log_probs(tokens, maps)      # and attention weights

Every element of a piece is a note and a duration; both are embedded, put side by side, and a causal
Transformer gives a distribution of the next of each (Foster 2023, chapter 11). With `relative`,
attention also uses the distance of an element (Shaw et al. 2018), computed by the skewing of the
Music Transformer (Huang et al. 2018). Padding (0) behind the end of a piece is not counted.

Single streams work as well: START, then the grid, the events or the words of a piece, then END.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.music.config import MusicLossConfig, MusicTransformerConfig
from generative.music.learner import MusicLearner
from generative.music.score import Score
from generative.music.tokens import (
    END,
    START,
    Streams,
    Vocabulary,
    score_of_stream,
    score_of_streams,
)
from generative.nets.embeddings import sine_positions
from generative.nets.relative import RelativePositions, skew
from generative.nets.transformer import TransformerBlock, init_weights, make_norm
from generative.sampling import sample_logits
from generative.training.checks import (
    at_least_float32,
    check_some,
    check_tensor,
    check_tokens,
    checked,
)
from generative.training.pretrained import Pretrained
from generative.training.ranges import Count, CountOrZero, NonNegative, Quantile

__all__ = [
    "MusicLearner",
    "MusicLoss",
    "MusicLossConfig",
    "MusicTransformer",
    "MusicTransformerConfig",
    "RelativePositions",
    "encode_pieces",
    "pad_tokens",
    "skew",
    "vocabularies",
    "windows",
]


PERIODS = (0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 16.0)
"""Periods of the clock's sines in quarter notes: beats and bars of the usual metres."""


class MusicLoss(NamedTuple):
    """Nats per element (`loss`), per word of each stream (`nats`, (S,)) and per piece."""

    loss: Tensor
    nats: Tensor
    piece_nats: Tensor


# ---------------------------------------------------------------------------------------------
# Positions
# ---------------------------------------------------------------------------------------------


class Clock(nn.Module):
    """Durations (B, T) -> embedding of the time at the end of each element, (B, T, dim)."""

    quarters: Tensor

    def __init__(self, durations: Vocabulary, dim: int):
        super().__init__()
        known = [float(Fraction(word)) if word[:1].isdigit() else 0.0 for word in durations.words]
        self.register_buffer("quarters", torch.tensor([0.0, 0.0, *known]), persistent=False)
        self.linear = nn.Linear(2 * len(PERIODS), dim)

    def forward(self, tokens: Tensor) -> Tensor:
        quarters = self.quarters[tokens]
        time = quarters.to(at_least_float32(quarters)).cumsum(1)
        angle = time[:, :, None] * (2 * torch.pi / time.new_tensor(PERIODS))
        return self.linear(torch.cat([angle.sin(), angle.cos()], 2).to(quarters.dtype))


# ---------------------------------------------------------------------------------------------
# The model
# ---------------------------------------------------------------------------------------------


class MusicTransformer(Pretrained, nn.Module):
    """Predicts the next note and duration from the past; 1,479,379 parameters at the book's sizes.

    Raises:
        ValueError: the config has no words yet.
    """

    config_class = MusicTransformerConfig

    def __init__(self, config: MusicTransformerConfig):
        super().__init__()
        if not config.streams:
            raise ValueError("streams is empty; give the words of each stream, see `vocabularies`")
        self.config = config
        self.vocabularies = [Vocabulary(words) for words in config.streams]
        sizes = [len(vocabulary) for vocabulary in self.vocabularies]
        self.embeddings = nn.ModuleList(nn.Embedding(size, config.embed_dim) for size in sizes)
        width = config.embed_dim * len(sizes)
        if config.clock:
            self.clock = Clock(self.vocabularies[1], width)
        block, layers = config.block, range(config.num_layers)
        if config.network == "attention":
            self.blocks = nn.ModuleList(TransformerBlock(block, causal=True) for _ in layers)
            if config.relative:
                self.relative = nn.ModuleList(
                    RelativePositions(block.num_heads, block.head_dim, config.relative)
                    for _ in layers
                )
            self.norm = make_norm(block) if block.norm == "pre" else nn.Identity()
        else:
            dropout = block.dropout if config.num_layers > 1 else 0.0
            self.lstm = nn.LSTM(
                width, config.lstm_dim, config.num_layers, batch_first=True, dropout=dropout
            )
            self.dropout = nn.Dropout(block.dropout)
            width = config.lstm_dim
        self.heads = nn.ModuleList(
            _head(width, s * config.embed_dim if config.chained else 0, size)
            for s, size in enumerate(sizes)
        )
        if config.network == "attention":
            glorot = block.norm == "post"
            init_weights(self, "glorot" if glorot else "normal", config.num_layers)

    def hidden(self, tokens: Tensor, maps: list[Tensor] | None = None) -> Tensor:
        """Features after each element, (B, T, S) -> (B, T, width).

        Args:
            maps: gets the attention weights (B, H, T, T) of each block appended.
        """
        config = self.config
        x = torch.cat([e(tokens[:, :, s]) for s, e in enumerate(self.embeddings)], 2)
        if config.clock:
            x = x + self.clock(tokens[:, :, 1])
        if config.network == "lstm":
            return self.dropout(self.lstm(self.dropout(x))[0])
        # In the book every word has its own position; so has each part of an element here.
        kind = tokens.device, at_least_float32(x)
        sines = sine_positions(tokens.shape[1], config.embed_dim, *kind)
        x = x + sines.to(x).repeat(1, len(self.embeddings))
        for i, block in enumerate(self.blocks):
            x = block(x, relative=self.relative[i] if config.relative else None, maps=maps)
        return self.norm(x)

    def stream_logits(self, h: Tensor, stream: int, following: Tensor | None = None) -> Tensor:
        """Logits of the next word of one stream, (B, T, width) -> (B, T, V).

        Args:
            following: the next elements (B, T, S); a chained model reads their earlier streams.
        """
        if self.config.chained and stream:
            assert following is not None
            known = [self.embeddings[s](following[:, :, s]) for s in range(stream)]
            h = torch.cat([h, *known], 2)
        return self.heads[stream](h)

    def word_log_probs(self, tokens: Tensor) -> Tensor:
        """Log probability of each word given the elements before, (B, T, S) -> (B, T - 1, S).

        The first element is given. Padding has 0.
        """
        tokens = self._check(tokens)
        return self._word_log_probs(tokens) * (tokens[:, 1:] != 0)

    def _word_log_probs(self, tokens: Tensor) -> Tensor:
        h, following = self.hidden(tokens[:, :-1]), tokens[:, 1:]
        found = []
        for s in range(len(self.heads)):
            log_p = self.stream_logits(h, s, following).log_softmax(2)
            found.append(log_p.gather(2, following[:, :, s, None])[:, :, 0])
        return torch.stack(found, 2)

    def log_prob(self, tokens: Tensor) -> Tensor:
        """Log probability of pieces (B, T, S) given their first element, (B,) nats.

        Raises:
            ValueError: not int64 (B, T, S) in the vocabularies.
        """
        return self.word_log_probs(tokens).sum((1, 2))

    def loss(self, tokens: Tensor, count_padding: bool = False) -> MusicLoss:
        """Mean nats of elements, words and pieces (B, T, S), without their first element.

        Args:
            count_padding: count padding as a word in `loss`, as in the book.
        """
        tokens = check_some(self._check(tokens), self)
        nats = -self._word_log_probs(tokens)
        there = tokens[:, 1:] != 0
        masked = nats * there
        means = masked.sum((0, 1)) / there.sum((0, 1)).clamp_min(1)
        loss = nats.mean((0, 1)).sum() if count_padding else means.sum()
        return MusicLoss(loss, means.detach(), masked.detach().sum((1, 2)).mean())

    @torch.no_grad()
    def next_log_probs(self, tokens: Tensor, maps: list[Tensor] | None = None) -> list[Tensor]:
        """Log probabilities of the word after each element, for each stream (B, T, V).

        A chained stream reads the true next words of the earlier streams; after the last element
        it reads padding.

        Args:
            maps: gets the attention weights (B, H, T, T) of each block appended.
        """
        h = self.hidden(self._check(tokens), maps)
        following = F.pad(tokens[:, 1:], (0, 0, 0, 1))
        streams = range(len(self.heads))
        return [self.stream_logits(h, s, following).log_softmax(2) for s in streams]

    @checked
    @torch.no_grad()
    def sample(
        self,
        n: CountOrZero,
        generator: torch.Generator | None = None,
        length: Count | None = None,
        temperature: NonNegative | Sequence[float] = 1.0,
        top_k: CountOrZero = 0,
        top_p: Quantile = 1.0,
        prompt: Tensor | None = None,
    ) -> Tensor:
        """n pieces (n, length, S), int64; behind the word END there is padding.

        Args:
            length: elements, the first of which is START; `config.length` by default.
            temperature: one for all streams, or one for each.
            top_k, top_p: see `generative.sampling.sample_logits`.
            prompt: elements (T, S) that all pieces begin with, in the place of START.
        """
        total = self.config.length if length is None else length
        device = next(self.parameters()).device
        temperatures = [*temperature] if isinstance(temperature, Sequence) else [temperature]
        temperatures *= len(self.heads) if len(temperatures) == 1 else 1
        if len(temperatures) != len(self.heads):
            raise ValueError(
                f"got {len(temperatures)} temperatures; this model has {len(self.heads)} streams: "
                "give one for all, or one for each"
            )
        tokens = self.start(device)[None] if prompt is None else self._check(prompt[None])[0]
        tokens = tokens.to(device).expand(n, -1, -1)[:, :total]
        end = self.vocabularies[0].number(END)
        over = torch.zeros(n, dtype=torch.bool, device=device)
        for _ in range(tokens.shape[1], total):
            h = self.hidden(tokens[:, -self.config.length :])[:, -1:]
            drawn = torch.zeros(n, 1, len(self.heads), dtype=torch.int64, device=device)
            for s, heat in enumerate(temperatures):
                logits = self.stream_logits(h, s, drawn)[:, 0]
                logits[:, :2] = -torch.inf  # never draws padding or the unknown word
                drawn[:, 0, s] = sample_logits(logits, heat, top_k, top_p, generator)
            drawn[over] = 0
            if end > 1:
                over |= drawn[:, 0, 0] == end
            tokens = torch.cat([tokens, drawn], 1)
        return tokens

    def start(self, device: torch.device | str | None = None) -> Tensor:
        """The element that pieces begin with, int64 (1, S)."""
        words = (START, "0.0")
        numbers = [v.number(word) for v, word in zip(self.vocabularies, words, strict=False)]
        return torch.tensor([numbers], device=device)

    def scores(self, tokens: Tensor) -> list[Score]:
        """Pieces of notes and durations (B, T, 2), or of a single stream (B, T, 1), as scores."""
        pieces = []
        for piece in self._check(tokens).cpu().numpy():
            piece = piece[(piece >= 2).all(1)]
            words = [v.decode(piece[:, s]) for s, v in enumerate(self.vocabularies)]
            single = len(words) == 1
            pieces.append(score_of_stream(*words) if single else score_of_streams(Streams(*words)))
        return pieces

    def _check(self, tokens: Tensor) -> Tensor:
        streams = len(self.vocabularies)
        wanted = f"this model needs int64 (B, T, {streams})"
        check_tensor(tokens, "elements", wanted)
        if tokens.dim() != 3 or tokens.shape[2] != streams:
            raise ValueError(f"got elements of shape {tuple(tokens.shape)}; {wanted}")
        for s, vocabulary in enumerate(self.vocabularies):
            check_tokens(tokens[:, :, s], len(vocabulary), None, self, f"stream {s} of ")
        return tokens


def _head(width: int, known: int, size: int) -> nn.Module:
    """Output layer, features -> logits; two layers if features include words of other streams."""
    if not known:
        return nn.Linear(width, size)
    return nn.Sequential(nn.Linear(width + known, width), nn.GELU(), nn.Linear(width, size))


# ---------------------------------------------------------------------------------------------
# Pieces as tokens
# ---------------------------------------------------------------------------------------------


def vocabularies(pieces: Sequence[Streams]) -> tuple[str, ...]:
    """Words of each stream of the pieces, in the form of `MusicTransformerConfig.streams`."""
    columns = range(len(pieces[0]))
    return tuple(" ".join(Vocabulary.of(piece[s] for piece in pieces).words) for s in columns)


def encode_pieces(pieces: Sequence[Streams], streams: Sequence[str]) -> list[np.ndarray]:
    """Pieces as numbers, int64 (T, S) each."""
    known = [Vocabulary(words) for words in streams]
    return [
        np.stack([v.encode(words) for v, words in zip(known, piece, strict=True)], 1)
        for piece in pieces
    ]


def pad_tokens(pieces: Sequence[np.ndarray]) -> Tensor:
    """Pieces (T, S) of different lengths as one int64 (B, T, S), padded with 0."""
    longest = max(len(piece) for piece in pieces)
    x = torch.zeros(len(pieces), longest, pieces[0].shape[1], dtype=torch.int64)
    for row, piece in zip(x, pieces, strict=True):
        row[: len(piece)] = torch.from_numpy(piece)
    return x


def windows(piece: np.ndarray, length: int) -> list[np.ndarray]:
    """All windows of length + 1 elements of a piece (T, S), one element apart, as in the book.

    A shorter piece is one window.
    """
    last = max(0, len(piece) - length - 1)
    return [piece[first : first + length + 1] for first in range(last + 1)]
