"""Train a diffusion model of images, or of points in the plane whose density is known."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, get_args

from generative.diffusion.config import (
    DIFFUSION_BOOK,
    IMAGE_DIFFUSION_BOOK,
    DiffusionLossConfig,
    EDMLossConfig,
    ImageDiffusionConfig,
    ImageEDMConfig,
    PointDiffusionConfig,
    PointEDMConfig,
    ScheduleConfig,
    UNetConfig,
)
from generative.known.points import PointData, Points
from generative.nets.config import UNET_BOOK, DiTConfig
from generative.training.cli import start
from generative.training.ranges import Checked, Count, Device, Folder, Seed, Workers
from generative.training.run import Run
from scripts.common.images import Batches, ImageData, load_images


@dataclass(frozen=True)
class Args(Checked):
    """Train a diffusion model of images, or of points in the plane whose density is known.

    The preset two-moons takes less than a minute on one core.
    """

    resumable_fields: ClassVar[frozenset[str]] = frozenset({"steps"})

    out: Folder = Path("runs/diffusion")
    """Run folder; the trained model is in its `model` folder, samples are in `images`."""
    data: ImageData | PointData = "flowers"
    """Images, in the shape of `image`; or points, standardised by their exact moments."""
    data_dir: Path = Path("data")
    """Folder of the image files, or of a subfolder of the data's name."""
    max_images: Count | None = None
    """At most this many images, at even distances; all of them if not given."""
    image: ImageDiffusionConfig | ImageEDMConfig = field(default_factory=ImageDiffusionConfig)
    """The model of images, also with the preconditioning of EDM."""
    point: PointDiffusionConfig | PointEDMConfig = field(default_factory=PointDiffusionConfig)
    """The model of points, also with the preconditioning of EDM."""
    loss: DiffusionLossConfig | EDMLossConfig = field(default_factory=DiffusionLossConfig)
    """Loss of the model's kind."""
    steps: Count = 31_950
    """Optimiser steps (the book: 50 epochs of 639)."""
    batch_size: Count = 64
    samples: Count = 2000
    """Points: samples in the test of whether they are like fresh points; see energy_test."""
    bound_images: Count = 360
    """Images: how many of those kept for testing get a bound of their probability."""
    log_every: Count = 50
    picture_every: Count = 600
    """Steps from one picture to the next, a multiple of log_every; the last step has one too."""
    threads: Workers = 0
    """CPU threads; 0 tries one and all for a few steps, and keeps the faster."""
    device: Device = "auto"
    seed: Seed = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        edm = isinstance(self.model, (ImageEDMConfig, PointEDMConfig))
        if edm != isinstance(self.loss, EDMLossConfig):
            raise ValueError(
                f"the model is a {type(self.model).__name__} and loss a {type(self.loss).__name__};"
                " give both of EDM or neither"
            )

    @property
    def model(
        self,
    ) -> ImageDiffusionConfig | ImageEDMConfig | PointDiffusionConfig | PointEDMConfig:
        """The model of the data's kind."""
        return self.point if self.data in get_args(PointData) else self.image


DEFAULT_PRESET = "two-moons"
FINE = ScheduleConfig(max_signal=0.9999)
"""The book's schedule, but nearly without noise at t = 0."""
EXACT = DiffusionLossConfig(weighting="noise", levels="log-snr", lr=2e-3, weight_decay=0.0)


MOONS = Args(data="two-moons", loss=EXACT, steps=8000, batch_size=512, picture_every=2000)
# Sharp edges: waves to see them by, and a rate that learns them in the same time.
EDGES = replace(MOONS, point=PointDiffusionConfig(num_waves=6), loss=replace(EXACT, lr=5e-3))


def _image(
    side: int,
    channels: tuple[int, ...],
    colours: int = 3,
    levels: int = 256,
    schedule: ScheduleConfig = FINE,
) -> ImageDiffusionConfig:
    """A corrected model: every block gets the noise level; group norm."""
    bottom = (len(channels) - 1,)
    network = UNetConfig(channels, attention=bottom)
    shape = (colours, side, side)
    return ImageDiffusionConfig(shape, network, schedule, "velocity", steps=50, levels=levels)


PRESETS = {
    "book": Args(image=IMAGE_DIFFUSION_BOOK, loss=DIFFUSION_BOOK),
    "corrected": Args(image=_image(64, (32, 64, 96, 128))),
    "frames": Args(
        data="frames",
        data_dir=Path("runs/rollouts/episodes"),
        max_images=20_000,
        image=_image(64, (8, 16, 32, 64)),
        steps=4000,
        batch_size=16,
    ),
    "sprites": Args(data="sprites", image=_image(32, (16, 32, 64)), steps=3000, batch_size=32),
    # Of 17 levels: below half the distance between two, noise would have to be told from levels.
    "digits": Args(
        data="digits",
        image=_image(8, (32, 64), 1, 17, ScheduleConfig(max_signal=0.998)),
        loss=DiffusionLossConfig(weighting="noise", levels="log-snr"),
        steps=1500,
    ),
    # The U-Net of `digits` replaced by a Transformer of 16 patches.
    "digits-dit": Args(
        data="digits",
        image=ImageDiffusionConfig(
            (1, 8, 8),
            DiTConfig(patch=2, dim=96),
            ScheduleConfig(max_signal=0.998),
            "velocity",
            steps=50,
            levels=17,
        ),
        loss=DiffusionLossConfig(weighting="noise", levels="log-snr"),
        steps=1500,
    ),
    "digits-edm": Args(
        data="digits",
        image=ImageEDMConfig((1, 8, 8), UNetConfig((32, 64), attention=(1,))),
        loss=EDMLossConfig(),
        steps=1500,
    ),
    "digits-book": Args(
        data="digits",
        image=ImageDiffusionConfig((1, 8, 8), replace(UNET_BOOK, channels=(32, 64)), levels=17),
        loss=DIFFUSION_BOOK,
        steps=1500,
    ),
    "two-moons": MOONS,
    "two-moons-book": replace(
        MOONS,
        point=PointDiffusionConfig(schedule=ScheduleConfig(), prediction="noise", steps=20),
        loss=DIFFUSION_BOOK,
    ),
    "two-moons-edm": replace(
        MOONS, point=PointEDMConfig(), loss=EDMLossConfig(std=2.4), batch_size=512
    ),
    "eight-gaussians": replace(MOONS, data="eight-gaussians", steps=6000),
    "ring": replace(EDGES, data="ring"),
    "checkerboard": replace(EDGES, data="checkerboard"),
    "fashion": Args(
        data="fashion-mnist",
        image=_image(32, (16, 32, 64), 1),
        steps=3000,
        batch_size=32,
        bound_images=64,
    ),
    "smoke": Args(
        data="sprites",
        image=ImageDiffusionConfig(
            (3, 32, 32), replace(UNET_BOOK, channels=(4, 8, 8), depth=1), steps=3
        ),
        loss=DIFFUSION_BOOK,
        steps=10,
        batch_size=8,
        bound_images=8,
        log_every=5,
        picture_every=10,
    ),
}


def main(args: Args) -> Path:
    """Returns the folder of the trained model."""
    import torch

    from generative.diffusion import DiffusionLearner, EDMLearner
    from generative.training.loop import fit

    with Run.open(args, kind="train_diffusion") as run:
        if run.done:
            return run.path / "model"
        if args.threads:
            torch.set_num_threads(args.threads)
        task = Plane(run) if args.data in get_args(PointData) else Images(run)
        torch.manual_seed(run.seed_for("weights"))
        kind: Any = EDMLearner if isinstance(args.loss, EDMLossConfig) else DiffusionLearner
        learner = kind(task.model().to(run.device), args.loss, args.steps)

        def show(step: int) -> None:
            if step % args.picture_every == 0 or step == args.steps:
                run.metrics.log_image(step, "samples", task.picture(learner.kept))

        fit(
            learner, task.batch, run, args.steps,
            log_every=args.log_every, what="training the diffusion model", on_log=show,
        )  # fmt: skip
        kept = learner.kept
        kept.save_pretrained(run.path / "model")
        run.finish({**run.metrics.last(), **task.score(kept)})
        return run.path / "model"


class Plane:
    """Points in the plane: batches, pictures, and how far the model is from the best."""

    def __init__(self, run: Run):
        self.run, self.args = run, run.config
        self.batch = Points(self.args.data, run, even=True)

    def model(self):
        """With fresh weights."""
        return self.args.point.build()

    def picture(self, model):
        """Data beside samples."""
        import torch

        from generative.training.pictures import point_clouds

        data = self.batch.draw(3000, "points", even=True)
        generator = torch.Generator(self.run.device).manual_seed(0)
        return point_clouds([data, model.sample(3000, generator)])

    def score(self, model) -> dict[str, float]:
        """Expected negative log-likelihood in nats and simple loss, with the excess of each over
        its least value, and a test of samples against fresh points. For rectangles, whose least
        simple loss is not computed, the share of samples outside."""
        import torch

        from generative.diffusion import Schedule, simple_loss
        from generative.known.densities import Boxes
        from generative.known.two_samples import energy_test

        density = self.batch.density
        found = self.batch.excess(model.log_prob, points_per_std=1.0)
        generator = torch.Generator(self.run.device).manual_seed(self.run.seed_for("samples"))
        made = model.sample(self.args.samples, generator)
        test = energy_test(self.batch.draw(self.args.samples, "fresh"), made.cpu())
        found |= {"energy_distance": test.distance, "energy_p": test.p_value}
        if isinstance(density.density, Boxes):
            outside = density.log_prob(made.cpu()) == -math.inf
            return {**found, "outside": float(outside.double().mean())}
        linear = Schedule(ScheduleConfig("linear"))
        simple = simple_loss(model, density, getattr(model, "schedule", linear))
        return {
            **found,
            "simple_loss": simple.loss,
            "simple_floor": simple.floor,
            "simple_excess": simple.excess,
        }


class Images:
    """Images: batches, pictures, and the error of the noise in images kept for testing."""

    def __init__(self, run: Run):
        self.run, self.args = run, run.config
        images = load_images(
            self.args.data,
            self.args.data_dir,
            self.args.image.image_shape,
            self.args.image.levels,
            self.args.max_images,
        )
        self.train, self.test = images.part("train"), images.part("test")
        self.batch = Batches(self.train, run, self.args.batch_size)

    def model(self):
        """With fresh weights, and without EDM with mean and deviation of the data."""
        import numpy as np

        from generative.data.image_set import evenly

        model = self.args.image.build()
        if isinstance(self.args.image, ImageEDMConfig):
            return model
        some: np.ndarray = evenly(len(self.train), 10_000)
        model.initialise(self.train.as_tensor(some))
        return model

    def picture(self, model):
        """Samples; always of the same noise."""
        import torch

        from generative.training.pictures import image_grid

        generator = torch.Generator(self.run.device).manual_seed(0)
        side = self.args.image.image_shape[1]
        return image_grid(model.sample(36, generator), scale=max(1, 64 // side))

    def score(self, model) -> dict[str, float]:
        """Over test images: errors of the noise, levels of noise even in time, and bits per number
        by the variational bound."""
        import torch

        from generative.known.baselines import independent_pixels

        if isinstance(self.args.image, ImageEDMConfig):
            return self.score_edm(model)
        device, totals = self.run.device, {"test_noise_mse": 0.0, "test_noise_mae": 0.0}
        generator = torch.Generator(device).manual_seed(0)
        config = replace(self.args.loss, levels="time", even=True)
        count = min(len(self.test), 2000)
        for begin in range(0, count, 100):
            x = self.test.as_tensor(slice(begin, min(begin + 100, count)), device)
            with torch.no_grad():
                losses = model.loss(x, config, generator)
            totals["test_noise_mse"] += float(losses.noise_mse) * len(x) / count
            totals["test_noise_mae"] += float(losses.noise_mae) * len(x) / count
        some = self.test.as_tensor(slice(self.args.bound_images), device)
        nats = torch.cat([model.bound(x, generator=generator) for x in some.split(100)]).mean()
        bits = -float(nats) / math.log(2) / some[0].numel()
        alone = independent_pixels(
            self.train.images, self.test[: self.args.bound_images].images, self.test.levels
        )
        return {
            **totals,
            "test_bits_per_dim": bits,
            "independent_pixels_bits_per_dim": alone,
        }

    def score_edm(self, model) -> dict[str, float]:
        """Weighted squared error of the data over test images; 1 for a network that gives 0."""
        import torch

        device, total = self.run.device, 0.0
        generator, count = torch.Generator(device).manual_seed(0), min(len(self.test), 2000)
        for begin in range(0, count, 100):
            x = self.test.as_tensor(slice(begin, min(begin + 100, count)), device)
            with torch.no_grad():
                total += float(model.loss(x, self.args.loss, generator).loss) * len(x) / count
        return {"test_weighted_mse": total}


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
