"""Train a GAN, the book's DCGAN or a repaired one, on images or on points in the plane."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, ClassVar, get_args

import numpy as np

from generative.gan.config import GAN_BOOK, GANConfig, GANLossConfig
from generative.known.points import PointData, Points
from generative.training.cli import start
from generative.training.ranges import Checked, Count, Device, Ending, Folder, Seed, Workers
from generative.training.reports import add_to_report
from generative.training.run import Run
from scripts.common.images import Batches, ImageData, classes_of, load_images


@dataclass(frozen=True)
class Args(Checked):
    """Train a GAN, the book's DCGAN or a repaired one.

    The preset sprites takes 5 to 10 minutes on one core.
    """

    resumable_fields: ClassVar[frozenset[str]] = frozenset({"steps"})

    out: Folder = Path("runs/gan")
    """Run folder; the trained networks are in its `model` folder, samples are in `images`."""
    data: ImageData | PointData = "bricks"
    """Images in the shape of the model, or points, standardised by their exact moments."""
    data_dir: Path = Path("data")
    """Folder of the files, or of a subfolder of their name; sprites, digits, points need none."""
    model: GANConfig = field(default_factory=GANConfig)
    loss: GANLossConfig = field(default_factory=GANLossConfig)
    steps: Count = 93_900
    """Updates (the book: 300 epochs of 313)."""
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
# The book's labels lie beyond 0 and 1, so its loss falls for ever and its critic ends sure
# of everything; labels moved inward and a penalty on its slope keep it from that.
REPAIRED = GANLossConfig(r1=1.0, beta2=0.99, ema=0.999)
# What comes far in a few minutes of one processor (Huang et al. 2024): losses of pairs, which leave
# out no mode, and penalties at real and generated examples, with which they converge.
PAIRS = GANLossConfig(
    objective="relativistic",
    r1=1.0,
    r2=1.0,
    lr=2e-3,
    critic_lr=2e-3,
    lr_end=0.01,
    beta1=0.0,
    beta2=0.9,
    ema=0.998,
)
GRID = Args(
    data="grid-25",
    model=GANConfig(
        (2,), latent_dim=2, widths=(128, 128, 128), batch_norm="none", bias=True, dropout=0.0,
        num_waves=5,
    ),
    # The less the slopes are held back towards the end, the sharper the samples.
    loss=replace(PAIRS, r1=0.01, r2=0.01, penalty_end=0.05),
    steps=8000,
    batch_size=256,
)  # fmt: skip
SPRITES = Args(
    data="sprites",
    model=GANConfig(
        (3, 32, 32), latent_dim=32, widths=(16, 32, 64), batch_norm="none", bias=True, dropout=0.0
    ),
    loss=PAIRS,
    steps=3300,
    batch_size=64,
)
PRESETS = {
    "book": Args(loss=GAN_BOOK),
    "corrected": Args(model=GANConfig(batch_norm="generator", bias=True), loss=REPAIRED),
    "grid-25": GRID,
    "grid-25-book": replace(GRID, loss=GAN_BOOK),
    "sprites": SPRITES,
    "sprites-book": replace(
        SPRITES,
        model=GANConfig((3, 32, 32), latent_dim=32, widths=(16, 32, 64)),
        loss=GAN_BOOK,
    ),
    "frames": Args(
        data="frames",
        data_dir=Path("runs/rollouts/episodes"),
        model=GANConfig((3, 64, 64), 32, (16, 32, 64, 128), "none", bias=True, dropout=0.0),
        loss=PAIRS,
        steps=20_000,
        batch_size=32,
    ),
    "fashion": Args(
        data="fashion-mnist",
        model=GANConfig(
            (1, 32, 32),
            latent_dim=64,
            widths=(32, 64, 128),
            batch_norm="none",
            bias=True,
            dropout=0.0,
        ),
        loss=PAIRS,
        steps=3300,
        batch_size=64,
    ),
    "smoke": Args(
        data="sprites",
        model=GANConfig((3, 32, 32), latent_dim=8, widths=(4, 8, 8)),
        steps=10,
        batch_size=8,
        log_every=5,
        picture_every=10,
    ),
}


def main(args: Args) -> Path:
    """Returns the folder of the trained GAN."""
    import torch

    from generative.gan import GANLearner
    from generative.training.loop import fit

    with Run.open(args, kind="train_gan") as run:
        if run.done:
            return run.path / "model"
        if args.threads:
            torch.set_num_threads(args.threads)
        task = task_of(run)
        torch.manual_seed(run.seed_for("weights"))
        learner = GANLearner(args.model.build().to(run.device), args.loss, args.steps)

        def show(step: int) -> None:
            if step % args.picture_every == 0 or step == args.steps:
                task.show(step, learner.kept)

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


def task_of(run: Run) -> Plane | Images:
    """Images or points to train a run's GAN on, in the shape of its model."""
    return Images(run) if len(run.config.model.shape) == 3 else Plane(run)


class Plane:
    """Points in the plane: batches, pictures, and how many modes of their density a GAN finds."""

    def __init__(self, run: Run):
        if run.config.data not in get_args(PointData):
            raise ValueError(
                f"the model makes points of shape {run.config.model.shape}, and the data are "
                f"{run.config.data}; give --data {' or '.join(get_args(PointData))}"
            )
        self.run, self.batch = run, Points(run.config.data, run)
        self.standardised = self.batch.density
        self.density = self.standardised.density

    def show(self, step: int, gan) -> None:
        """Log data beside samples as a picture."""
        self.run.metrics.log_image(step, "samples", self.picture(gan))

    def picture(self, gan):
        """Data beside samples."""
        import torch

        from generative.training.pictures import point_clouds

        data = self.standardised.sample(5000, torch.Generator().manual_seed(0))
        return point_clouds([data, self._samples(gan, 5000)], limit=2.5)

    def score(self, gan) -> dict[str, float]:
        """Energy coefficient; of a mixture also the modes found, and the share of samples there.

        `data_` is before the figures of fresh points.
        """
        import torch

        from generative.gan import energy_coefficient
        from generative.known.densities import GaussianMixture

        data = self.standardised.sample(2000, torch.Generator().manual_seed(1))
        fresh = self.standardised.sample(10_000, torch.Generator().manual_seed(2))
        result: dict[str, float] = {}
        for kind, x in (("", self._samples(gan, 10_000)), ("data_", fresh)):
            found = energy_coefficient(data, x, most=2000)
            result[f"{kind}sample_energy"] = float(found.energy)
            result[f"{kind}sample_spread"] = float(found.spread)
            if isinstance(self.density, GaussianMixture):
                moments = torch.tensor([self.density.mean, self.density.std])
                modes, share = self.density.modes_found(x * moments[1] + moments[0])
                result |= {f"{kind}modes": modes, f"{kind}share_at_modes": share}
        return result

    def _samples(self, gan, n: int):
        import torch

        generator = torch.Generator(self.run.device).manual_seed(0)
        return gan.sample(n, generator).cpu()


class Images:
    """Images: batches, pictures, and how samples compare with images that were not trained on.

    With `label`, batches are (images, classes).
    """

    def __init__(self, run: Run, label: tuple[str, ...] = ()):
        args = run.config
        self.run = run
        images = load_images(args.data, args.data_dir, args.model.shape)
        self.train, self.test = images.part("train"), images.part("test")
        self.sprites = images if args.data == "sprites" else None
        self.draw = Batches(self.train, run, args.batch_size)
        self.classes = classes_of(images, label, args.model.num_classes) if label else None
        self.train_rows = np.flatnonzero(images.split == 0)

    def batch(self, step: int):
        """Images of a step, (B, C, H, W), and their classes (B,) if there are any."""
        import torch

        images = self.draw(step)
        if self.classes is None:
            return images
        classes = self.classes[self.train_rows[self.draw.rows(step)]]
        return images, torch.from_numpy(classes).to(self.run.device)

    def show(self, step: int, gan) -> None:
        """Log samples as a picture, and of sprites how many of them are one."""
        self.run.metrics.log_image(step, "samples", self.picture(gan))
        self.log_sprites(step, gan)

    def log_sprites(self, step: int, gan) -> None:
        """Log the share of 1,000 samples that are a sprite, and of sprites that are nearest to one.

        They are `valid` and `reached`; 1,000 even draws reach 20 %. Of other images nothing.
        """
        import torch

        from generative.gan import coverage

        if self.sprites is not None:
            samples = gan.sample(1000, torch.Generator(self.run.device).manual_seed(0))
            found = coverage(samples, self.sprites)
            reached = len(found.nearest.unique()) / len(self.sprites)
            self.run.metrics.log(step, {"valid": found.precision, "reached": reached})

    def picture(self, gan):
        """A grid of samples; of a conditional GAN with the classes in turn, row by row."""
        import torch

        from generative.training.pictures import image_grid

        if self.classes is None:
            rows, columns = 8, 8
        else:
            rows, columns = rows_and_columns(gan.config.num_classes)
        generator = torch.Generator(self.run.device).manual_seed(0)
        return image_grid(gan.sample(rows * columns, generator), columns)

    def score(self, gan) -> dict[str, float]:
        """Energy coefficient to images that were not trained on.

        Of sprites also precision, and of a conditional GAN the share with the label asked for.
        `data_` is before the figures of as many training images.
        """
        import torch

        from generative.gan import coverage, energy_coefficient

        num = 1000
        samples = gan.sample(num, torch.Generator(self.run.device).manual_seed(0)).cpu()
        test, train = self.test.as_tensor(slice(num)), self.train.thin(num).as_tensor()
        result: dict[str, float] = {}
        for kind, x in (("", samples), ("data_", train)):
            found = energy_coefficient(test, x, most=num)
            result[f"{kind}sample_energy"] = float(found.energy)
            result[f"{kind}sample_spread"] = float(found.spread)
        if self.sprites is not None:
            near = coverage(samples, self.sprites)
            result["precision"] = near.precision
            result["data_precision"] = 1.0
            if self.classes is not None:
                found = self.classes[near.nearest]
                asked = np.arange(num) % gan.config.num_classes
                result["label_accuracy"] = float((found == asked).mean())
                result["data_label_accuracy"] = 1.0
        return result


def rows_and_columns(num_classes: int, most: int = 18) -> tuple[int, int]:
    """Rows and columns of a grid that shows each class at least once, in at least four rows.

    A column for each class; where there are more than `most`, as many columns as the largest number
    up to it that divides them, so that a class stays in its column, or `most` if that is small.
    """
    columns = next(n for n in range(min(num_classes, most), 0, -1) if num_classes % n == 0)
    if columns < min(num_classes, most) / 2:
        columns = most
    blocks = -(-num_classes // columns)
    return blocks * max(-(-4 // blocks), 64 // num_classes), columns


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
