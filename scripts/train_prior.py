"""Train a prior of DALL.E 2: from a caption's embedding to an image's."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from generative.nets.config import gpt2_block
from generative.priors.config import (
    AutoregressivePriorConfig,
    DiffusionPriorConfig,
    PriorLossConfig,
    ScheduleConfig,
)
from generative.training.cli import start
from generative.training.ranges import Checked, Count, Device, Ending, Folder, Seed, Workers
from generative.training.reports import add_to_report
from generative.training.run import Run
from scripts.common.priors import PriorData

if TYPE_CHECKING:
    from torch import Generator

    from generative.priors import AutoregressivePrior
    from scripts.common.priors import Embeddings


@dataclass(frozen=True)
class Args(Checked):
    """Train a prior of DALL.E 2: from a caption's embedding to an image's.

    Of the Gaussian pair the result has errors at noise levels, or nats, beside the least possible.
    The preset pair takes 5 to 15 minutes on one core.
    """

    resumable_fields: ClassVar[frozenset[str]] = frozenset({"steps"})

    out: Folder = Path("runs/prior")
    """Run folder; the trained model is in its `model` folder."""
    data: PriorData = "gaussian-pair"
    """Embeddings: a pair whose law is known, or those of a CLIP."""
    clip: Path = Path("runs/clip")
    """Run of train_clip, whose embeddings to learn."""
    model: DiffusionPriorConfig | AutoregressivePriorConfig = field(
        default_factory=DiffusionPriorConfig
    )
    """The diffusion prior, or the autoregressive one."""
    loss: PriorLossConfig = field(default_factory=PriorLossConfig)
    steps: Count = 3000
    """Optimiser steps."""
    batch_size: Count = 256
    fit_on: Count = 20_000
    """Embeddings that components and buckets are taken from (autoregressive)."""
    samples: Count = 500
    """Samples that are compared with true embeddings."""
    log_every: Count = 100
    report: Annotated[Path, Ending((".json",))] | None = None
    """JSON file to which the result is added, under the name of the run's folder."""
    threads: Workers = 0
    """CPU threads; 0 tries one and all for a few steps, and keeps what is quicker."""
    device: Device = "auto"
    seed: Seed = 1


DEFAULT_PRESET = "pair"
TABLE = ScheduleConfig("cosine-betas", num_betas=100)
PRESETS = {
    # Sizes that are usual for small copies; the publication's priors have 1 billion parameters.
    "paper": Args(
        data="clip",
        model=DiffusionPriorConfig(
            512, 512, 512, 77, 6, gpt2_block(256, 4, dropout=0.0),
        ),
        loss=PriorLossConfig(lr=3e-4),
        steps=30_000,
    ),
    "paper-buckets": Args(
        data="clip",
        model=AutoregressivePriorConfig(
            512, 512, 512, 77, 32, 256, 4, 3, 6, gpt2_block(256, 4, dropout=0.0)
        ),
        loss=PriorLossConfig(lr=3e-4),
        steps=20_000,
    ),
    # All betas: with 64 of them samples of the exact denoiser, too, lie 2.6 % too close.
    "pair": Args(
        model=DiffusionPriorConfig(schedule=TABLE, unit=False, steps=100), steps=20_000
    ),
    "pair-previous": Args(
        model=DiffusionPriorConfig(schedule=TABLE, prediction="previous", unit=False)
    ),
    "pair-buckets": Args(model=AutoregressivePriorConfig(unit=False)),
    # Embeddings of `train_clip scenes`.
    "clip": Args(data="clip", model=DiffusionPriorConfig(64, 64, 64, 24)),
    "clip-buckets": Args(data="clip", model=AutoregressivePriorConfig(64, 64, 64, 24)),
    "smoke": Args(
        model=DiffusionPriorConfig(
            num_layers=1, block=gpt2_block(16, 2, dropout=0.0), schedule=TABLE, unit=False, steps=4
        ),
        steps=10,
        batch_size=16,
        fit_on=200,
        samples=20,
        log_every=5,
    ),
}  # fmt: skip


def main(args: Args) -> Path:
    """Returns the folder of the trained model."""
    import torch

    from generative.priors import AutoregressivePrior, PriorBatch, PriorLearner
    from generative.training.loop import fit
    from scripts.common.priors import (
        PairEmbeddings,
        embedding_scores,
        level_errors,
        load_embeddings,
    )

    with Run.open(args, kind="train_prior") as run:
        if run.done:
            return run.path / "model"
        if args.threads:
            torch.set_num_threads(args.threads)
        source = load_embeddings(args.data, args.clip, args.model.context_dim > 0, run.device)
        torch.manual_seed(run.seed_for("weights"))
        model = args.model.build().to(run.device)
        if isinstance(model, AutoregressivePrior):
            generator = torch.Generator().manual_seed(run.seed_for("fit"))
            model.fit(source.draw(args.fit_on, generator).image.to(run.device))
        learner = PriorLearner(model, args.loss, args.steps)

        def batch(step: int) -> PriorBatch:
            generator = torch.Generator().manual_seed(run.seed_for("batch", step))
            return source.draw(args.batch_size, generator).to(run.device)

        fit(learner, batch, run, args.steps, log_every=args.log_every, what="training the prior")
        model = learner.kept.eval()
        model.save_pretrained(run.path / "model")
        generator = torch.Generator().manual_seed(run.seed_for("test"))
        found = embedding_scores(model, source, generator, args.samples)
        if isinstance(model, AutoregressivePrior):
            found |= nats(model, source, generator)
        elif isinstance(source, PairEmbeddings):
            found |= level_errors(model, source.pair, generator)
        run.finish({**run.metrics.last(), **found})
        if args.report is not None:
            add_to_report(args.report, run)
        return run.path / "model"


def nats(
    model: AutoregressivePrior, source: Embeddings, generator: Generator, n: int = 2000
) -> dict[str, float]:
    """Nats of an autoregressive prior on new pairs, and the least where they are known."""
    import torch

    from scripts.common.priors import PairEmbeddings

    batch = source.draw(n, generator)
    device = next(model.parameters()).device
    image, text, context, mask = batch.to(device)
    codes = model.encode(image)
    with torch.no_grad():
        found = {"test_nll": float(-model.code_log_prob(codes, text, context, mask).mean())}
    if isinstance(source, PairEmbeddings):
        law = model.mean.cpu(), model.directions.cpu(), model.borders.cpu()
        found["floor"] = float(source.pair.code_nats(batch.text, codes.cpu(), *law).mean())
    return found


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
