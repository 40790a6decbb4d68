"""Train a noise-conditional score network on images, or on points in the plane."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, get_args

from generative.known.points import PointData, Points
from generative.score_matching.config import ScoreConfig, ScoreLossConfig
from generative.training.cli import start
from generative.training.ranges import Checked, Count, Device, Folder, Seed, Workers
from generative.training.run import Run
from scripts.common.images import Batches, ImageData, load_images


@dataclass(frozen=True)
class Args(Checked):
    """Train a noise-conditional score network on images, or on points in the plane.

    The preset eight-gaussians takes less than a minute on one core.
    """

    resumable_fields: ClassVar[frozenset[str]] = frozenset({"steps"})

    out: Folder = Path("runs/score")
    """Run folder; the trained network is in its `model` folder, samples are in `images`."""
    data: ImageData | PointData = "eight-gaussians"
    """Images in the shape of the model, or fresh points, standardised by their exact moments."""
    data_dir: Path = Path("data")
    """Folder of the image files, or of a subfolder of the data's name."""
    model: ScoreConfig = field(default_factory=ScoreConfig)
    loss: ScoreLossConfig = field(
        default_factory=lambda: ScoreLossConfig(lr=3e-3, final_lr=3e-5, ema=0.998)
    )
    steps: Count = 4000
    """Optimiser steps."""
    batch_size: Count = 1024
    samples: Count = 2000
    """Points: samples in the test of whether they are like fresh points; see energy_test."""
    log_every: Count = 100
    picture_every: Count = 1000
    """Steps from one picture to the next, a multiple of log_every; the last step has one too."""
    threads: Workers = 0
    """CPU threads; 0 tries one and all for a few steps, and keeps the faster."""
    device: Device = "auto"
    seed: Seed = 1


DEFAULT_PRESET = "eight-gaussians"
IMAGES = ScoreLossConfig(lr=1e-3, final_lr=1e-4, clip=1.0, ema=0.999)
SPRITES = ScoreConfig((3, 32, 32), sigma_max=10.0, num_levels=20, hidden_dim=32, num_hidden=1,
                      sample_steps=20)  # fmt: skip
PRESETS = {
    "eight-gaussians": Args(),
    "two-moons": Args(data="two-moons"),
    "sliced": Args(loss=ScoreLossConfig("sliced", lr=3e-3, final_lr=3e-5, ema=0.998)),
    "digits": Args(
        data="digits",
        model=ScoreConfig((1, 8, 8), sigma_max=3.0, hidden_dim=32, num_hidden=1, sample_steps=50),
        loss=IMAGES,
        steps=3000,
        batch_size=128,
    ),
    "sprites": Args(data="sprites", model=SPRITES, loss=IMAGES, steps=10_000, batch_size=64),
    "frames": Args(
        data="frames",
        data_dir=Path("runs/rollouts/episodes"),
        model=SPRITES,
        loss=IMAGES,
        steps=10_000,
        batch_size=64,
    ),
    "mnist": Args(
        data="mnist",
        model=ScoreConfig((1, 28, 28), sigma_max=8.0, num_levels=20, hidden_dim=32, num_hidden=1),
        loss=IMAGES,
        steps=10_000,
        batch_size=128,
    ),
    "fashion": Args(
        data="fashion-mnist",
        model=replace(SPRITES, shape=(1, 32, 32)),
        loss=IMAGES,
        steps=10_000,
        batch_size=32,
    ),
    "smoke": Args(
        model=ScoreConfig(hidden_dim=8, num_hidden=1, num_levels=3, sample_steps=3),
        steps=20,
        batch_size=16,
        samples=100,
        log_every=5,
        picture_every=10,
    ),
}


def main(args: Args) -> Path:
    """Returns the folder of the trained network."""
    import torch

    from generative.score_matching import ScoreLearner
    from generative.training.loop import fit

    with Run.open(args, kind="train_score") as run:
        if run.done:
            return run.path / "model"
        if args.threads:
            torch.set_num_threads(args.threads)
        task = Plane(run) if args.data in get_args(PointData) else Images(run)
        torch.manual_seed(run.seed_for("weights"))
        learner = ScoreLearner(args.model.build().to(run.device), args.loss, args.steps)

        def show(step: int) -> None:
            if step % args.picture_every == 0 or step == args.steps:
                run.metrics.log_image(step, "samples", task.picture(learner.kept))

        fit(
            learner, task.batch, run, args.steps,
            log_every=args.log_every, what="training the score", on_log=show,
        )  # fmt: skip
        kept = learner.kept
        kept.save_pretrained(run.path / "model")
        run.finish({**run.metrics.last(), **task.score(kept)})
        return run.path / "model"


class Plane:
    """Points in the plane: batches, pictures, and how far the network is from the exact score."""

    def __init__(self, run: Run):
        self.run, self.batch = run, Points(run.config.data, run)

    def picture(self, network):
        """Data beside samples."""
        from generative.training.pictures import point_clouds

        return point_clouds([self.batch.draw(2000, "picture"), self._samples(network, 2000)])

    def score(self, network) -> dict[str, float]:
        """Training loss, its excess over the best, and a test of samples against fresh points."""
        from generative.known.two_samples import energy_test
        from generative.score_matching import denoising_loss

        num = self.run.config.samples
        test = energy_test(self.batch.draw(num, "fresh"), self._samples(network, num))
        found = denoising_loss(network, self.batch.density)
        return {
            "energy_distance": test.distance,
            "energy_p": test.p_value,
            "denoising_loss": found.loss,
            "loss_floor": found.floor,
            "loss_excess": found.excess,
        }

    def _samples(self, network, n: int):
        import torch

        return network.sample(n, torch.Generator(self.run.device).manual_seed(0)).cpu()


class Images:
    """Images: batches, pictures, and the loss on those that are kept for testing."""

    def __init__(self, run: Run):
        self.run, self.args = run, run.config
        images = load_images(self.args.data, self.args.data_dir, self.args.model.shape)
        self.test = images.part("test").as_tensor(slice(1000))
        self.batch = Batches(images.part("train"), run, self.args.batch_size)

    def picture(self, network):
        """A grid of 25 samples."""
        import torch

        from generative.training.pictures import image_grid

        generator = torch.Generator(self.run.device).manual_seed(0)
        return image_grid(network.sample(25, generator), scale=2)

    def score(self, network) -> dict[str, float]:
        """Denoising loss of the test images."""
        import torch

        generator = torch.Generator(self.run.device).manual_seed(0)
        with torch.no_grad():
            loss = network.loss(self.test.to(self.run.device), generator=generator).loss
        return {"test_loss": float(loss)}


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
