"""Train an autoencoder, plain or denoising, on images."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from generative.autoencoder.config import AutoencoderLossConfig, ConvAutoencoderConfig
from generative.training.cli import start
from generative.training.ranges import Checked, Count, Device, Folder, Seed, Workers
from generative.training.run import Run
from scripts.common.images import Batches, ImageData, load_images


@dataclass(frozen=True)
class Args(Checked):
    """Train an autoencoder, plain or denoising, on images.

    The preset digits takes 1 to 2 minutes on one core.
    """

    resumable_fields: ClassVar[frozenset[str]] = frozenset({"steps"})

    out: Folder = Path("runs/autoencoder")
    """Run folder; the trained model is in its `model` folder, reconstructions are in `images`."""
    data: ImageData = "fashion-mnist"
    """Images to train on, in the shape of the model."""
    data_dir: Path = Path("data")
    """Folder of the files, or of a subfolder of the data's name; sprites and digits need none."""
    train_on: tuple[str, ...] = ("train",)
    """Parts of the data: train, or train val where no setting is chosen by the latter."""
    model: ConvAutoencoderConfig = field(default_factory=ConvAutoencoderConfig)
    loss: AutoencoderLossConfig = field(default_factory=AutoencoderLossConfig)
    steps: Count = 3000
    """Optimiser steps (the book: 5 epochs of 600)."""
    batch_size: Count = 100
    log_every: Count = 100
    picture_every: Count = 600
    """Steps from one picture to the next, a multiple of log_every; the last step has one too."""
    threads: Workers = 0
    """CPU threads; 0 tries one and all for a few steps, and keeps the faster."""
    device: Device = "auto"
    seed: Seed = 1


DEFAULT_PRESET = "digits"
FRAMES = ConvAutoencoderConfig((3, 64, 64), latent_dim=32, channels=(32, 64, 128, 256))
SPRITES = ConvAutoencoderConfig((3, 32, 32), latent_dim=16)
PRESETS = {
    "book": Args(),
    "denoising": Args(
        model=ConvAutoencoderConfig(latent_dim=32), loss=AutoencoderLossConfig(noise=0.3)
    ),
    "frames": Args(data="frames", data_dir=Path("runs/rollouts/episodes"), model=FRAMES),
    "sprites": Args(data="sprites", model=SPRITES),
    "fashion": Args(
        model=ConvAutoencoderConfig((1, 32, 32), latent_dim=32, channels=(32, 64, 128)),
        batch_size=64,
    ),
    # The sizes were not chosen by the validation digits, so these help to train.
    "digits": Args(
        data="digits",
        train_on=("train", "val"),
        model=ConvAutoencoderConfig((1, 8, 8), channels=(32, 64)),
        loss=AutoencoderLossConfig("mse", lr=3e-3, final_lr=3e-5),
        steps=1500,
        batch_size=128,
        picture_every=500,
    ),
    "smoke": Args(
        data="sprites",
        model=ConvAutoencoderConfig((3, 32, 32), channels=(4, 8, 8)),
        steps=20,
        batch_size=8,
        log_every=5,
        picture_every=10,
    ),
}


def main(args: Args) -> Path:
    """Returns the folder of the trained autoencoder."""
    import torch

    from generative.autoencoder import AutoencoderLearner, add_noise
    from generative.training.loop import fit
    from generative.training.pictures import image_grid, strips

    with Run.open(args, kind="train_autoencoder") as run:
        if run.done:
            return run.path / "model"
        if args.threads:
            torch.set_num_threads(args.threads)
        images = load_images(args.data, args.data_dir, args.model.image_shape)
        test = images.part("test")
        torch.manual_seed(run.seed_for("weights"))
        model = args.model.build().to(run.device)
        learner = AutoencoderLearner(model, args.loss, args.steps)
        batch = Batches(images.part(*args.train_on), run, args.batch_size)

        @torch.no_grad()
        def show(step: int) -> None:
            if step % args.picture_every and step != args.steps:
                return
            x = test.as_tensor(slice(10), run.device)
            seen = add_noise(x, args.loss.noise) if args.loss.noise else x
            rows = (
                [x, seen, model.reconstruct(seen)] if args.loss.noise else [x, model.reconstruct(x)]
            )
            run.metrics.log_image(step, "reconstructions", strips(*rows, scale=2))
            if args.model.latent_dim == 2:
                run.metrics.log_image(step, "plane", image_grid(decoded_plane(model, test), 20))

        fit(
            learner, batch, run, args.steps,
            log_every=args.log_every, what="training the autoencoder", on_log=show,
        )  # fmt: skip
        model.save_pretrained(run.path / "model")
        train = images.part(*args.train_on)
        run.finish({**run.metrics.last(), **score(model, train, test, args)})
        return run.path / "model"


def decoded_plane(model, test, num: int = 20):
    """Decoded codes of a regular grid over the plane, (num * num, C, H, W)."""
    import torch

    device = next(model.parameters()).device
    codes = model.encode(test.as_tensor(slice(1000), device))
    low, high = codes.amin(0), codes.amax(0)
    u = torch.linspace(0, 1, num, device=device)
    return model.decode(low + (high - low) * torch.cartesian_prod(u, u))


def score(model, train, test, args: Args) -> dict[str, float]:
    """Loss and squared error over the test images, and the error of the mean training image."""
    import torch

    from generative.autoencoder import add_noise

    device, total = next(model.parameters()).device, {"test_loss": 0.0, "test_mse": 0.0}
    generator = torch.Generator(device).manual_seed(0)
    for start_row in range(0, len(test), 500):
        x = test.as_tensor(slice(start_row, start_row + 500), device)
        noisy = add_noise(x, args.loss.noise, generator) if args.loss.noise else None
        with torch.no_grad():
            losses = model.loss(x, args.loss.kind, noisy)
        total["test_loss"] += float(losses.loss) * len(x) / len(test)
        total["test_mse"] += float(losses.mse) * len(x) / len(test)
    top = test.levels - 1
    mean = train.images.mean(0) / top
    squares = sum(
        ((test.images[row : row + 500] / top - mean) ** 2).sum() for row in range(0, len(test), 500)
    )
    return {**total, "mean_image_mse": float(squares) / test.images.size}


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
