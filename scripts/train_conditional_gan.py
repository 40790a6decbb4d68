"""Train a conditional GAN: samples of a requested class."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

from generative.classifier.config import ClassifierLossConfig, CNNClassifierConfig
from generative.gan.config import (
    WGAN_BOOK,
    ConditionalGANConfig,
    GANLossConfig,
    ProjectedCriticConfig,
    WGANLossConfig,
)
from generative.training.cli import start
from generative.training.ranges import Count, Device, Folder, Seed, Workers
from generative.training.run import Run
from scripts.common.images import ImageData
from scripts.train_classifier import FeatureArgs, Projecting, give_features
from scripts.train_gan import PAIRS, Images
from scripts.train_wgan import AVERAGED


@dataclass(frozen=True)
class Args(Projecting):
    """Train a conditional GAN: samples of a requested class.

    The preset sprites takes 20 to 40 minutes on one core.
    """

    resumable_fields: ClassVar[frozenset[str]] = frozenset({"steps"})

    out: Folder = Path("runs/conditional_gan")
    """Run folder; the trained networks are in its `model` folder, samples are in `images`, of
    the classes in turn, with a column for each if they are few."""
    data: ImageData = "celeba"
    """Images to train on, in the shape of the model."""
    data_dir: Path = Path("data")
    """Folder of the files, or of a subfolder of the data's name; sprites and digits need none."""
    label: tuple[str, ...] = ("Blond_Hair",)
    """Factors that the classes are made of, `class` if the data have no others; each combination of
    several is a class."""
    model: ConditionalGANConfig = field(default_factory=ConditionalGANConfig)
    features: FeatureArgs = field(default_factory=FeatureArgs)
    """Training of the classifier of a projected critic, which comes first and is kept in
    `classifier` of the run."""
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


def projected_by(
    shape: tuple[int, int, int],
    *channels: int,
    first: int = 2,
    pixel_width: int = 64,
    pixel_gain: float = 8.0,
    std_group: int = 0,
) -> ProjectedCriticConfig:
    """A critic of images of this shape by a classifier of 72 classes, whose convolutions with so
    many feature maps halve the sides.

    Args:
        first: stride of the first convolution; 1 keeps the sides, where shapes are small.
        pixel_width: of the head on the pixels.
        pixel_gain: factor of the pixels in front of it.
        std_group: examples that heads compare with each other.
    """
    n = len(channels)
    return ProjectedCriticConfig(
        CNNClassifierConfig(
            shape, 72, channels, (3,) * n, (first, *(2,) * (n - 1)), hidden_dim=64,
            norm_momentum=0.1, dropout=0.0,
        ),
        pixel_width=pixel_width, pixel_gain=pixel_gain, std_group=std_group,
    )  # fmt: skip


OF_SPRITES = FeatureArgs(
    ("shape", "colour", "size"),
    ClassifierLossConfig(lr=3e-3, final_lr=3e-5, noise=0.5),
    steps=3000,
)
"""Training of a classifier of sprites: 72 classes."""
# The spectral norms of the heads hold the critic, in place of penalties on slopes.
PROJECTED = GANLossConfig(
    objective="hinge", lr=2e-3, critic_lr=2e-3, lr_end=0.05, beta1=0.0, beta2=0.99, ema=0.998
)
DEFAULT_PRESET = "sprites"
PRESETS = {
    "book": Args(model=ConditionalGANConfig(dropout=0.3), loss=WGAN_BOOK),
    "corrected": Args(loss=AVERAGED),
    "fashion": Args(
        data="fashion-mnist",
        label=("class",),
        model=ConditionalGANConfig(
            (1, 32, 32), 64, (32, 64, 128), batch_norm="none", num_classes=10,
            conditioning="projection",
        ),
        loss=replace(PAIRS, penalty_end=0.3),
        steps=6000,
        batch_size=64,
    ),
    # Told the colour alone, it may never draw a shape or a size: nothing asks for it.
    "sprites": Args(
        data="sprites",
        label=("shape", "colour", "size"),
        model=ConditionalGANConfig(
            (3, 32, 32), widths=(16, 32, 64), num_classes=72, generator="residual",
            projected=projected_by((3, 32, 32), 16, 32, 64, 64),
        ),
        features=OF_SPRITES,
        loss=PROJECTED,
        steps=6000,
        batch_size=64,
    ),
    # The same by a critic that begins with pixels, and the losses of pairs.
    "sprites-pairs": Args(
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
        give_features(model, run)
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
