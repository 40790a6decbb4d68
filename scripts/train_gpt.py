"""Train GPT, a causal Transformer, to write texts."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

from generative.data.text import Tokeniser
from generative.text.config import BlockConfig, GPTConfig, TextLossConfig, gpt2_block
from generative.training.cli import Input, start
from generative.training.ranges import Count, Device, Ending, Folder, Seed, Workers
from scripts.common.text import VOCABULARY_NAME, TextSource, train_writer, vocabulary_of


@dataclass(frozen=True)
class Args(TextSource):
    """Train GPT, a causal Transformer, to write texts.

    On texts made by a formula the result says how far the loss stays above the entropy.

    The preset reviews takes 1 to 2 minutes on one core.
    """

    out: Folder = Path("runs/gpt")
    """Run folder; the trained model is in its `model` folder, samples are in `texts`."""
    prompt: str = "wine review"
    """First words of the samples."""
    start_from: Annotated[Path, Input("train_gpt.py")] | None = None
    """Folder of a GPT of the same vocabulary, to fine-tune; it sets the network. A new one without
    it."""
    model: GPTConfig = field(default_factory=GPTConfig)
    loss: TextLossConfig = field(default_factory=TextLossConfig)
    steps: Count = 20_300
    """Optimiser steps (the book: 5 epochs of about 4,060)."""
    batch_size: Count = 32
    log_every: Count = 100
    sample_every: Count = 1000
    """Steps from one sample to the next, a multiple of log_every; the last step has one too."""
    report: Annotated[Path, Ending((".json",))] | None = None
    """JSON file to which the result is added, under the name of the run's folder."""
    threads: Workers = 0
    """CPU threads; 0 tries one and all for a few steps, and keeps the faster."""
    device: Device = "auto"
    seed: Seed = 1


DEFAULT_PRESET = "reviews"
# As large as nanoGPT's recipe for a CPU, with as many steps of as many characters.
CHARACTERS = Args(
    data="text",
    tokens="characters",
    length=65,
    prompt="The ",
    model=GPTConfig(
        1000, 64, 4, gpt2_block(128, 4, dropout=0.0), tied=True, init="normal", from_start=False
    ),
    loss=TextLossConfig(
        optimizer="muon", lr=4e-3, final_lr=4e-4, warmup=100, beta2=0.99,
        weight_decay=0.1, clip=1.0,
    ),
    steps=2000,
    batch_size=12,
)  # fmt: skip
RULES = Args(
    out=Path("runs/gpt-rules"),
    data="rules",
    length=24,
    prompt="dax red blick green dax",
    model=GPTConfig(18, 24, 2, gpt2_block(64, 4, dropout=0.0), tied=True, init="normal"),
    loss=TextLossConfig(optimizer="muon", lr=3e-3, final_lr=3e-5, warmup=100, beta2=0.99, clip=1.0),
    steps=4000,
    batch_size=64,
)
PRESETS = {
    "book": Args(
        data="wine-reviews",
        length=81,
        model=GPTConfig(from_start=False),
        loss=TextLossConfig(padding=True),
    ),
    # The book's mean is over all 80 places, many of which stand after the end of a review.
    "corrected": Args(data="wine-reviews", length=80, loss=TextLossConfig(clip=1.0)),
    "reviews": Args(
        data="reviews",
        length=40,
        prompt="wine review :",
        model=GPTConfig(200, 40, 2, gpt2_block(64, 4, dropout=0.0), tied=True, init="normal"),
        loss=TextLossConfig(lr=3e-3, final_lr=3e-5, warmup=100, beta2=0.99, clip=1.0),
        steps=2000,
        batch_size=64,
    ),
    "markov": Args(
        data="markov",
        length=64,
        prompt="",
        model=GPTConfig(10, 64, 2, gpt2_block(64, 4, dropout=0.0), tied=True, init="normal"),
        loss=TextLossConfig(lr=3e-3, final_lr=3e-5, warmup=100, beta2=0.99, clip=1.0),
        steps=1500,
        batch_size=32,
    ),
    # The task is in the text: pairs of words by a rule of their own (few-shot learning).
    "rules": RULES,
    # The other way to a task: weights that have learnt one rule and need no examples.
    "one-rule": replace(
        RULES,
        out=Path("runs/gpt-one-rule"),
        data="one-rule",
        start_from=Path("runs/gpt-rules/model"),
        loss=TextLossConfig(lr=1e-3, final_lr=1e-5, beta2=0.99, clip=1.0),
        steps=200,
        log_every=20,
        sample_every=100,
    ),
    # Its history is what a conversation rests on; `worldmodels chat` carries one on.
    "dialogues": Args(
        out=Path("runs/gpt-dialogues"),
        data="dialogues",
        length=72,
        prompt="user my hat is red . assistant",
        model=GPTConfig(30, 72, 2, gpt2_block(64, 4, dropout=0.0), tied=True, init="normal"),
        loss=TextLossConfig(
            optimizer="muon", lr=3e-3, final_lr=3e-5, warmup=100, beta2=0.99, clip=1.0
        ),
        steps=10_000,
        batch_size=32,
    ),
    "characters": CHARACTERS,
    # nanoGPT's own recipe for a CPU (config/train_shakespeare_char.py with the values of its
    # README): AdamW, matrices without biases, the exact GELU.
    "nanogpt": replace(
        CHARACTERS,
        model=replace(
            CHARACTERS.model,
            block=replace(CHARACTERS.model.block, bias=False, activation="gelu"),
        ),
        loss=TextLossConfig(
            lr=1e-3, final_lr=1e-4, warmup=100, beta2=0.99, adam_eps=1e-8,
            weight_decay=0.1, clip=1.0,
        ),
    ),
    "smoke": Args(
        data="markov",
        length=16,
        prompt="ab",
        model=GPTConfig(10, 16, 1, BlockConfig(16, 2, 8, 32)),
        steps=20,
        batch_size=8,
        log_every=5,
        sample_every=10,
    ),
}  # fmt: skip


def main(args: Args) -> Path:
    """Returns the folder of the trained model."""
    from generative.text.gpt import GPT

    def network(config: GPTConfig) -> GPT:
        if args.start_from is None:
            return GPT(config)
        ours, theirs = Tokeniser.load(args.out / VOCABULARY_NAME), vocabulary_of(args.start_from)
        if ours != theirs:
            raise ValueError(
                f"{args.start_from} has {len(theirs)} tokens, {args.data} as many as {len(ours)} "
                "or other ones; fine-tune on texts of the same vocabulary"
            )
        return GPT.from_pretrained(args.start_from).train()

    return train_writer(args, "train_gpt", network, "training GPT")


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
