"""Train a prior of DALL.E 2: from a caption's embedding to an image's."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, TypeAlias

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
    from scripts.common.priors import CLIPEmbeddings, Embeddings

    PriorConfig: TypeAlias = DiffusionPriorConfig | AutoregressivePriorConfig


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
    """The diffusion prior, or the autoregressive one. Widths of a preset for a CLIP become those of
    the CLIP's run; others have to fit."""
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
    # The diffusion prior of Ramesh et al. 2022 (appendix C), stated as 1 billion weights; ours has
    # 1.2. The widths are those of its CLIP, whose texts have 1,024 numbers a token. How the rate
    # falls is not stated.
    "paper": Args(
        out=Path("runs/paper_prior"),
        data="clip",
        model=DiffusionPriorConfig(
            1024, 1024, 1024, 256, 24, gpt2_block(2048, 32, dropout=0.0),
        ),
        loss=PriorLossConfig(lr=1.1e-4, adam_eps=1e-6, weight_decay=0.06, ema=0.9999),
        steps=600_000,
        batch_size=4096,
    ),
    # Its autoregressive prior, stated as 1 billion weights: a decoder of 24 layers of 1,664, 319
    # components in 1,024 buckets. Its encoder of captions is 2,048 wide, ours as wide as the
    # decoder. Here each component has its own vectors of buckets, for input and for output, 1.1
    # billion weights: with them it is 2.9.
    "paper-buckets": Args(
        out=Path("runs/paper_prior_buckets"),
        data="clip",
        model=AutoregressivePriorConfig(
            1024, 1024, 1024, 256, 319, 1024, 4, 24, 24, gpt2_block(1664, 26, dropout=0.0)
        ),
        loss=PriorLossConfig(lr=1.6e-4, adam_eps=1e-10, weight_decay=0.04, ema=0.999),
        steps=1_000_000,
        batch_size=4096,
    ),
    # Sizes that are usual for small copies.
    "small": Args(
        data="clip",
        model=DiffusionPriorConfig(
            512, 512, 512, 77, 6, gpt2_block(256, 4, dropout=0.0),
        ),
        loss=PriorLossConfig(lr=3e-4),
        steps=30_000,
    ),
    "small-buckets": Args(
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
    # Embeddings of `train_clip scenes`; another CLIP's widths take the place of these.
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
        CLIPEmbeddings,
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
        config = args.model
        if isinstance(source, CLIPEmbeddings):
            config = sized(config, source, args.clip)
        torch.manual_seed(run.seed_for("weights"))
        model = config.build().to(run.device)
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


def sized(config: PriorConfig, source: CLIPEmbeddings, clip: Path) -> PriorConfig:
    """A prior's settings with the widths of a CLIP, if they are those of a preset or fit already.

    Args:
        clip: run of the CLIP, for errors.
    Raises:
        ValueError: other widths were asked for, or the CLIP's captions are longer than the prior
            reads; says which options fit.
    """
    width, tokens, length = source.widths
    found = width, width, tokens if config.context_dim else 0
    given = config.embed_dim, config.text_dim, config.context_dim
    known = (p.model for p in PRESETS.values() if p.data == "clip")
    usual = {(p.embed_dim, p.text_dim, c) for p in known for c in (0, p.context_dim)}
    if given != found and given not in usual:
        raise ValueError(
            f"{clip} has embeddings of {width} numbers and encoded tokens of {tokens}, and the "
            f"prior takes images of {given[0]}, captions of {given[1]} and tokens of {given[2]}; "
            f"give --model.embed-dim {width} --model.text-dim {width} --model.context-dim "
            f"{found[2]}"
        )
    if isinstance(config, AutoregressivePriorConfig) and config.components > width:
        raise ValueError(
            f"{clip} has embeddings of {width} numbers, and the prior writes {config.components} "
            f"components; give --model.components {width} or less"
        )
    return replace(
        config, embed_dim=found[0], text_dim=found[1], context_dim=found[2],
        max_len=max(config.max_len, length),
    )  # fmt: skip


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
