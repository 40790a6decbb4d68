"""Train a restricted Boltzmann machine, or a deep belief network, on black and white images."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from generative.rbm.config import DBNConfig, RBMConfig, RBMLossConfig
from generative.training.cli import start
from generative.training.ranges import (
    Checked,
    Count,
    CountOrZero,
    Device,
    Folder,
    Probability,
    Seed,
    Workers,
)
from generative.training.run import Run
from scripts.common.images import ImageData, load_images


@dataclass(frozen=True)
class Args(Checked):
    """Train a restricted Boltzmann machine, or a deep belief network, on black and white images.

    Where one side has 20 units or fewer the result has exact log probabilities, else estimates.

    The preset bars-and-stripes takes less than a minute on one core.
    """

    out: Folder = Path("runs/rbm")
    """Run folder; the trained model is in its `model` folder, samples are in `images`."""
    kind: Literal["rbm", "dbn"] = "rbm"
    """Model to train."""
    data: ImageData | Literal["bars-and-stripes"] = "mnist"
    """Images to train on, in the shape of the model."""
    data_dir: Path = Path("data")
    """Folder of the files, or of a subfolder of the data's name."""
    threshold: Probability = 0.5
    """Pixels of at least this are 1, others 0."""
    model: RBMConfig = field(default_factory=RBMConfig)
    """Model of kind rbm."""
    stack: DBNConfig = field(default_factory=DBNConfig)
    """Model of kind dbn."""
    loss: RBMLossConfig = field(default_factory=RBMLossConfig)
    steps: Count = 9370
    """Optimiser steps (10 epochs of MNIST), of a network shared out evenly among its layers."""
    batch_size: CountOrZero = 64
    """Images of a step; 0 for all of them."""
    log_every: Count = 100
    picture_every: Count = 1000
    """Steps from one picture to the next, a multiple of log_every; the last step has one too."""
    threads: Workers = 0
    """CPU threads; 0 tries one and all for a few steps, and keeps the faster."""
    device: Device = "auto"
    seed: Seed = 1

    @property
    def resumable_fields(self) -> frozenset[str]:
        """The steps of a network are shared out among its layers, and so stay what they were."""
        return frozenset({"steps"} if self.kind == "rbm" else ())


DEFAULT_PRESET = "bars-and-stripes"
# Chains that go on reach what data lie far from; a rate that falls lets them keep up, and the
# average of the weights takes out what single chains do to them.
PERSISTENT = RBMLossConfig("pcd", num_chains=256, lr=0.05, final_lr=0.0005, ema=0.995)
SMALL = RBMLossConfig(
    "pcd", num_chains=256, optimizer="adam", lr=2e-2, final_lr=2e-4, weight_decay=0.05, ema=0.998
)
PRESETS = {
    "book": Args(),
    "corrected": Args(loss=PERSISTENT, steps=18_740),
    "dbn": Args(kind="dbn", loss=PERSISTENT, steps=18_740),
    "digits": Args(
        data="digits", model=RBMConfig((1, 8, 8), hidden_dim=20), loss=SMALL, steps=9000,
        batch_size=128,
    ),
    "digits-dbn": Args(
        kind="dbn", data="digits", stack=DBNConfig((1, 8, 8), (64, 20)), loss=SMALL, steps=9000,
        batch_size=128,
    ),
    "bars-and-stripes": Args(
        data="bars-and-stripes",
        model=RBMConfig((1, 4, 4), hidden_dim=16),
        # Adam would make small gradients large, and with them the noise of the chains.
        loss=RBMLossConfig(
            "pcd", num_chains=500, num_temperatures=6, lr=1.0, final_lr=0.02, ema=0.995
        ),
        steps=4000,
        batch_size=0,
    ),
    "exact": Args(
        data="bars-and-stripes",
        model=RBMConfig((1, 4, 4), hidden_dim=16),
        loss=RBMLossConfig("exact", optimizer="adam", lr=5e-2, final_lr=5e-4),
        steps=1500,
        batch_size=0,
    ),
    "sprites": Args(
        data="sprites", threshold=0.2, model=RBMConfig((1, 32, 32), 256), loss=PERSISTENT
    ),
    "frames": Args(
        data="frames",
        data_dir=Path("runs/rollouts/episodes"),
        model=RBMConfig((1, 16, 16), 128),
        loss=PERSISTENT,
    ),
    "fashion": Args(
        data="fashion-mnist", model=RBMConfig((1, 32, 32), 256), loss=PERSISTENT, steps=18_740
    ),
    "smoke": Args(
        data="bars-and-stripes",
        model=RBMConfig((1, 4, 4), hidden_dim=4, sample_steps=5),
        loss=RBMLossConfig("pcd", num_chains=20, lr=0.1, ema=0.9),
        steps=20,
        batch_size=8,
        log_every=5,
        picture_every=10,
    ),
}  # fmt: skip


def main(args: Args) -> Path:
    """Returns the folder of the trained model."""
    import torch

    from generative.rbm import (
        RBM,
        BoltzmannLearner,
        DBNLearner,
        DeepBeliefNetwork,
        free_energy_gap,
        nats_per_image,
    )
    from generative.training.loop import fit
    from generative.training.pictures import image_grid

    with Run.open(args, kind="train_rbm") as run:
        if run.done:
            return run.path / "model"
        if args.threads:
            torch.set_num_threads(args.threads)
        train, test = load_bits(args)
        torch.manual_seed(run.seed_for("weights"))
        if args.kind == "rbm":
            model = RBM(args.model).to(run.device)
            model.initialise(train.to(run.device))
            learner = BoltzmannLearner(model, args.loss, args.steps)
        else:
            learner = DBNLearner(
                DeepBeliefNetwork(args.stack).to(run.device), args.loss, args.steps
            )

        def batch(step: int):
            if not args.batch_size:
                return train.to(run.device)
            rows = run.rng("batch", step).integers(len(train), size=args.batch_size)
            return train[rows].to(run.device)

        def show(step: int) -> None:
            kept = learner.kept
            if isinstance(kept, RBM):
                run.metrics.log(step, {"free_energy_gap": free_energy_gap(kept, train, test)})
            if step % args.picture_every == 0 or step == args.steps:
                generator = torch.Generator(run.device).manual_seed(0)
                picture = image_grid(kept.sample(64, generator), scale=2)
                run.metrics.log_image(step, "samples", picture)

        fit(
            learner, batch, run, args.steps,
            log_every=args.log_every, what=f"training the {args.kind.upper()}", on_log=show,
        )  # fmt: skip
        kept = learner.kept
        kept.save_pretrained(run.path / "model")
        found = {**nats_per_image(kept, test, train), **compared(args, train, test)}
        run.finish({**run.metrics.last(), **found})
        return run.path / "model"


def load_bits(args: Args):
    """Images of zeros and ones to train on and to test with, (N, *shape) each."""
    shape = args.model.shape if args.kind == "rbm" else args.stack.shape
    if len(shape) != 3:
        raise ValueError(f"shape is {shape}; images need (C, H, W)")
    if args.data == "bars-and-stripes":
        from generative.known.bars_and_stripes import bars_and_stripes

        every = bars_and_stripes(shape[1]).as_tensor()
        return every, every
    images = load_images(args.data, args.data_dir, shape)
    # Nothing here is chosen by the images kept for validation, so they are trained on too.
    train, test = (
        (images.part(*names).as_tensor() >= args.threshold).float()
        for names in (("train", "val"), ("test",))
    )
    return train, test


def compared(args: Args, train, test) -> dict[str, float]:
    """Least nats of an image, where they are known, else those of independent pixels."""
    from generative.known.baselines import independent_pixels

    if args.data == "bars-and-stripes":
        return {"floor": math.log(len(test))}
    bits = independent_pixels(train.byte().numpy(), test[:1000].byte().numpy(), levels=2)
    return {"independent_pixels_nats": bits * math.log(2) * test[0].numel()}


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
