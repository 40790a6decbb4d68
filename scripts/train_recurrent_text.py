"""Train an LSTM, a GRU or a stack of them to write texts, word by word or letter by letter."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from generative.text.config import RecurrentTextConfig, TextLossConfig
from generative.training.cli import start
from generative.training.ranges import Count, Device, Ending, Folder, Seed, Workers
from scripts.common.text import TextSource, train_writer


@dataclass(frozen=True)
class Args(TextSource):
    """Train a recurrent network to write texts.

    On texts made by a formula the result says how far the loss stays above the entropy.

    The preset reviews takes 1 to 2 minutes on one core.
    """

    out: Folder = Path("runs/recurrent_text")
    """Run folder; the trained network is in its `model` folder, samples are in `texts`."""
    prompt: str = "recipe for"
    """First words of the samples."""
    model: RecurrentTextConfig = field(default_factory=RecurrentTextConfig)
    loss: TextLossConfig = field(default_factory=TextLossConfig)
    steps: Count = 15_700
    """Optimiser steps (the book: 25 epochs of about 628)."""
    batch_size: Count = 32
    log_every: Count = 100
    sample_every: Count = 600
    """Steps from one sample to the next, a multiple of log_every; the last step has one too."""
    report: Annotated[Path, Ending((".json",))] | None = None
    """JSON file to which the result is added, under the name of the run's folder."""
    threads: Workers = 0
    """CPU threads; 0 tries one and all for a few steps, and keeps the faster."""
    device: Device = "auto"
    seed: Seed = 1


DEFAULT_PRESET = "reviews"
PRESETS = {
    "book": Args(
        model=RecurrentTextConfig(from_start=False), loss=TextLossConfig(padding=True)
    ),
    # The book's mean is over all 200 places, most of which stand after the end of a recipe.
    "corrected": Args(length=200, loss=TextLossConfig(clip=1.0)),
    "stacked": Args(
        length=200, model=RecurrentTextConfig(num_layers=2), loss=TextLossConfig(clip=1.0)
    ),
    "gru": Args(length=200, model=RecurrentTextConfig(cell="gru"), loss=TextLossConfig(clip=1.0)),
    "markov": Args(
        data="markov",
        length=64,
        prompt="",
        model=RecurrentTextConfig(10, embed_dim=32, hidden_dim=128, length=64),
        loss=TextLossConfig(lr=1e-2, final_lr=1e-4, clip=1.0, ema=0.99),
        steps=1500,
        batch_size=64,
    ),
    "reviews": Args(
        data="reviews",
        length=40,
        prompt="wine review :",
        model=RecurrentTextConfig(200, embed_dim=64, hidden_dim=128, length=40),
        loss=TextLossConfig(lr=5e-3, final_lr=5e-5, clip=1.0),
        steps=800,
        batch_size=64,
    ),
    "smoke": Args(
        data="markov",
        length=16,
        prompt="ab",
        model=RecurrentTextConfig(10, embed_dim=8, hidden_dim=16, length=16),
        steps=20,
        batch_size=8,
        log_every=5,
        sample_every=10,
    ),
}  # fmt: skip


def main(args: Args) -> Path:
    """Returns the folder of the trained network."""
    from generative.text.recurrent import RecurrentText

    return train_writer(
        args, "train_recurrent_text", RecurrentText, "training the recurrent network"
    )


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
