"""Train a PixelCNN, which draws images pixel by pixel and knows their exact probability."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

from generative.pixelcnn.config import (
    GatedConfig,
    PixelCNNConfig,
    PixelCNNLossConfig,
    PlainConfig,
    PlusPlusConfig,
    RecurrentConfig,
)
from generative.training.cli import start
from generative.training.ranges import Checked, Count, Device, Folder, Seed, Share, Workers
from generative.training.run import Run
from scripts.common.images import Batches, ImageData, load_images


@dataclass(frozen=True)
class Args(Checked):
    """Train a PixelCNN, which draws images pixel by pixel and knows their exact probability.

    The result says how many bits a number of the images kept for testing takes.

    The preset digits takes 2 to 5 minutes on one core.
    """

    resumable_fields: ClassVar[frozenset[str]] = frozenset({"steps"})

    out: Folder = Path("runs/pixelcnn")
    """Run folder; the trained model is in its `model` folder, samples are in `images`."""
    data: ImageData = "fashion-mnist"
    """Images to train on, in the shape and the levels of the model."""
    data_dir: Path = Path("data")
    """Folder of the files, or of a subfolder of the data's name; sprites and digits need none."""
    max_images: Count | None = None
    """Use at most this many of the images."""
    train_on: tuple[str, ...] = ("train",)
    """Parts of the data: train while settings are chosen by the validation images, train val for
    the final training once they are."""
    redraw: Share = 0.0
    """Share of a batch that is turned, stretched and moved a little, as images of view 1. For grey
    drawings; needs a gated network with num_views 2."""
    label: str = ""
    """Name of the factor that gives the classes of a gated network with num_classes."""
    model: PixelCNNConfig = field(default_factory=PixelCNNConfig)
    loss: PixelCNNLossConfig = field(default_factory=PixelCNNLossConfig)
    steps: Count = 70_350
    """Optimiser steps (the book: 150 epochs of 469)."""
    batch_size: Count = 128
    log_every: Count = 100
    picture_every: Count = 4700
    """Steps from one picture to the next, a multiple of log_every; the last step has one too."""
    num_samples: Count = 10
    """Images in a picture, drawn one pixel after the other."""
    threads: Workers = 0
    """CPU threads; 0 tries one and all for a few steps, and keeps the faster."""
    device: Device = "auto"
    seed: Seed = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        network = self.model.network
        classes = network.num_classes if isinstance(network, GatedConfig) else 0
        views = network.num_views if isinstance(network, GatedConfig) else 1
        grey = self.model.image_shape[0] == 1
        if (self.redraw > 0) != (views == 2) or views > grey + 1:
            raise ValueError(
                f"redraw is {self.redraw} of images {self.model.image_shape} and {views} views; "
                "give grey images and a gated network of num_views 2, or 0 and 1"
            )
        if bool(self.label) != bool(classes):
            raise ValueError(
                f"label is {self.label!r} and num_classes {classes}; classes need the name of what "
                "gives them, and that needs a gated network with num_classes"
            )


DEFAULT_PRESET = "digits"
DIGITS = Args(
    data="digits",
    train_on=("train", "val"),
    model=PixelCNNConfig(
        (1, 8, 8),
        levels=17,
        num_mixtures=5,
        network=GatedConfig(hidden_dim=32, num_layers=5, dropout=0.1, num_classes=10, num_views=2),
    ),
    loss=PixelCNNLossConfig(lr=3e-3, final_lr=1e-5, clip=1.0, ema=0.998),
    redraw=0.6,
    label="class",
    steps=3600,
    batch_size=32,
    picture_every=1200,
    num_samples=64,
)
GREY = Args(
    data="digits",
    train_on=("train", "val"),
    model=PixelCNNConfig(
        (1, 8, 8), levels=17, network=GatedConfig(hidden_dim=32, num_layers=5, dropout=0.1)
    ),
    loss=PixelCNNLossConfig(lr=3e-3, final_lr=1e-5, clip=1.0, ema=0.99),
    steps=1000,
    batch_size=64,
    picture_every=1000,
    num_samples=64,
)
FASHION = Args(
    model=PixelCNNConfig((1, 32, 32), levels=16, network=GatedConfig(hidden_dim=32, num_layers=6)),
    loss=PixelCNNLossConfig(lr=2e-3, final_lr=1e-5, clip=1.0, ema=0.995),
    steps=3000,
    batch_size=16,
    picture_every=1000,
)
PRESETS = {
    "book": Args(),
    # The book's program is blind to some pixels above, its learning rate never falls, and nothing
    # keeps it from learning the training images by heart.
    "corrected": Args(
        model=PixelCNNConfig(network=GatedConfig(hidden_dim=64, num_layers=7, dropout=0.1)),
        loss=PixelCNNLossConfig(lr=2e-3, final_lr=1e-5, clip=1.0, ema=0.999),
        steps=20_000,
    ),
    "book-mixture": Args(
        model=PixelCNNConfig((1, 32, 32), 256, num_mixtures=5, network=PlusPlusConfig()),
        loss=PixelCNNLossConfig(lr=1e-3, final_lr=1e-3),
        steps=18_750,
        batch_size=32,
        picture_every=1900,
    ),
    "digits": DIGITS,
    "digits-book": Args(
        data="digits",
        train_on=("train", "val"),
        model=PixelCNNConfig((1, 8, 8), levels=17, network=PlainConfig(hidden_dim=64)),
        steps=2100,
        picture_every=2100,
        num_samples=64,
    ),
    # Diagonal LSTMs and gated convolutions of nearly as many weights, with the same training.
    "digits-rnn": replace(
        GREY,
        model=PixelCNNConfig(
            (1, 8, 8), levels=17, network=RecurrentConfig(hidden_dim=48, dropout=0.1)
        ),
    ),
    "digits-gated": GREY,
    # PixelRNN's diagonal LSTMs as published for CIFAR-10 (van den Oord et al. 2016a), with 129
    # units for 128, as the three colours have equal parts, and Adam for RMSProp.
    "rnn-paper": Args(
        data="cifar-10",
        model=PixelCNNConfig((3, 32, 32), 256, network=RecurrentConfig(129, 12)),
        batch_size=16,
        steps=100_000,
        picture_every=10_000,
    ),
    "sprites": Args(
        data="sprites",
        model=PixelCNNConfig(
            (3, 16, 16), levels=8, num_mixtures=5, network=GatedConfig(hidden_dim=32, num_layers=6)
        ),
        loss=PixelCNNLossConfig(lr=2e-3, final_lr=1e-5, clip=1.0, ema=0.995),
        steps=2000,
        batch_size=32,
        picture_every=500,
    ),
    "frames": Args(
        data="frames",
        data_dir=Path("runs/rollouts/episodes"),
        max_images=20_000,
        model=PixelCNNConfig(
            (3, 32, 32), levels=32, num_mixtures=5, network=GatedConfig(hidden_dim=32, num_layers=7)
        ),
        loss=PixelCNNLossConfig(lr=2e-3, final_lr=1e-5, clip=1.0, ema=0.995),
        steps=3000,
        batch_size=16,
        picture_every=1000,
    ),
    # 16 grey levels, by gated convolutions and by the LSTMs of a PixelRNN.
    "fashion": FASHION,
    "fashion-rnn": replace(
        FASHION,
        model=PixelCNNConfig((1, 32, 32), levels=16, network=RecurrentConfig(hidden_dim=32)),
        num_samples=1,
    ),
    "smoke": Args(
        data="sprites",
        max_images=400,
        model=PixelCNNConfig(
            (3, 8, 8), levels=4, num_mixtures=2, network=GatedConfig(hidden_dim=12, num_layers=2)
        ),
        loss=PixelCNNLossConfig(lr=1e-2, final_lr=1e-3, ema=0.9),
        steps=20,
        batch_size=8,
        log_every=5,
        picture_every=10,
        num_samples=4,
    ),
    "smoke-rnn": Args(
        data="digits",
        model=PixelCNNConfig((1, 8, 8), levels=3, network=RecurrentConfig(4, 1)),
        steps=10,
        batch_size=8,
        log_every=5,
        picture_every=10,
        num_samples=4,
    ),
}


def main(args: Args) -> Path:
    """Returns the folder of the trained model."""
    import torch

    from generative.known.baselines import independent_pixels
    from generative.pixelcnn import PixelCNNLearner, bits_per_dim
    from generative.pixelcnn.augment import redraw
    from generative.training.loop import fit
    from generative.training.pictures import image_grid

    with Run.open(args, kind="train_pixelcnn") as run:
        if run.done:
            return run.path / "model"
        if args.threads:
            torch.set_num_threads(args.threads)
        config = args.model
        images = load_images(
            args.data, args.data_dir, config.image_shape, config.levels, args.max_images
        )
        train, test = images.part(*args.train_on), images.part("test")
        torch.manual_seed(run.seed_for("weights"))
        model = config.build().to(run.device)
        batches = Batches(train, run, args.batch_size)
        model.initialise(batches(0))
        learner = PixelCNNLearner(model, args.loss, args.steps)

        column = train.factor_names.index(args.label) if args.label else None

        def batch(step: int):
            x, labels = batches(step), None
            if column is not None:
                labels = batches.labels(step)[:, column]
            if not args.redraw:
                return x, labels, None
            views = (torch.arange(len(x), device=x.device) < args.redraw * len(x)).long()
            changed = redraw(x[views == 1], config.levels)
            return torch.cat([changed, x[views == 0]]), labels, views

        def show(step: int) -> None:
            if step % args.picture_every == 0 or step == args.steps:
                generator = torch.Generator(run.device).manual_seed(0)
                samples = learner.kept.sample(args.num_samples, generator)
                run.metrics.log_image(step, "samples", image_grid(samples, scale=3))

        fit(
            learner, batch, run, args.steps,
            log_every=args.log_every, what="training the PixelCNN", on_log=show,
        )  # fmt: skip
        kept = learner.kept
        kept.save_pretrained(run.path / "model")
        result = {
            "train_bits_per_dim": bits_per_dim(kept, train),
            "test_bits_per_dim": bits_per_dim(kept, test),
            "independent_pixels_bits_per_dim": independent_pixels(
                train.images, test.images, config.levels
            ),
        }
        run.finish({**run.metrics.last(), **result})
        return run.path / "model"


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
