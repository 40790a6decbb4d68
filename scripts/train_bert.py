"""Train BERT to fill in hidden words."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from generative.text.config import BERTConfig, BlockConfig, TextLossConfig, bert_block
from generative.training.cli import start
from generative.training.ranges import Count, Device, Ending, Folder, Seed, Workers
from generative.training.reports import add_to_report
from generative.training.run import Run
from scripts.common.text import Texts, TextSource, load_texts

if TYPE_CHECKING:
    from generative.text.bert import BERT


@dataclass(frozen=True)
class Args(TextSource):
    """Train BERT to fill in hidden words.

    On texts made by a formula the result says how far the loss stays above that of the exact
    posterior. `fine_tune_bert.py` goes on with a few labels.

    The preset reviews takes 2 to 5 minutes on one core.
    """

    out: Folder = Path("runs/bert")
    """Run folder; the trained model is in its `model` folder, filled gaps are in `texts`."""
    model: BERTConfig = field(default_factory=BERTConfig)
    loss: TextLossConfig = field(default_factory=TextLossConfig)
    steps: Count = 10_000
    """Optimiser steps."""
    batch_size: Count = 64
    log_every: Count = 100
    sample_every: Count = 1000
    """Steps from one sample to the next, a multiple of log_every; the last step has one too."""
    report: Annotated[Path, Ending((".json",))] | None = None
    """JSON file to which the result is added, under the name of the run's folder."""
    threads: Workers = 0
    """CPU threads; 0 tries one and all for a few steps, and keeps the faster."""
    device: Device = "auto"
    seed: Seed = 1


MUON = TextLossConfig(
    optimizer="muon", lr=3e-3, final_lr=2e-5, warmup=100, beta2=0.99, clip=1.0, ema=0.99
)
DEFAULT_PRESET = "reviews"
PRESETS = {
    # The book describes BERT without training one.
    "wine-reviews": Args(
        data="wine-reviews",
        length=127,
        loss=TextLossConfig(lr=1e-4, final_lr=0.0, warmup=1000, weight_decay=0.01, clip=1.0),
    ),
    "reviews": Args(
        data="reviews",
        length=40,
        model=BERTConfig(200, 41, 2, bert_block(64, 4, dropout=0.0)),
        loss=MUON,
        steps=1000,
    ),
    "hidden-markov": Args(
        data="hidden-markov",
        length=32,
        model=BERTConfig(10, 33, 2, bert_block(64, 4, dropout=0.0), hide_all=True),
        loss=MUON,
        steps=2000,
    ),
    "smoke": Args(
        data="hidden-markov",
        length=16,
        model=BERTConfig(10, 17, 1, BlockConfig(16, 2, 8, 32), hide_all=True),
        steps=20,
        batch_size=8,
        log_every=5,
        sample_every=10,
    ),
}


def main(args: Args) -> Path:
    """Returns the folder of the trained model."""
    from dataclasses import replace

    import torch

    from generative.text.bert import BERT
    from generative.text.tokens import TextLearner
    from generative.training.loop import fit
    from scripts.common.text import VOCABULARY_NAME

    with Run.open(args, kind="train_bert") as run:
        if run.done:
            return run.path / "model"
        if args.threads:
            torch.set_num_threads(args.threads)
        texts = load_texts(args, args.model.vocab_size)
        texts.tokeniser.save(run.path / VOCABULARY_NAME)
        torch.manual_seed(run.seed_for("weights"))
        model = BERT(replace(args.model, vocab_size=len(texts.tokeniser))).to(run.device)
        learner = TextLearner(model, args.loss, args.steps, model.loss)

        def show(step: int) -> None:
            if step % args.sample_every == 0 or step == args.steps:
                run.metrics.log_text(step, "filled", filled(learner.kept, texts))

        fit(
            learner,
            lambda step: texts.batch(run.seed_for("batch", step), args.batch_size).to(run.device),
            run, args.steps,
            log_every=args.log_every, what="training BERT", on_log=show,
        )  # fmt: skip
        kept = learner.kept
        kept.save_pretrained(run.path / "model")
        run.finish({**run.metrics.last(), **score(kept, texts)})
        if args.report is not None:
            add_to_report(args.report, run)
        return run.path / "model"


def filled(model: BERT, texts: Texts, num_texts: int = 5) -> str:
    """Test texts with gaps, and the most probable words of each."""
    import torch

    from generative.text.corruption import hide_tokens

    device = next(model.parameters()).device
    x = texts.test[:num_texts]
    hidden = hide_tokens(x, model.config.mask_rate, torch.Generator().manual_seed(0))
    log_p = model.fill(x.masked_fill(hidden, model.encoder.mask_token).to(device)).cpu()
    lines = []
    for row, gaps, guesses in zip(x, hidden, log_p, strict=True):
        words = texts.tokeniser.pieces(row)
        shown = ["____" if gap else word for word, gap in zip(words, gaps, strict=False)]
        lines.append(" ".join(shown))
        for place in gaps.nonzero()[:, 0].tolist():
            best = guesses[place].exp().topk(3)
            names = [texts.tokeniser.vocabulary[token] for token in best.indices]
            odds = [f"{name} {p:.2f}" for name, p in zip(names, best.values, strict=True)]
            lines.append(f"    {words[place]}: {', '.join(odds)}")
    return "\n".join(lines)


def score(model: Any, texts: Texts) -> dict[str, float]:
    """Loss of hidden words of the test texts, nats, and of the exact posterior of the same.

    `excess` is the gap as a share of the floor.
    """
    from generative.known.texts import HiddenMarkov
    from generative.text.measures import hidden_token_loss

    known = isinstance(texts.source, HiddenMarkov)
    found = hidden_token_loss(model, texts.test, texts.source.posterior if known else None)
    result = {"test_loss": found.loss}
    if found.floor is not None:
        result |= {"floor": found.floor, "excess": found.loss / found.floor - 1}
    return result


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
