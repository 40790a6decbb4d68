"""Models of music, tiny."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from generative.musegan import MuseGANConfig, MuseGANLearner, MuseGANLossConfig
from generative.music.rnn import MusicLearner, MusicLossConfig, MusicRNN, MusicRNNConfig
from generative.music.transformer import MusicTransformer, MusicTransformerConfig
from generative.nets.transformer import BlockConfig
from tests.generative.families.common import Family

LOSS = MusicLossConfig(lr=1e-2, final_lr=1e-3, clip=1.0, ema=0.9)
NOTES, DURATIONS, ELEMENTS = 9, 5, 8
STREAMS = (
    " ".join(f"n{i}" for i in range(NOTES - 2)),
    " ".join(f"d{i}" for i in range(DURATIONS - 2)),
)


def melodies(n: int) -> Tensor:
    """Elements of two words; all begin with the unknown word, as a model without START does."""
    rng = np.random.default_rng(0)
    x = np.stack([rng.integers(2, size, (n, ELEMENTS)) for size in (NOTES, DURATIONS)], 2)
    x[:, 0] = 1
    return torch.from_numpy(x)


def transformer(script: str | None = None, **settings) -> Family:
    """Eight melodies of seven drawn elements: log 8 / 7 = 0.3 nats each, 3.0 by guessing."""
    block = BlockConfig(16, 2, 8, 32, dropout=0.0)
    good = torch.full((2, 4, 2), 2)
    return Family(
        make=lambda: MusicTransformer(
            MusicTransformerConfig(
                STREAMS, embed_dim=8, block=block, lstm_dim=24, length=ELEMENTS, **settings
            )
        ),
        examples=melodies,
        learner=lambda model, steps: MusicLearner(model, LOSS, steps),
        logged="loss",
        below=0.7,
        steps=150,
        wrong=(
            (good[:, :, 0], r"\(2, 4\).*\(B, T, 2\)"),
            (good[:, :, :1], r"\(2, 4, 1\).*\(B, T, 2\)"),
            (good.float(), r"float32.*int64"),
            (good + DURATIONS, rf"{2 + DURATIONS}.*stream 1.*0 to {DURATIONS - 1}"),
        ),
        sample_range=(0, NOTES - 1),
        script=script,
        # A loss is a mean over elements, a log probability that of all but the first.
        loss=lambda model, x: model.loss(x).loss * (x.shape[1] - 1),
    )


def rolls(n: int) -> Tensor:
    return (torch.from_numpy(np.random.default_rng(0).random((n, 6, 12))) < 0.2).float()


def recurrent(cell: str, num_layers: int, script: str | None = None) -> Family:
    """Six frames of twelve keys: log 8 / 6 = 0.35 nats a frame, 6.0 if keys sound by chance."""
    return Family(
        make=lambda: MusicRNN(MusicRNNConfig(12, cell, 32, num_layers, length=6)),
        examples=rolls,
        learner=lambda model, steps: MusicLearner(model, LOSS, steps),
        logged="loss",
        below=2.5,
        steps=200,
        wrong=(
            (torch.zeros(2, 6, 11), r"\(2, 6, 11\).*\(B, T, 12\)"),
            (torch.zeros(2, 6, 12, dtype=torch.int64), r"int64.*float"),
            (torch.full((2, 6, 12), 0.5), r"0\.5.*0 and 1"),
        ),
        sample_range=(0.0, 1.0),
        script=script,
        loss=lambda model, x: model.loss(x).loss * x.shape[1],
    )


def bars(n: int, num_bars: int = 2) -> Tensor:
    """One-hot rolls of two tracks that hold one of two pitches for a bar."""
    rng = np.random.default_rng(0)
    pitch = np.repeat(rng.integers(2, size=(n, 2, num_bars, 1)), 16, axis=3)
    return F.one_hot(torch.from_numpy(pitch), 12).float()


def musegan(output: str, below: float, given: str = "nothing", script: str | None = None) -> Family:
    config = MuseGANConfig(
        num_tracks=2, num_pitches=12, lowest=48, latent_dim=4, temporal_dim=8, dense_dim=32,
        channels=(16, 16, 16, 16), critic_channels=(8,) * 8, critic_dim=16, init="glorot",
        onsets=output != "tanh", chroma=output == "held",
        output=output, given=given,
    )  # fmt: skip
    loss = MuseGANLossConfig(
        alpha="uniform", norm_eps=1e-12, penalty_norm="piece", critic_steps=2, lr=4e-3,
        critic_lr=4e-3, beta1=0.0, lr_end=0.1, ema=0.9,
    )  # fmt: skip
    return Family(
        make=config.build,
        examples=bars,
        learner=lambda model, steps: MuseGANLearner(model, loss, steps),
        logged="energy",
        below=below,
        steps=60,
        wrong=(
            (bars(2, 3), r"\(2, 2, 3, 16, 12\).*\(B, 2, 2, 16, 12\)"),
            (bars(2).long(), r"int64.*float"),
            (3 * bars(2), r"0 to 3.*\[0, 1\]"),
        ),
        sample_range=(0.0, 1.0),
        script=script,
        loss=lambda model, x: model.heights(x).mean(),
    )


FAMILIES = {
    "MusicTransformer": transformer(),
    "MusicTransformer, relative and chained": transformer(
        "train_music_transformer", relative=4, chained=True, clock=True, num_layers=2
    ),
    "MusicTransformer, LSTM": transformer(network="lstm"),
    "MusicRNN, LSTM": recurrent("lstm", 1, "train_music_rnn"),
    "MusicRNN, GRU": recurrent("gru", 2),
    "MuseGAN": musegan("tanh", 0.5),
    "MuseGAN, one-hot": musegan("one-hot", 0.17),
    "MuseGAN, held notes": musegan("held", 0.17, script="train_musegan"),
}
