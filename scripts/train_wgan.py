"""Train a Wasserstein GAN, with a gradient penalty or with weight clipping."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, ClassVar

from generative.gan.config import WGAN_BOOK, WGANConfig, WGANLossConfig
from generative.known.points import PointData
from generative.training.cli import start
from generative.training.ranges import Checked, Count, Device, Ending, Folder, Seed, Workers
from generative.training.reports import add_to_report
from generative.training.run import Run
from scripts.common.images import ImageData
from scripts.train_gan import task_of


@dataclass(frozen=True)
class Args(Checked):
    """Train a Wasserstein GAN, with a gradient penalty or with weight clipping.

    The preset sprites takes 10 to 20 minutes on one core.
    """

    resumable_fields: ClassVar[frozenset[str]] = frozenset({"steps"})

    out: Folder = Path("runs/wgan")
    """Run folder; the trained networks are in its `model` folder, samples are in `images`."""
    data: ImageData | PointData = "celeba"
    """Images in the shape of the model, or points, standardised by their exact moments."""
    data_dir: Path = Path("data")
    """Folder of the files, or of a subfolder of their name; sprites, digits, points need none."""
    model: WGANConfig = field(default_factory=WGANConfig)
    loss: WGANLossConfig = field(default_factory=WGANLossConfig)
    steps: Count = 31_800
    """Updates, each of several steps of the critic (the book: 25 epochs)."""
    batch_size: Count = 128
    log_every: Count = 100
    picture_every: Count = 1000
    """Steps from one picture to the next, a multiple of log_every; the last step has one too."""
    report: Annotated[Path, Ending((".json",))] | None = None
    """JSON file to which the result is added, under the name of the run's folder."""
    threads: Workers = 0
    """CPU threads; 0 tries one and all for a few steps, and keeps the faster."""
    device: Device = "auto"
    seed: Seed = 1


DEFAULT_PRESET = "sprites"
AVERAGED = WGANLossConfig(ema=0.999)
QUICK = replace(AVERAGED, lr=1e-3, critic_lr=1e-3, lr_end=0.01, beta1=0.0, ema=0.998)
GRID = Args(
    data="grid-25",
    model=WGANConfig((2,), latent_dim=2, widths=(128,) * 3, batch_norm="none", num_waves=5),
    loss=replace(AVERAGED, penalty=0.1, lr=1e-3, critic_lr=1e-3, lr_end=0.01, beta1=0.0, ema=0.998),
    steps=4000,
    batch_size=256,
)
PRESETS = {
    # The book takes the critic's slope outside of where it says it does, may divide by zero there,
    # and drops features at random from the function whose slope it holds at 1.
    "book": Args(model=WGANConfig(dropout=0.3), loss=WGAN_BOOK),
    "corrected": Args(loss=AVERAGED),
    "clipping": Args(
        loss=WGANLossConfig(
            lipschitz="clipping", critic_steps=5, optimizer="rmsprop", lr=5e-5, critic_lr=5e-5
        ),
        batch_size=64,
    ),
    "grid-25": GRID,
    "grid-25-book": replace(
        GRID, loss=replace(GRID.loss, alpha=WGAN_BOOK.alpha, norm_eps=WGAN_BOOK.norm_eps)
    ),
    "grid-25-clipping": replace(
        GRID,
        loss=replace(
            GRID.loss, lipschitz="clipping", clip=0.1, critic_steps=5, optimizer="rmsprop", lr=5e-4,
            critic_lr=5e-4,
        ),
    ),
    "sprites": Args(
        data="sprites",
        model=WGANConfig((3, 32, 32), latent_dim=32, widths=(16, 32, 64), batch_norm="none"),
        loss=QUICK,
        steps=2500,
        batch_size=32,
    ),
    "frames": Args(
        data="frames",
        data_dir=Path("runs/rollouts/episodes"),
        model=WGANConfig(latent_dim=32, widths=(16, 32, 64, 128)),
        loss=AVERAGED,
        steps=10_000,
        batch_size=32,
    ),
    "fashion": Args(
        data="fashion-mnist",
        model=WGANConfig((1, 32, 32), latent_dim=64, widths=(32, 64, 128), batch_norm="none"),
        loss=QUICK,
        steps=2500,
        batch_size=32,
    ),
    "smoke": Args(
        data="sprites",
        model=WGANConfig((3, 32, 32), latent_dim=8, widths=(4, 8, 8)),
        loss=AVERAGED,
        steps=10,
        batch_size=8,
        log_every=5,
        picture_every=10,
    ),
}  # fmt: skip


def main(args: Args) -> Path:
    """Returns the folder of the trained GAN."""
    import torch

    from generative.gan import WGANLearner
    from generative.training.loop import fit

    with Run.open(args, kind="train_wgan") as run:
        if run.done:
            return run.path / "model"
        if args.threads:
            torch.set_num_threads(args.threads)
        task = task_of(run)
        torch.manual_seed(run.seed_for("weights"))
        learner = WGANLearner(args.model.build().to(run.device), args.loss, args.steps)

        def show(step: int) -> None:
            if step % args.picture_every == 0 or step == args.steps:
                task.show(step, learner.kept)

        fit(
            learner, task.batch, run, args.steps,
            log_every=args.log_every, what="training the Wasserstein GAN", on_log=show,
        )  # fmt: skip
        gan = learner.kept
        gan.save_pretrained(run.path / "model")
        run.finish({**run.metrics.last(), **task.score(gan)})
        if args.report is not None:
            add_to_report(args.report, run)
        return run.path / "model"


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
