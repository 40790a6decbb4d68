"""Train a deep energy-based model on images, or on points in the plane."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, get_args

from generative.energy.config import (
    ENERGY_BOOK,
    ConvEnergyConfig,
    EnergyLossConfig,
    LangevinConfig,
    PointEnergyConfig,
)
from generative.known.points import PointData, Points
from generative.training.cli import start
from generative.training.ranges import Checked, Count, Device, Folder, Seed, Workers
from generative.training.run import Run
from scripts.common.images import Batches, ImageData, load_images


@dataclass(frozen=True)
class Args(Checked):
    """Train a deep energy-based model on images, or on points in the plane.

    On points the result says how far the density stays above its floor, by quadrature.

    The preset two-moons takes less than a minute on one core.
    """

    resumable_fields: ClassVar[frozenset[str]] = frozenset({"steps"})

    out: Folder = Path("runs/energy")
    """Run folder; the trained model is in its `model` folder, samples are in `images`."""
    data: ImageData | PointData = "mnist"
    """Images in the shape of the model, or fresh points, standardised by their exact moments."""
    data_dir: Path = Path("data")
    """Folder of the image files, or of a subfolder of the data's name."""
    model: ConvEnergyConfig = field(default_factory=ConvEnergyConfig)
    """Model of images."""
    points: PointEnergyConfig = field(default_factory=PointEnergyConfig)
    """Model of points."""
    loss: EnergyLossConfig = field(default_factory=EnergyLossConfig)
    steps: Count = 28_080
    """Optimiser steps (the book: 60 epochs of 468 whole batches)."""
    batch_size: Count = 128
    log_every: Count = 100
    picture_every: Count = 2000
    """Steps from one picture to the next, a multiple of log_every; the last step has one too."""
    threads: Workers = 0
    """CPU threads; 0 tries one and all for a few steps, and keeps the faster."""
    device: Device = "auto"
    seed: Seed = 1


DEFAULT_PRESET = "two-moons"
PLANE = EnergyLossConfig(
    sampler="mala", langevin=LangevinConfig(steps=10), buffer_size=1024, fresh=1.0, alpha=0.0,
    data_noise=0.0, lr=5e-3, final_lr=5e-5, beta1=0.9, clip=1.0, ema=0.998,
)  # fmt: skip
SMALL = ConvEnergyConfig((1, 8, 8), channels=(32, 64), langevin=LangevinConfig(steps=200))
PRESETS = {
    "book": Args(loss=ENERGY_BOOK),
    "corrected": Args(),
    "frames": Args(data="frames", data_dir=Path("runs/rollouts/episodes")),
    "sprites": Args(data="sprites", model=ConvEnergyConfig((3, 32, 32)), steps=5000),
    "digits": Args(data="digits", model=SMALL, steps=2000),
    "two-moons": Args(data="two-moons", loss=PLANE, steps=1500, batch_size=1024),
    "eight-gaussians": Args(data="eight-gaussians", loss=PLANE, steps=1500, batch_size=1024),
    "book-two-moons": Args(
        data="two-moons",
        loss=replace(ENERGY_BOOK, lr=1e-3, final_lr=1e-3),
        steps=600,
    ),
    "fashion": Args(
        data="fashion-mnist",
        model=ConvEnergyConfig((1, 32, 32), langevin=LangevinConfig(steps=200)),
        batch_size=32,
    ),
    "smoke": Args(
        data="two-moons",
        points=PointEnergyConfig(hidden_dim=8, num_hidden=1, sample_sweeps=5),
        loss=replace(ENERGY_BOOK, langevin=LangevinConfig(3), buffer_size=64, ema=0.9),
        steps=20,
        batch_size=16,
        log_every=5,
        picture_every=10,
    ),
}


def main(args: Args) -> Path:
    """Returns the folder of the trained model."""
    import torch

    from generative.energy import EnergyLearner
    from generative.training.loop import fit

    with Run.open(args, kind="train_energy") as run:
        if run.done:
            return run.path / "model"
        if args.threads:
            torch.set_num_threads(args.threads)
        task = Plane(run) if args.data in get_args(PointData) else Images(run)
        torch.manual_seed(run.seed_for("weights"))
        model = (args.points if isinstance(task, Plane) else args.model).build()
        learner = EnergyLearner(model.to(run.device), args.loss, args.steps)

        def show(step: int) -> None:
            task.validate(step, learner)
            if step % args.picture_every == 0 or step == args.steps:
                run.metrics.log_image(step, "samples", task.picture(learner))

        fit(
            learner, task.batch, run, args.steps,
            log_every=args.log_every, what="training the energy", on_log=show,
        )  # fmt: skip
        kept = learner.kept
        kept.save_pretrained(run.path / "model")
        run.finish({**run.metrics.last(), **task.score(kept)})
        return run.path / "model"


class Plane:
    """Points in the plane: batches, pictures, and how far the model stays above the floor."""

    def __init__(self, run: Run):
        self.run, self.batch = run, Points(run.config.data, run, even=True)

    def validate(self, step: int, learner) -> None:
        """Log nothing: the exact gap is computed at the end."""

    def picture(self, learner):
        """Data, the walks of training as they stand, and samples."""
        import torch

        from generative.training.pictures import point_clouds

        generator = torch.Generator(self.run.device).manual_seed(0)
        data = self.batch.density.sample(2000, torch.Generator().manual_seed(0))
        return point_clouds([data, learner.buffer.samples, learner.kept.sample(2000, generator)])

    def score(self, model) -> dict[str, float]:
        """Expected negative log-likelihood, nats, and what of it was avoidable."""
        log_partition = model.log_partition()
        found = self.batch.excess(lambda x: model.log_prob(x, log_partition))
        return {**found, "log_partition": log_partition}


class Images:
    """Images: batches, pictures, and the energies of data, samples and noise."""

    def __init__(self, run: Run):
        self.run, self.args = run, run.config
        images = load_images(self.args.data, self.args.data_dir, self.args.model.image_shape)
        self.test = images.part("test").as_tensor(slice(1000))
        self.batch = Batches(images.part("train"), run, self.args.batch_size)

    def validate(self, step: int, learner) -> None:
        """Contrast of test images with noise, as in the book, and with the model's samples.

        The book's alone falls also while samples get worse: any model tells noise from images.
        """
        from generative.energy import contrasts

        self.run.metrics.log(
            step, contrasts(learner.model, self.test, learner.buffer.samples[:500])
        )

    def picture(self, learner):
        """The 64 newest walks of the buffer."""
        from generative.training.pictures import image_grid

        samples = learner.buffer.samples[:64]
        return image_grid(learner.model.to_data(samples), scale=2)

    def score(self, model) -> dict[str, float]:
        """Energy distances of the ends and of the starts of walks from the test images."""
        import torch

        from generative.energy import contrasts
        from generative.known.two_samples import energy_test

        generator = torch.Generator(self.run.device).manual_seed(0)
        samples = model.sample(min(200, len(self.test)), generator)
        noise = torch.rand(samples.shape, generator=torch.Generator().manual_seed(0))
        found = contrasts(model, self.test, model.to_chain(samples))
        test = self.test.flatten(1)
        for name, x in (("samples", samples.cpu()), ("noise", noise)):
            found[f"distance_{name}"] = energy_test(x.flatten(1), test, permutations=1).distance
        return found


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
