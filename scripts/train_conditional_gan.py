"""Train a conditional GAN: samples of a requested class."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

from generative.gan.config import WGAN_BOOK, ConditionalGANConfig, GANLossConfig, WGANLossConfig
from generative.training.cli import start
from generative.training.ranges import Checked, Count, Device, Folder, Seed, Workers
from generative.training.run import Run
from scripts.common.images import ImageData
from scripts.train_gan import PAIRS, Images
from scripts.train_wgan import AVERAGED


@dataclass(frozen=True)
class Args(Checked):
    """Train a conditional GAN: samples of a requested class.

    The preset sprites takes 5 to 10 minutes on one core.
    """

    resumable_fields: ClassVar[frozenset[str]] = frozenset({"steps"})

    out: Folder = Path("runs/conditional_gan")
    """Run folder; the trained networks are in its `model` folder, samples are in `images`, with a
    column for each class."""
    data: ImageData = "celeba"
    """Images to train on, in the shape of the model."""
    data_dir: Path = Path("data")
    """Folder of the files, or of a subfolder of the data's name; sprites and digits need none."""
    label: tuple[str, ...] = ("Blond_Hair",)
    """Factors that the classes are made of, `class` if the data have no others; each combination of
    several is a class."""
    model: ConditionalGANConfig = field(default_factory=ConditionalGANConfig)
    loss: WGANLossConfig | GANLossConfig = field(default_factory=WGANLossConfig)
    """Settings of a Wasserstein GAN (the book), or of a GAN."""
    steps: Count = 31_800
    """Updates (the book: 25 epochs)."""
    batch_size: Count = 128
    log_every: Count = 100
    picture_every: Count = 1000
    """Steps from one picture to the next, a multiple of log_every; the last step has one too."""
    threads: Workers = 0
    """CPU threads; 0 tries one and all for a few steps, and keeps the faster."""
    device: Device = "auto"
    seed: Seed = 1


DEFAULT_PRESET = "sprites"
PRESETS = {
    "book": Args(model=ConditionalGANConfig(dropout=0.3), loss=WGAN_BOOK),
    "corrected": Args(loss=AVERAGED),
    "fashion": Args(
        data="fashion-mnist",
        label=("class",),
        model=ConditionalGANConfig(
            (1, 32, 32), widths=(64, 128, 256), num_classes=10
        ),
        loss=AVERAGED,
        steps=11_700,
    ),
    "sprites": Args(
        data="sprites",
        label=("colour",),
        model=ConditionalGANConfig(
            (3, 32, 32), widths=(16, 32, 64), batch_norm="none", num_classes=6,
            conditioning="projection",
        ),
        loss=replace(PAIRS, penalty_end=0.3),
        steps=6000,
        batch_size=64,
    ),
    "smoke": Args(
        data="sprites",
        label=("colour",),
        model=ConditionalGANConfig(
            (3, 32, 32), latent_dim=8, widths=(4, 8, 8), num_classes=6
        ),
        loss=replace(AVERAGED, critic_steps=1),
        steps=10,
        batch_size=8,
        log_every=5,
        picture_every=10,
    ),
}  # fmt: skip


def main(args: Args) -> Path:
    """Returns the folder of the trained GAN."""
    import torch

    from generative.gan import GANLearner, WGANLearner
    from generative.training.loop import fit

    with Run.open(args, kind="train_conditional_gan") as run:
        if run.done:
            return run.path / "model"
        if args.threads:
            torch.set_num_threads(args.threads)
        task = Images(run, args.label)
        torch.manual_seed(run.seed_for("weights"))
        model = args.model.build().to(run.device)
        if isinstance(args.loss, WGANLossConfig):
            learner = WGANLearner(model, args.loss, args.steps)
        else:
            learner = GANLearner(model, args.loss, args.steps)

        def show(step: int) -> None:
            if step % args.picture_every == 0 or step == args.steps:
                task.show(step, learner.kept)

        fit(
            learner, task.batch, run, args.steps,
            log_every=args.log_every, what="training the conditional GAN", on_log=show,
        )  # fmt: skip
        gan = learner.kept
        gan.save_pretrained(run.path / "model")
        run.finish({**run.metrics.last(), **task.score(gan)})
        return run.path / "model"


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
