"""Train a VAE-GAN: a VAE whose reconstructions are compared by what a critic sees."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

from generative.training.cli import start
from generative.training.ranges import Count, Device, Ending, Folder, Seed, Workers
from generative.training.reports import add_to_report
from generative.training.run import Run
from generative.vae_gan.config import VAEGANConfig, VAEGANLossConfig
from scripts.common.images import Batches, ImageData, load_images
from scripts.train_classifier import FeatureArgs, Projecting, give_features


@dataclass(frozen=True)
class Args(Projecting):
    """Train a VAE-GAN: a VAE whose reconstructions are compared by what a critic sees.

    The result has errors of images that were kept for testing, and how sharp they come back.
    """

    resumable_fields: ClassVar[frozenset[str]] = frozenset({"steps"})

    out: Folder = Path("runs/vae_gan")
    """Run folder; the trained model is in its `model` folder, samples are in `images`."""
    data: ImageData = "celeba"
    """Images to train on, in the shape of the model."""
    data_dir: Path = Path("data")
    """Folder of the files, or of a subfolder of their name; scenes, sprites, digits need none."""
    max_images: Count | None = None
    """Use at most this many of the images."""
    model: VAEGANConfig = field(default_factory=VAEGANConfig)
    features: FeatureArgs = field(default_factory=FeatureArgs)
    """Training of the classifier of a projected critic, which comes first and is kept in
    `classifier` of the run."""
    loss: VAEGANLossConfig = field(default_factory=VAEGANLossConfig)
    steps: Count = 3000
    """Optimiser steps."""
    batch_size: Count = 64
    log_every: Count = 100
    picture_every: Count = 500
    """Steps from one picture to the next, a multiple of log_every; the last step has one too."""
    report: Annotated[Path, Ending((".json",))] | None = None
    """JSON file to which the result is added, under the name of the run's folder."""
    threads: Workers = 0
    """CPU threads; 0 tries one and all for a few steps, and keeps what is quicker."""
    device: Device = "auto"
    seed: Seed = 1


DEFAULT_PRESET = "sprites"
PRESETS = {
    # Widths and rate of the publication, its losses, and batch norm in the VAE.
    "paper": Args(
        model=VAEGANConfig(
            (3, 64, 64), 128, (64, 128, 256), batch_norm=True, critic_widths=(32, 128, 256, 256)
        ),
        loss=VAEGANLossConfig(
            objective="bce", r1=0.0, r2=0.0, gamma=1e-6, lr=3e-4, critic_lr=3e-4, lr_end=1.0
        ),
        steps=50_000,
        picture_every=5000,
    ),
    # Pixels tell the encoder of colours and places long before the critic's features do.
    "sprites": Args(
        data="sprites",
        model=VAEGANConfig((3, 32, 32), 16, (16, 32, 64), likelihood="gaussian", pixel_std=0.1),
        loss=VAEGANLossConfig(
            features=10.0, pixels=1.0, adversarial=100.0, lr=2e-3, critic_lr=2e-3
        ),
        steps=3000,
        batch_size=32,
    ),
    "fashion": Args(
        data="fashion-mnist", model=VAEGANConfig((1, 32, 32), 16, (16, 32, 64)), batch_size=32
    ),
    "smoke": Args(
        data="sprites",
        model=VAEGANConfig((3, 32, 32), 4, (4, 8), critic_widths=(4, 8)),
        steps=10,
        batch_size=8,
        log_every=5,
        picture_every=10,
    ),
}


def main(args: Args) -> Path:
    """Returns the folder of the trained model."""
    import torch

    from generative.training.loop import fit
    from generative.training.pictures import image_grid, strips
    from generative.vae_gan import VAEGANLearner

    with Run.open(args, kind="train_vae_gan") as run:
        if run.done:
            return run.path / "model"
        if args.threads:
            torch.set_num_threads(args.threads)
        images = load_images(
            args.data, args.data_dir, args.model.image_shape, max_images=args.max_images
        )
        test = images.part("test")
        torch.manual_seed(run.seed_for("weights"))
        model = args.model.build().to(run.device)
        give_features(model, run)
        learner = VAEGANLearner(model, args.loss, args.steps)
        scale = max(1, 64 // args.model.image_shape[1])

        @torch.no_grad()
        def show(step: int) -> None:
            if step % args.picture_every and step != args.steps:
                return
            generator = torch.Generator(run.device).manual_seed(0)
            x = test.thin(10).as_tensor(device=run.device)
            model.eval()
            rows = strips(x, model.reconstruct(x), scale=scale)
            run.metrics.log_image(step, "reconstructions", rows)
            samples = model.sample(64, generator)
            run.metrics.log_image(step, "samples", image_grid(samples, 0, scale))
            model.train()

        batch = Batches(images.part("train"), run, args.batch_size)
        fit(
            learner, batch, run, args.steps,
            log_every=args.log_every, what="training the VAE-GAN", on_log=show,
        )  # fmt: skip
        model.eval().save_pretrained(run.path / "model")
        run.finish({**run.metrics.last(), **score(model, test)})
        if args.report is not None:
            add_to_report(args.report, run)
        return run.path / "model"


def score(model, test) -> dict[str, float]:
    """Squared error of at most 1,000 test images, and the share of their gradient energy left."""
    import torch

    from generative.codes import gradient_energy

    x = test.thin(1000).as_tensor(device=next(model.parameters()).device)
    with torch.no_grad():
        again = torch.cat([model.reconstruct(part) for part in x.split(100)])
    energy = float(gradient_energy(again) / gradient_energy(x))
    return {"test_mse": float((again - x).square().mean()), "test_gradient_energy": energy}


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
