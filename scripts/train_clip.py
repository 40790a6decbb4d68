"""Train CLIP: images and captions as vectors of one space."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

from generative.clip.config import (
    CLIPConfig,
    CLIPLossConfig,
    TextEncoderConfig,
    clip_block,
    clip_vit,
)
from generative.known.config import CaptionMix
from generative.training.cli import start
from generative.training.ranges import (
    Checked,
    Count,
    Device,
    Ending,
    Folder,
    Range,
    Seed,
    Workers,
)
from generative.training.reports import add_to_report
from generative.training.run import Run
from scripts.common.captions import CaptionData


@dataclass(frozen=True)
class Args(Checked):
    """Train CLIP: images and captions as vectors of one space.

    The result has the loss beside the least that these pairs allow and both ways of search; of
    scenes also what is bound: which object stands where.
    """

    resumable_fields: ClassVar[frozenset[str]] = frozenset({"steps"})

    out: Folder = Path("runs/clip")
    """Run folder; the trained model is in its `model` folder, its words in vocabulary.json."""
    data: CaptionData = "scenes"
    """Images and captions: scenes of the micro-world, emoji, clothes with their names, or a folder
    with captions.jsonl."""
    data_dir: Path = Path("data")
    """Folder of the files, or of a subfolder of the data's name; scenes and emoji need none."""
    max_images: Count | None = None
    """Use at most so many of the images."""
    mix: CaptionMix = field(default_factory=CaptionMix)
    """Weights of the kinds of captions of scenes."""
    model: CLIPConfig = field(default_factory=CLIPConfig)
    loss: CLIPLossConfig = field(default_factory=CLIPLossConfig)
    steps: Count = 1000
    """Optimiser steps."""
    batch_size: Count = 128
    """Pairs of a step, from 2: each image's other captions are those of the other pairs."""
    partners: Annotated[int, Range(0, 3)] = 0
    """Pairs beside each pair whose captions have the same words and mean another scene: colours,
    shapes or both are exchanged. Without them hardly anything is learnt of what belongs to what."""
    negatives: Annotated[int, Range(0, 3)] = 0
    """Such captions beside each image, without images of their own."""
    log_every: Count = 50
    report: Annotated[Path, Ending((".json",))] | None = None
    """JSON file to which the result is added, under the name of the run's folder."""
    threads: Workers = 0
    """CPU threads; 0 tries one and all for a few steps, and keeps what is quicker."""
    device: Device = "auto"
    seed: Seed = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_size < 2:
            raise ValueError(f"batch_size is {self.batch_size}; a contrast needs 2 pairs or more")


DEFAULT_PRESET = "scenes"
PRESETS = {
    # B/32 with the publication's rate and decay; its batch of 32,768 needs many machines.
    "paper": Args(
        data="folder",
        model=CLIPConfig(
            clip_vit((3, 224, 224), 32, 12, 768, 12),
            TextEncoderConfig(49_408, 77, 12, clip_block(512, 8)),
            512,
        ),
        loss=CLIPLossConfig(lr=5e-4, final_lr=0.0, weight_decay=0.2, warmup=2000, adam_eps=1e-6),
        steps=390_000,
        batch_size=1024,
    ),
    "scenes": Args(
        model=CLIPConfig(
            clip_vit((3, 24, 24), 8, 2, 64, 2),
            TextEncoderConfig(64, 24, 2, clip_block(64, 2)),
            64,
        ),
        loss=CLIPLossConfig(optimizer="muon", lr=4e-3, final_lr=2e-5, warmup=100, clip=1.0),
        steps=4000,
        partners=3,
    ),
    # The same with SigLIP's loss and the factor that it begins with (Zhai et al. 2023).
    "scenes-siglip": Args(
        out=Path("runs/siglip"),
        model=CLIPConfig(
            clip_vit((3, 24, 24), 8, 2, 64, 2),
            TextEncoderConfig(64, 24, 2, clip_block(64, 2)),
            64,
            objective="sigmoid",
            scale=10.0,
        ),
        loss=CLIPLossConfig(optimizer="muon", lr=4e-3, final_lr=2e-5, warmup=100, clip=1.0),
        steps=4000,
        partners=3,
    ),
    "emoji": Args(
        data="emoji",
        model=CLIPConfig(
            clip_vit((3, 32, 32), 8, 4, 96, 3),
            TextEncoderConfig(4096, 24, 2, clip_block(96, 3)),
            96,
        ),
        loss=CLIPLossConfig(lr=1e-3, final_lr=1e-5, warmup=100, clip=1.0, weight_decay=0.2),
        steps=4000,
    ),
    "fashion": Args(
        data="fashion-mnist",
        model=CLIPConfig(
            clip_vit((1, 28, 28), 7, 2, 64, 2),
            TextEncoderConfig(64, 12, 1, clip_block(64, 2)),
            64,
        ),
        loss=CLIPLossConfig(lr=1e-3, final_lr=1e-5, warmup=50, clip=1.0),
    ),
    "smoke": Args(
        model=CLIPConfig(
            clip_vit((3, 24, 24), 8, 1, 16, 2),
            TextEncoderConfig(64, 24, 1, clip_block(16, 2)),
            16,
        ),
        steps=10,
        batch_size=8,
        partners=1,
        negatives=1,
        log_every=5,
    ),
}


def main(args: Args) -> Path:
    """Returns the folder of the trained model."""
    import torch

    from generative.clip import CLIPLearner
    from generative.known.captioned_scenes import CaptionedScenes
    from generative.training.loop import fit
    from scripts.common.captions import VOCABULARY, PairBatches, fit_tokeniser, load_pairs
    from scripts.common.clip import own_scores, pair_scores, scene_scores

    with Run.open(args, kind="train_clip") as run:
        if run.done:
            return run.path / "model"
        if args.threads:
            torch.set_num_threads(args.threads)
        shape, text = args.model.image.image_shape, args.model.text
        of = args.data, args.data_dir, shape, args.mix
        pairs = load_pairs(*of, max_images=args.max_images, small=False)
        tokeniser = fit_tokeniser(pairs, text.max_len, text.vocab_size)
        tokeniser.save(run.path / VOCABULARY)
        torch.manual_seed(run.seed_for("weights"))
        model = args.model.build().to(run.device)
        learner = CLIPLearner(model, args.loss, args.steps)
        batch = PairBatches(pairs, tokeniser, run, args.batch_size, args.partners, args.negatives)
        fit(learner, batch, run, args.steps, log_every=args.log_every, what="training CLIP")
        model = learner.kept
        model.save_pretrained(run.path / "model")
        test = load_pairs(*of, part="test", max_images=args.max_images)
        generator = torch.Generator().manual_seed(run.seed_for("test"))
        scores = pair_scores(model.eval(), tokeniser, test, generator)
        found = {f"test_{name}" if name != "floor" else name: x for name, x in scores.items()}
        if args.data == "scenes":
            border = (shape[1] - 24) // 2
            found |= scene_scores(model, tokeniser, generator, border)
            found |= own_scores(
                model, tokeniser, CaptionedScenes(args.mix, "train", border), generator
            )
        run.finish({**run.metrics.last(), **found})
        if args.report is not None:
            add_to_report(args.report, run)
        return run.path / "model"


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
