"""Train Glow, or the multi-scale RealNVP, flows on images with a bound of their likelihood."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from generative.flow.config import FlowLossConfig, GlowConfig
from generative.training.cli import start
from generative.training.ranges import Checked, Count, Device, Folder, NonNegative, Seed, Workers
from generative.training.run import Run
from scripts.common.images import Batches, ImageData, load_images


@dataclass(frozen=True)
class Args(Checked):
    """Train Glow, or the multi-scale RealNVP, flows on images with a bound of their likelihood.

    The preset sprites takes 20 to 40 minutes on one core.
    """

    resumable_fields: ClassVar[frozenset[str]] = frozenset({"steps"})

    out: Folder = Path("runs/glow")
    """Run folder; the trained flow is in its `model` folder, samples are in `images`."""
    data: ImageData = "sprites"
    """Images to train on, in the shape and the levels of the model."""
    data_dir: Path = Path("data")
    """Folder of the files, or of a subfolder of the data's name; sprites and digits need none."""
    model: GlowConfig = field(default_factory=GlowConfig)
    loss: FlowLossConfig = field(default_factory=FlowLossConfig)
    steps: Count = 3000
    """Optimiser steps."""
    batch_size: Count = 64
    temperature: NonNegative = 0.7
    """Deviation of the codes in the pictures of samples."""
    log_every: Count = 100
    picture_every: Count = 500
    """Steps from one picture to the next, a multiple of log_every; the last step has one too."""
    threads: Workers = 0
    """CPU threads; 0 tries one and all for a few steps, and keeps the faster."""
    device: Device = "auto"
    seed: Seed = 1


DEFAULT_PRESET = "sprites"
ADAM = FlowLossConfig(lr=1e-3, final_lr=1e-5, clip=50.0, ema=0.999)
DIGITS = FlowLossConfig(lr=2e-3, final_lr=2e-5, clip=50.0, ema=0.99, weight_decay=1e-2)
SPRITES = GlowConfig(num_steps=6, hidden_dim=64, levels=32)
PRESETS = {
    # The sizes of the paper's 32x32 images; for a GPU.
    "paper": Args(data="folder", loss=ADAM, steps=200_000),
    "sprites": Args(model=SPRITES, loss=ADAM),
    "digits": Args(
        data="digits",
        model=GlowConfig(
            (1, 8, 8),
            num_scales=2,
            num_steps=4,
            coupling="spline",
            hidden_dim=64,
            dropout=0.1,
            levels=17,
            margin=0.05,
        ),
        loss=DIGITS,
        steps=700,
        batch_size=128,
        picture_every=100,
    ),
    "realnvp": Args(
        data="digits",
        model=GlowConfig(
            (1, 8, 8),
            num_scales=2,
            num_steps=3,
            mixing="reverse",
            checkerboard=3,
            hidden_dim=32,
            num_blocks=2,
            learnt_prior=False,
            levels=17,
            margin=0.05,
        ),
        loss=DIGITS,
        steps=700,
        batch_size=128,
        picture_every=100,
    ),
    "frames": Args(
        data="frames",
        data_dir=Path("runs/rollouts/episodes"),
        model=GlowConfig((3, 64, 64), num_scales=4, num_steps=6, hidden_dim=64, levels=32),
        loss=ADAM,
    ),
    "fashion": Args(
        data="fashion-mnist",
        model=GlowConfig((1, 32, 32), num_scales=3, num_steps=4, hidden_dim=48, levels=256),
        loss=ADAM,
    ),
    "smoke": Args(
        model=GlowConfig((3, 8, 8), num_scales=2, num_steps=1, hidden_dim=8, levels=32),
        loss=ADAM,
        steps=20,
        batch_size=8,
        log_every=5,
        picture_every=10,
    ),
}


def main(args: Args) -> Path:
    """Returns the folder of the trained flow."""
    import torch

    from generative.flow import FlowLearner, bits_per_dim
    from generative.known.baselines import independent_pixels
    from generative.training.loop import fit
    from generative.training.pictures import image_grid

    with Run.open(args, kind="train_glow") as run:
        if run.done:
            return run.path / "model"
        if args.threads:
            torch.set_num_threads(args.threads)
        config = args.model
        images = load_images(args.data, args.data_dir, config.image_shape, config.levels)
        train = images.part("train", "val")
        batch = Batches(train, run, args.batch_size)
        torch.manual_seed(run.seed_for("weights"))
        model = config.build().to(run.device)
        model.initialise(
            train.as_tensor(run.rng("first").integers(len(train), size=256), run.device)
        )
        learner = FlowLearner(model, args.loss, args.steps)

        def show(step: int) -> None:
            if step % args.picture_every == 0 or step == args.steps:
                generator = torch.Generator(run.device).manual_seed(0)
                x = learner.kept.sample(64, generator, args.temperature)
                run.metrics.log_image(
                    step, "samples", image_grid(x, scale=max(1, 64 // x.shape[-1]))
                )

        fit(
            learner, batch, run, args.steps,
            log_every=args.log_every, what="training the flow", on_log=show,
        )  # fmt: skip
        flow = learner.kept
        flow.save_pretrained(run.path / "model")
        test, generator = images.part("test"), torch.Generator(run.device).manual_seed(0)
        result = {
            "test_bits_per_dim": bits_per_dim(
                flow, test.as_tensor(slice(1000)), generator=generator
            ),
            "independent_pixels_bits_per_dim": independent_pixels(
                train.images, test.images, config.levels
            ),
        }
        run.finish({**run.metrics.last(), **result})
        return run.path / "model"


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
