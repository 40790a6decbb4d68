"""Train a noise-conditional score network on images, or on points in the plane."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from generative.configs.score import ScoreConfig, ScoreLossConfig
from generative.training.cli import start
from generative.training.run import Run
from scripts.common.images import Batches, ImageData, load_images

PointData = Literal["two-moons", "eight-gaussians"]


@dataclass(frozen=True)
class Args:
    """Train a noise-conditional score network on images, or on points in the plane."""

    out: Path = Path("runs/score")
    """Run folder; the trained network is in its `model` folder, samples are in `images`."""
    data: ImageData | PointData = "eight-gaussians"
    """Images in the shape of the model, or fresh points, standardised by their exact moments."""
    data_dir: Path = Path("data")
    """Where the images are, or in a folder of their name there."""
    model: ScoreConfig = field(default_factory=ScoreConfig)
    loss: ScoreLossConfig = field(
        default_factory=lambda: ScoreLossConfig(lr=3e-3, final_lr=3e-5, ema=0.998)
    )
    steps: int = 4000
    """Optimiser steps."""
    batch_size: int = 1024
    log_every: int = 100
    picture_every: int = 1000
    """Steps from one picture to the next, a multiple of log_every; the last step has one too."""
    threads: int = 0
    """CPU threads; 0 leaves the choice to torch."""
    device: str = "auto"
    seed: int = 1


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
    "smoke": Args(
        model=ScoreConfig(hidden_dim=8, num_hidden=1, num_levels=3, sample_steps=3),
        steps=20,
        batch_size=16,
        log_every=5,
        picture_every=10,
    ),
}


def main(args: Args) -> Path:
    """Returns the folder of the trained network."""
    import torch

    from generative.score import ScoreLearner, ScoreNetwork
    from generative.training.loop import fit

    with Run.open(args, kind="train_score") as run:
        if run.done:
            return run.path / "model"
        if args.threads:
            torch.set_num_threads(args.threads)
        task = Points(run) if args.data in get_args(PointData) else Images(run)
        torch.manual_seed(run.seed_for("weights"))
        learner = ScoreLearner(ScoreNetwork(args.model).to(run.device), args.loss, args.steps)

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


class Points:
    """A density in the plane: batches, pictures, and whether samples can be told from it."""

    def __init__(self, run: Run):
        from generative.toy import Standardised, TwoMoons, eight_gaussians

        makers = {"two-moons": TwoMoons, "eight-gaussians": eight_gaussians}
        self.run, self.args = run, run.config
        self.density = Standardised(makers[self.args.data]())

    def batch(self, step: int):
        """Fresh points of a step, (B, 2)."""
        return self._draw(self.args.batch_size, "batch", step).to(self.run.device)

    def picture(self, network):
        """Data beside samples."""
        from generative.training.pictures import point_clouds

        return point_clouds([self._draw(2000, "picture"), self._samples(network, 2000)])

    def score(self, network) -> dict[str, float]:
        """Energy distance of samples to fresh points, and the p-value of a permutation test."""
        from generative.toy import energy_test

        found = energy_test(self._samples(network, 500), self._draw(500, "test"))
        return {"energy_distance": found.distance, "p_value": found.p_value}

    def _samples(self, network, n: int):
        import torch

        return network.sample(n, torch.Generator(self.run.device).manual_seed(0)).cpu()

    def _draw(self, n: int, name: str, *numbers: int):
        import torch

        generator = torch.Generator().manual_seed(self.run.seed_for(name, *numbers))
        return self.density.sample(n, generator)


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
