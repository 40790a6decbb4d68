"""Fine-tune BERT on a few labelled reviews, to name the grape that a review leaves out."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from generative.text.config import BERTConfig, TextLossConfig, bert_block
from generative.training.cli import Input, start
from generative.training.ranges import Checked, Count, Device, Ending, Folder, Seed, Workers
from generative.training.reports import add_to_report
from generative.training.run import Run
from scripts.common.text import TextSource, load_texts

if TYPE_CHECKING:
    from torch import Tensor

    from generative.known.reviews import Reviews
    from generative.text.bert import BERTClassifier


@dataclass(frozen=True)
class Args(Checked):
    """Fine-tune BERT on a few labelled reviews, to name the grape that a review leaves out.

    The reviews are those of a small grammar, so the best guess is known.
    """

    resumable_fields: ClassVar[frozenset[str]] = frozenset({"steps"})

    out: Folder = Path("runs/bert-classifier")
    """Run folder; the trained classifier is in its `model` folder."""
    start_from: Annotated[Path, Input("train_bert.py")] | None = Path("runs/bert/model")
    """Folder of the trained BERT; None begins with random weights instead."""
    model: BERTConfig = field(
        default_factory=lambda: BERTConfig(200, 41, 2, bert_block(64, 4, dropout=0.0))
    )
    """Sizes where there is no BERT to start from."""
    labelled: Count = 100
    """Reviews whose grape is told."""
    loss: TextLossConfig = field(
        default_factory=lambda: TextLossConfig(lr=1e-3, final_lr=1e-5, warmup=20, clip=1.0)
    )
    steps: Count = 200
    """Optimiser steps."""
    batch_size: Count = 32
    log_every: Count = 20
    report: Annotated[Path, Ending((".json",))] | None = None
    """JSON file to which the result is added, under the name of the run's folder."""
    threads: Workers = 0
    """CPU threads; 0 tries one and all for a few steps, and keeps the faster."""
    device: Device = "auto"
    seed: Seed = 1


DEFAULT_PRESET = "reviews"
PRESETS = {
    "reviews": Args(),
    "from-scratch": Args(out=Path("runs/bert-classifier-from-scratch"), start_from=None),
    "smoke": Args(
        start_from=None,
        model=BERTConfig(200, 41, 1, bert_block(16, 2, dropout=0.0)),
        labelled=20,
        steps=10,
        log_every=5,
    ),
}


def main(args: Args) -> Path:
    """Returns the folder of the trained classifier."""
    from dataclasses import replace

    import torch

    from generative.known.reviews import GRAPES
    from generative.text.bert import BERT, BERTClassifier
    from generative.text.tokens import TextLearner
    from generative.training.loop import fit
    from scripts.common.text import VOCABULARY_NAME

    with Run.open(args, kind="fine_tune_bert") as run:
        if run.done:
            return run.path / "model"
        if args.threads:
            torch.set_num_threads(args.threads)
        texts = load_texts(TextSource("reviews", length=40), args.model.vocab_size)
        texts.tokeniser.save(run.path / VOCABULARY_NAME)
        rows, labels = nameless(texts.source, texts.tokeniser)
        torch.manual_seed(run.seed_for("weights"))
        if args.start_from is None:
            bert = BERT(replace(args.model, vocab_size=len(texts.tokeniser)))
        else:
            bert = BERT.from_pretrained(args.start_from)
        model = BERTClassifier.of(bert, len(GRAPES)).to(run.device)
        learner = TextLearner(model, args.loss, args.steps, lambda batch: model.loss(*batch))
        generator = torch.Generator().manual_seed(run.seed_for("labelled"))
        known = texts.source.sample(args.labelled, generator)

        def batch(step: int) -> tuple[Tensor, Tensor]:
            chosen = known[run.rng("batch", step).integers(len(known), size=args.batch_size)]
            return rows[chosen].to(run.device), labels[chosen].to(run.device)

        fit(
            learner, batch, run, args.steps, log_every=args.log_every, what="fine-tuning BERT",
        )  # fmt: skip
        kept = learner.kept
        kept.save_pretrained(run.path / "model")
        run.finish({**run.metrics.last(), **score(kept, texts.source, rows, labels)})
        if args.report is not None:
            add_to_report(args.report, run)
        return run.path / "model"


def nameless(reviews: Reviews, tokeniser) -> tuple[Tensor, Tensor]:
    """All reviews with their grape unknown, int64 (N, 40), and the number of the grape, (N,)."""
    import torch

    from generative.known.reviews import GRAPES
    from generative.text.tokens import UNKNOWN

    rows = torch.from_numpy(tokeniser.rows(reviews.texts, 40))
    grapes = torch.tensor([tokeniser.encode(grape)[0] for grape in GRAPES])
    names = list(GRAPES)
    labels = torch.tensor([names.index(review.grape) for review in reviews.reviews])
    return rows.masked_fill(torch.isin(rows, grapes), UNKNOWN), labels


def score(
    model: BERTClassifier, reviews: Reviews, rows: Tensor, labels: Tensor, num: int = 2000
) -> dict[str, float]:
    """Share of reviews, by their probabilities, whose grape is right; and the most there can be."""
    import torch

    chosen = reviews.sample(num, torch.Generator().manual_seed(0))
    device = next(model.parameters()).device
    with torch.no_grad():
        logits = torch.cat([model.logits(x.to(device)) for x in rows[chosen].split(200)]).cpu()
    right = (logits.argmax(1) == labels[chosen]).float().mean()
    # Of reviews that read the same, the best guess is the grape that most of them have.
    _, same = torch.unique(rows, dim=0, return_inverse=True)
    shares = torch.zeros(int(same.max()) + 1, int(labels.max()) + 1, dtype=torch.float64)
    shares.index_put_((same, labels), reviews.p, accumulate=True)
    best = shares.argmax(1)[same[chosen]]
    return {
        "test_accuracy": float(right),
        "best_accuracy": float((best == labels[chosen]).float().mean()),
    }


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
