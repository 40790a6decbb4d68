"""Train a ProGAN: a GAN that grows from images of 4x4 to the full side."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from generative.stylegan.config import ProGANConfig, ProGANLossConfig
from generative.training.cli import start
from generative.training.ranges import Count, Device, Ending, Folder, Seed, Workers
from generative.training.reports import add_to_report
from generative.training.run import Run
from scripts.common.images import ImageData
from scripts.train_classifier import FeatureArgs, Projecting, give_features
from scripts.train_conditional_gan import OF_SPRITES, projected_by

if TYPE_CHECKING:
    from generative.stylegan.learner import ProGANLearner


@dataclass(frozen=True)
class Args(Projecting):
    """Train a ProGAN: a GAN that grows from images of 4x4 to the full side."""

    resumable_fields: ClassVar[frozenset[str]] = frozenset({"steps"})

    out: Folder = Path("runs/progan")
    """Run folder; the trained networks are in its `model` folder, samples of each stage in
    `images`."""
    data: ImageData = "celeba"
    """Images to train on, in the shape of the model."""
    data_dir: Path = Path("data")
    """Folder of the files, or of a subfolder of their name; sprites and digits need none."""
    model: ProGANConfig = field(default_factory=ProGANConfig)
    features: FeatureArgs = field(default_factory=FeatureArgs)
    """Training of the classifier of a projected critic, which comes first and is kept in
    `classifier` of the run."""
    loss: ProGANLossConfig = field(default_factory=ProGANLossConfig)
    steps: Count = 850_000
    """Updates; growth needs (2 k + 1) loss.phase_images / batch_size for k doublings."""
    batch_size: Count = 16
    log_every: Count = 100
    picture_every: Count = 1000
    """Steps from one picture to the next, a multiple of log_every; the last step has one too."""
    report: Annotated[Path, Ending((".json",))] | None = None
    """JSON file to which the result is added, under the name of the run's folder."""
    threads: Workers = 0
    """CPU threads; 0 tries one and all for a few steps, and keeps what is quicker."""
    device: Device = "auto"
    seed: Seed = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        phases = 2 * len(self.model.sides) - 1
        needed = -(-phases * self.loss.phase_images // self.batch_size)
        if self.steps < needed:
            raise ValueError(
                f"steps is {self.steps}; {phases} phases of {self.loss.phase_images:,} images in "
                f"batches of {self.batch_size} need {needed:,}: give more steps, or fewer "
                "loss.phase_images"
            )
        groups = self.model.std_group if self.model.projected is None else 0
        if groups and self.batch_size % groups:
            raise ValueError(
                f"batch_size is {self.batch_size}, which model.std_group {groups} "
                "does not divide; give a multiple of it, or std_group 0"
            )


DEFAULT_PRESET = "sprites"
# Losses of pairs, which leave out no mode, and penalties at real and generated examples, with which
# they converge (Huang et al. 2024); every fourth step has four times the penalty.
PAIRS = ProGANLossConfig(
    phase_images=9600,
    objective="relativistic",
    gradient_penalty=0.0,
    drift=0.0,
    r1=0.5,
    r2=0.5,
    penalty_end=0.3,
    penalty_every=4,
    lr=2e-3,
    critic_lr=2e-3,
    lr_end=0.1,
    ema=0.995,
)
SPRITES_PAIRS = Args(
    data="sprites",
    model=ProGANConfig((3, 32, 32), latent_dim=32, channel_base=256, channel_max=64),
    # Most of the steps are left for the full side.
    loss=replace(PAIRS, phase_images=1600, r1=1.0, r2=1.0, penalty_end=1.0),
    steps=1600,
    picture_every=400,
)
PRESETS = {
    "paper": Args(data="folder"),
    "celeba": Args(
        model=ProGANConfig((3, 64, 64), latent_dim=256, channel_base=8192, channel_max=256),
        loss=ProGANLossConfig(phase_images=200_000),
        steps=28_125,
        batch_size=64,
    ),
    # Images of every side as the features of a classifier of the full one show them.
    "sprites": Args(
        data="sprites",
        model=ProGANConfig(
            (3, 32, 32),
            latent_dim=32,
            channel_base=512,
            channel_max=64,
            projected=projected_by((3, 32, 32), 16, 32, 64, 64, std_group=8),
        ),
        features=OF_SPRITES,
        loss=ProGANLossConfig(
            phase_images=1600,
            objective="hinge",
            gradient_penalty=0.0,
            drift=0.0,
            lr=3e-3,
            critic_lr=2e-3,
            lr_end=0.05,
            ema=0.998,
        ),
        steps=3500,
        batch_size=64,
        picture_every=500,
    ),
    "sprites-pairs": SPRITES_PAIRS,
    "fashion": replace(
        SPRITES_PAIRS, data="fashion-mnist", model=replace(SPRITES_PAIRS.model, shape=(1, 32, 32))
    ),
    "digits": Args(
        data="digits",
        model=ProGANConfig((1, 8, 8), latent_dim=16, channel_base=256, channel_max=32),
        loss=replace(PAIRS, phase_images=4800),
        steps=1500,
        log_every=50,
        picture_every=150,
    ),
    "smoke": Args(
        data="sprites",
        model=ProGANConfig((3, 32, 32), latent_dim=8, channel_base=128, channel_max=8),
        loss=ProGANLossConfig(phase_images=16),
        steps=20,
        batch_size=8,
        log_every=5,
        picture_every=10,
    ),
}


def main(args: Args) -> Path:
    """Returns the folder of the trained GAN."""
    from generative.stylegan import ProGANLearner

    return train(args, "train_progan", ProGANLearner)


def train(args: Args, kind: str, learner_kind: type[ProGANLearner]) -> Path:
    """Train a GAN that may grow, and show what it makes; returns the folder of the trained one."""
    import torch

    from generative.stylegan import SkipGenerator, StyleGAN, contributions
    from generative.training.loop import fit
    from generative.training.pictures import image_grid
    from scripts.train_gan import Images

    with Run.open(args, kind=kind) as run:
        if run.done:
            return run.path / "model"
        if args.threads:
            torch.set_num_threads(args.threads)
        task = Images(run)
        torch.manual_seed(run.seed_for("weights"))
        model = args.model.build().to(run.device)
        give_features(model, run)
        learner = learner_kind(model, args.loss, args.steps)

        def show(step: int) -> None:
            gan, grows = learner.kept, args.loss.phase_images > 0
            draws = torch.Generator(run.device).manual_seed(0)
            if isinstance(gan, StyleGAN) and isinstance(gan.generator, SkipGenerator):
                w, noise = gan.styles(gan.draw_z(64, draws)), gan.draw_noise(64, draws)
                shares = contributions(gan.generator, w, noise).tolist()
                names = (f"contribution_{side}" for side in gan.generator.sides)
                run.metrics.log(step, dict(zip(names, shares, strict=True)))
            if step % args.picture_every == 0 or step == args.steps:
                side, alpha = learner.stage if grows else (None, 1.0)
                samples = gan.sample(64, draws, side, alpha)
                scale = max(1, 64 // samples.shape[-1])
                run.metrics.log_image(step, "samples", image_grid(samples, 8, scale))
                if samples.shape[1:] == gan.shape and alpha == 1:
                    task.log_sprites(step, gan)

        fit(
            learner, task.batch, run, args.steps,
            log_every=args.log_every, what="training the GAN", on_log=show,
        )  # fmt: skip
        gan = learner.kept
        gan.save_pretrained(run.path / "model")
        run.finish({**run.metrics.last(), **task.score(gan)})
        if args.report is not None:
            add_to_report(args.report, run)
        return run.path / "model"


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
