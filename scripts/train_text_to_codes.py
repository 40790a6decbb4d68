"""Train DALL.E, Parti or MUSE: the codes of a picture, given its caption."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from generative.known.config import CaptionMix
from generative.nets.config import TextEncoderConfig, clip_block, gpt2_block
from generative.text_to_codes.config import (
    DALLEConfig,
    MUSEConfig,
    PartiConfig,
    TextToCodesLossConfig,
)
from generative.training.cli import start
from generative.training.ranges import Checked, Count, Device, Ending, Folder, Seed, Workers
from generative.training.reports import add_to_report
from generative.training.run import Run

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Args(Checked):
    """Train DALL.E, Parti or MUSE: the codes of a picture, given its caption.

    Pictures are scenes of the micro-world. The result has nats beside the least possible, and the
    share of pictures that fit their captions.
    """

    resumable_fields: ClassVar[frozenset[str]] = frozenset({"steps"})

    out: Folder = Path("runs/text_to_codes")
    """Run folder; the trained model is in its `model` folder, its words in vocabulary.json."""
    codes: Path | None = None
    """Run of train_vqvae on scenes, whose codes to write; None takes the objects in the cells."""
    mix: CaptionMix = field(default_factory=CaptionMix)
    """Weights of the kinds of captions."""
    model: DALLEConfig | PartiConfig | MUSEConfig = field(default_factory=PartiConfig)
    """One of the three."""
    loss: TextToCodesLossConfig = field(default_factory=TextToCodesLossConfig)
    steps: Count = 6000
    """Optimiser steps."""
    batch_size: Count = 64
    samples: Count = 1000
    """Pictures that are drawn for the result."""
    log_every: Count = 100
    report: Annotated[Path, Ending((".json",))] | None = None
    """JSON file to which the result is added, under the name of the run's folder."""
    threads: Workers = 0
    """CPU threads; 0 tries one and all for a few steps, and keeps what is quicker."""
    device: Device = "auto"
    seed: Seed = 1


DEFAULT_PRESET = "parti"
TINY = TextEncoderConfig(64, 24, 1, clip_block(16, 2), causal=False)
MUON = TextToCodesLossConfig(optimizer="muon", lr=4e-3)


def _parti(dim: int, heads: int, encoder: int, decoder: int) -> PartiConfig:
    """Parti by its published sizes: captions of 128 of 16,000 pieces, 1,024 of 8,192 codes."""
    text = replace(clip_block(dim, heads, dropout=0.1), activation="gelu")
    return PartiConfig(
        TextEncoderConfig(16_000, 128, encoder, text, causal=False), (32, 32), 8192, decoder,
        gpt2_block(dim, heads, dropout=0.1),
    )  # fmt: skip


PAPER = Args(
    out=Path("runs/paper_parti"),
    codes=Path("runs/vqvae"),
    model=_parti(4096, 64, 16, 64),
    loss=TextToCodesLossConfig(
        lr=4.5e-5, final_lr=1.1e-6, warmup=10_000, beta2=0.96, weight_decay=0.045, drop_text=0.1
    ),
    steps=450_000,
    batch_size=8192,
)
"""Parti of 20 billion weights. Its rate is Adafactor's and falls by an exponential."""
PRESETS = {
    # DALL.E of 12 billion weights (Ramesh et al. 2021): 64 layers of 62 heads, 256 of 16,384 pieces
    # of text, 1,024 of 8,192 codes. Its attention is sparse, and its rate was halved by hand, down
    # to a 32nd. This command's scenes have no such codes: the presets named after publications are
    # for codes of another run, and no machine here can train them.
    "paper": Args(
        out=Path("runs/paper_dalle"),
        codes=Path("runs/vqvae"),
        model=DALLEConfig(16_384, 256, (32, 32), 8192, 64, gpt2_block(3968, 62, dropout=0.0)),
        loss=TextToCodesLossConfig(
            lr=4.5e-4, final_lr=1.4e-5, warmup=5000, beta2=0.96, weight_decay=0.045, clip=4.0,
            ema=0.999,
        ),
        steps=430_000,
        batch_size=1024,
    ),
    # Parti (Yu et al. 2022, table 1) in its four sizes.
    "paper-parti": PAPER,
    "paper-parti-3b": replace(PAPER, model=_parti(2048, 32, 12, 36)),
    "paper-parti-750m": replace(PAPER, model=_parti(1024, 16, 12, 36)),
    "paper-parti-350m": replace(PAPER, model=_parti(1024, 16, 12, 12)),
    # The base model of MUSE (Chang et al. 2023, appendix A.1), 3 billion weights: 48 layers of
    # 2,048 over 256 of 8,192 codes, filled in in 24 steps. Its heads are not stated. A frozen
    # T5-XXL reads its captions, here 24 layers that learn, chosen for this. Layers of its model of
    # 632 million are not stated.
    "paper-muse": Args(
        out=Path("runs/paper_muse"),
        codes=Path("runs/vqvae"),
        model=MUSEConfig(
            TextEncoderConfig(32_128, 128, 24, clip_block(2048, 32), causal=False), (16, 16), 8192,
            48, gpt2_block(2048, 32, dropout=0.0), steps=24,
        ),
        loss=TextToCodesLossConfig(
            lr=1e-4, final_lr=1e-6, warmup=5000, beta2=0.96, weight_decay=0.045, drop_text=0.1
        ),
        steps=1_500_000,
        batch_size=512,
    ),
    # With the published eighth it learns pictures less exactly (docs/families/text_to_codes.md).
    "dalle": Args(
        model=DALLEConfig(num_layers=3, text_weight=0.01),
        loss=replace(MUON, lr=1e-3),
        steps=14_000,
    ),
    "parti": Args(loss=MUON),
    # Codes that are filled in one by one in random places are drawn by their probability. Which
    # places are left for an object beside others takes a block more than to write them in order.
    # With DALL.E's rate its reading of captions can stand still until the rate has fallen.
    "muse": Args(
        model=MUSEConfig(noise=1e6, num_layers=3),
        loss=replace(MUON, lr=1e-3, drop_text=0.1),
        steps=8000,
    ),
    # DALL.E in a small form that is usual, on a grid of a VQ-VAE's codes.
    "small": Args(
        codes=Path("runs/vqvae"),
        model=DALLEConfig(64, 24, (3, 3), 32, 8, gpt2_block(256, 4, dropout=0.0)),
        loss=TextToCodesLossConfig(lr=3e-4),
        steps=20_000,
    ),
    "smoke": Args(
        model=PartiConfig(TINY, num_layers=1, block=gpt2_block(16, 2, dropout=0.0)),
        steps=10,
        batch_size=8,
        samples=20,
        log_every=5,
    ),
}  # fmt: skip


def main(args: Args) -> Path:
    """Returns the folder of the trained model."""
    import torch

    from generative.known.captioned_scenes import CaptionedScenes
    from generative.text_to_codes import TextToCodesLearner
    from generative.training.loop import fit
    from scripts.common.captions import VOCABULARY, ScenePairs, fit_tokeniser
    from scripts.common.scene_codes import load_codes, writer_scores

    with Run.open(args, kind="train_text_to_codes") as run:
        if run.done:
            return run.path / "model"
        if args.threads:
            torch.set_num_threads(args.threads)
        config = args.model
        codes = load_codes(args.codes, run.device, bool(args.mix.sign))
        if (tuple(codes.grid), codes.num_codes) != (tuple(config.grid), config.num_codes):
            raise ValueError(
                f"the model writes {config.grid[0]}x{config.grid[1]} codes of {config.num_codes}, "
                f"and there are {codes.grid[0]}x{codes.grid[1]} of {codes.num_codes}; give "
                f"--model.num-codes {codes.num_codes} --model.grid {codes.grid[0]} {codes.grid[1]}"
            )
        together = isinstance(config, DALLEConfig)
        text, option = (config, "--model") if together else (config.text, "--model.text")
        world = CaptionedScenes(args.mix)
        sizes = text.max_len, text.vocab_size
        tokeniser = fit_tokeniser(ScenePairs(world), *sizes, option=f"{option}.max-len")
        tokeniser.save(run.path / VOCABULARY)
        torch.manual_seed(run.seed_for("weights"))
        model = config.build().to(run.device)
        learner = TextToCodesLearner(model, args.loss, args.steps)

        @torch.no_grad()
        def batch(step: int) -> tuple[Tensor, Tensor]:
            generator = torch.Generator().manual_seed(run.seed_for("batch", step))
            images, texts = world.batch(args.batch_size, generator)
            return tokeniser.encode(texts).to(run.device), codes.encode(images.to(run.device))

        fit(learner, batch, run, args.steps, log_every=args.log_every, what="training the model")
        model = learner.kept.eval()
        model.save_pretrained(run.path / "model")
        generator = torch.Generator().manual_seed(run.seed_for("test"))
        found = writer_scores(model, codes, tokeniser, world, generator, args.samples)
        run.finish({**run.metrics.last(), **found})
        if args.report is not None:
            add_to_report(args.report, run)
        return run.path / "model"


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
