"""Train GPT, a causal Transformer, to write texts."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from generative.configs.text import BlockConfig, GPTConfig, TextLossConfig, gpt2_block
from generative.training.cli import start
from generative.training.run import Run
from scripts.common.reports import add_to_report
from scripts.common.text import TextSource, load_texts


@dataclass(frozen=True)
class Args(TextSource):
    """Train GPT, a causal Transformer, to write texts.

    On texts made by a formula the result says how far the loss stays above the entropy.
    """

    out: Path = Path("runs/gpt")
    """Run folder; the trained model is in its `model` folder, samples are in `texts`."""
    prompt: str = "wine review"
    """What samples begin with."""
    model: GPTConfig = field(default_factory=GPTConfig)
    loss: TextLossConfig = field(default_factory=TextLossConfig)
    steps: int = 20_300
    """Optimiser steps (the book: 5 epochs of about 4,060)."""
    batch_size: int = 32
    log_every: int = 100
    sample_every: int = 1000
    """Steps from one sample to the next, a multiple of log_every; the last step has one too."""
    report: Path | None = None
    """JSON file to which the result is added, under the name of the run's folder."""
    threads: int = 0
    """CPU threads; 0 leaves the choice to torch."""
    device: str = "auto"
    seed: int = 1


DEFAULT_PRESET = "book"
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
    # As large as nanoGPT's recipe for a CPU, with as many steps of as many characters.
    "characters": Args(
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
    from dataclasses import replace

    import torch

    from generative.gpt import GPT
    from generative.tokens import TextLearner
    from generative.training.loop import fit
    from scripts.common.text import VOCABULARY_NAME, next_token_score, samples

    with Run.open(args, kind="train_gpt") as run:
        if run.done:
            return run.path / "model"
        if args.threads:
            torch.set_num_threads(args.threads)
        texts = load_texts(args, args.model.vocab_size)
        texts.tokeniser.save(run.path / VOCABULARY_NAME)
        torch.manual_seed(run.seed_for("weights"))
        config = replace(args.model, vocab_size=len(texts.tokeniser))
        learner = TextLearner(GPT(config).to(run.device), args.loss, args.steps)

        def show(step: int) -> None:
            if step % args.sample_every == 0 or step == args.steps:
                run.metrics.log_text(step, "samples", samples(learner.kept, texts, args.prompt))

        fit(
            learner,
            lambda step: texts.batch(run.seed_for("batch", step), args.batch_size).to(run.device),
            run, args.steps,
            log_every=args.log_every, what="training GPT", on_log=show,
        )  # fmt: skip
        model = learner.kept
        model.save_pretrained(run.path / "model")
        run.finish({**run.metrics.last(), **next_token_score(model, texts, args.loss.padding)})
        if args.report is not None:
            add_to_report(args.report, run)
        return run.path / "model"


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
