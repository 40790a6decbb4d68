"""Train a GAN with self-attention, SAGAN or BigGAN, on images of classes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, ClassVar

from generative.attention_gan.config import (
    BIGGAN,
    BIGGAN_LOSS,
    SAGAN,
    SAGAN_LOSS,
    AttentionGANConfig,
)
from generative.gan.config import GANLossConfig
from generative.training.cli import start
from generative.training.ranges import Count, Device, Ending, Folder, Seed, Workers
from generative.training.reports import add_to_report
from generative.training.run import Run
from scripts.common.images import ImageData
from scripts.train_classifier import FeatureArgs, Projecting, give_features
from scripts.train_conditional_gan import OF_SPRITES, PROJECTED, projected_by
from scripts.train_gan import PAIRS, Images


@dataclass(frozen=True)
class Args(Projecting):
    """Train a GAN with self-attention, SAGAN or BigGAN, on images of classes."""

    resumable_fields: ClassVar[frozenset[str]] = frozenset({"steps"})

    out: Folder = Path("runs/attention_gan")
    """Run folder; the trained networks are in its `model` folder, samples are in `images`, of
    the classes in turn, with a column for each if they are few."""
    data: ImageData = "flowers"
    """Images to train on, in the shape of the model."""
    data_dir: Path = Path("data")
    """Folder of the files, or of a subfolder of their name; sprites and objects need none."""
    label: tuple[str, ...] = ("class",)
    """Name of what the images are told apart by; of several, each combination is a class. Ignored
    by a model without classes."""
    model: AttentionGANConfig = field(default_factory=AttentionGANConfig)
    features: FeatureArgs = field(default_factory=FeatureArgs)
    """Training of the classifier of a projected critic, which comes first and is kept in
    `classifier` of the run."""
    loss: GANLossConfig = field(default_factory=GANLossConfig)
    steps: Count = 100_000
    batch_size: Count = 256
    log_every: Count = 100
    picture_every: Count = 1000
    """Steps from one picture to the next, a multiple of log_every; the last step has one too."""
    report: Annotated[Path, Ending((".json",))] | None = None
    """JSON file to which the result is added, under the name of the run's folder."""
    threads: Workers = 0
    """CPU threads; 0 tries one and all for a few steps, and keeps what is quicker."""
    device: Device = "auto"
    seed: Seed = 1


DEFAULT_PRESET = "sprites"
# Losses of pairs need no bound of the weights: the penalties at both kinds of images are enough.
QUICK = replace(PAIRS, penalty_every=4, r1=0.5, r2=0.5)
FASHION = Args(
    data="fashion-mnist",
    label=("class",),
    model=AttentionGANConfig(
        (1, 32, 32), 10, 64, (8, 16, 32), attention_side=16, shared_dim=32, split_z=True,
        spectral_norm="none",
    ),
    loss=QUICK,
    steps=1300,
    batch_size=64,
)  # fmt: skip
PRESETS = {
    "sagan-paper": Args(
        model=replace(SAGAN, num_classes=102), loss=SAGAN_LOSS, steps=1_000_000
    ),
    "biggan-paper": Args(model=replace(BIGGAN, num_classes=102), loss=BIGGAN_LOSS, batch_size=2048),
    "flowers": Args(
        model=AttentionGANConfig((3, 64, 64), 102, widths=(64, 128, 256, 512)),
        loss=SAGAN_LOSS,
        batch_size=64,
    ),
    "objects": Args(
        data="equal-objects",
        label=("count",),
        model=AttentionGANConfig(
            (3, 24, 24), 3, 32, (8, 16), attention_side=12, spectral_norm="none"
        ),
        loss=QUICK,
        steps=1600,
        batch_size=32,
    ),
    "sprites": Args(
        data="sprites",
        label=("shape", "colour"),
        model=AttentionGANConfig(
            (3, 16, 16), 24, 33, (16, 32), attention_side=8, shared_dim=32, split_z=True,
            spectral_norm="none",
            projected=projected_by(
                (3, 16, 16), 16, 32, 64, first=1, pixel_width=32, pixel_gain=1.0
            ),
        ),
        features=replace(OF_SPRITES, loss=replace(OF_SPRITES.loss, noise=0.2)),
        # The penalty spreads images over the noise, so that narrow noise gives some of each class.
        loss=replace(PROJECTED, orthogonal=1e-4),
        steps=8000,
        batch_size=64,
    ),
    "sprites-pairs": Args(
        data="sprites",
        label=("shape", "colour"),
        model=AttentionGANConfig(
            (3, 16, 16), 24, 33, (16, 32), attention_side=8, shared_dim=32, split_z=True,
            spectral_norm="none",
        ),
        loss=QUICK,
        steps=1300,
        batch_size=64,
    ),
    "fashion": FASHION,
    "fashion-sagan": replace(
        FASHION, model=replace(FASHION.model, shared_dim=0, split_z=False)
    ),
    "smoke": Args(
        data="sprites",
        label=("colour",),
        model=AttentionGANConfig(
            (3, 32, 32), 6, 8, (4, 8, 8), attention_side=16, shared_dim=4, split_z=True
        ),
        loss=replace(BIGGAN_LOSS, critic_steps=1),
        steps=10,
        batch_size=8,
        log_every=5,
        picture_every=10,
    ),
    # SAGAN: tables of each norm, and z in the first layer alone.
    "smoke-sagan": Args(
        data="sprites",
        label=("colour",),
        model=AttentionGANConfig((3, 32, 32), 6, 8, (4, 8, 8), attention_side=16),
        loss=SAGAN_LOSS,
        steps=10,
        batch_size=8,
        log_every=5,
        picture_every=10,
    ),
}  # fmt: skip
ALIKE, LINES = 0.02, 5
"""A run is stopped whose samples had less than this spread at the last so many logged lines, after
they had ten times as much: a generator may begin with images that are alike."""


def main(args: Args) -> Path:
    """Returns the folder of the trained GAN.

    Raises:
        RuntimeError: the generator has collapsed: its samples are nearly alike.
    """
    import torch

    from generative.gan import GANLearner
    from generative.training.loop import fit

    with Run.open(args, kind="train_attention_gan") as run:
        if run.done:
            return run.path / "model"
        if args.threads:
            torch.set_num_threads(args.threads)
        task = Images(run, args.label if args.model.num_classes else ())
        torch.manual_seed(run.seed_for("weights"))
        model = args.model.build().to(run.device)
        give_features(model, run)
        learner = GANLearner(model, args.loss, args.steps)

        def show(step: int) -> None:
            stop_if_collapsed(run)
            if step % args.picture_every == 0 or step == args.steps:
                task.show(step, learner.kept)

        fit(
            learner, task.batch, run, args.steps,
            log_every=args.log_every, what="training the GAN with attention", on_log=show,
        )  # fmt: skip
        gan = learner.kept
        gan.save_pretrained(run.path / "model")
        result = {**run.metrics.last(), **task.score(gan)}
        if args.data == "equal-objects" and args.label == ("count",):
            result |= objects_of(gan, 1200, seed=0)._asdict()
        run.finish(result)
        if args.report is not None:
            add_to_report(args.report, run)
        return run.path / "model"


def objects_of(gan, num: int, seed: int):
    """`Agreement` of about so many scenes, of two, three and four objects in turn."""
    import torch

    from generative.known.scenes import agreement

    generator = torch.Generator(next(gan.parameters()).device).manual_seed(seed)
    part = 300
    images = torch.cat([gan.sample(part, generator) for _ in range(0, num, part)])
    return agreement(images, 2 + torch.arange(len(images)) % gan.num_classes)


def stop_if_collapsed(run: Run) -> None:
    """Raise RuntimeError if the samples of the last logged lines were nearly alike, not before."""
    from generative.training.metrics import read_metrics

    found = [line for line in read_metrics(run.path) if "spread" in line]
    before, lines = found[:-LINES], found[-LINES:]
    differed = any(line["spread"] > 10 * ALIKE for line in before)
    if differed and all(line["spread"] < ALIKE for line in lines):
        raise RuntimeError(
            f"the generator has collapsed: since step {lines[0]['step']} (seed {run.config.seed}) "
            f"its images differ {lines[-1]['spread']:.2g} times as much as those of the data; take "
            "an earlier checkpoint of the run, and train with --loss.objective relativistic, "
            "--loss.r1 1 and --loss.r2 1, or lower rates"
        )


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
