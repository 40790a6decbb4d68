"""Train a variational autoencoder on images, and measure its likelihood."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from generative.training.cli import start
from generative.training.ranges import Checked, Count, Device, Ending, Folder, Range, Seed, Workers
from generative.training.reports import add_to_report
from generative.training.run import Run
from generative.vae.config import IMAGE_VAE_BOOK, ImageVAEConfig, ImageVAELossConfig
from scripts.common.images import Batches, ImageData, load_images

if TYPE_CHECKING:
    from generative.data.image_set import ImageSet


@dataclass(frozen=True)
class Args(Checked):
    """Train a variational autoencoder on images, and measure its likelihood.

    The result has bounds of the log-likelihood of test images, in nats.

    The preset digits takes 1 to 2 minutes on one core.
    """

    resumable_fields: ClassVar[frozenset[str]] = frozenset({"steps"})

    out: Folder = Path("runs/image-vae")
    """Run folder; the trained VAE is in its `model` folder, samples are in `images`."""
    data: ImageData = "fashion-mnist"
    """Images to train on, in the shape of the model."""
    data_dir: Path = Path("data")
    """Folder of the files, or of a subfolder of the data's name; sprites and digits need none."""
    threshold: Annotated[int, Range(0, 255)] = 0
    """Pixels of at least this become white, all others black; 0 leaves them grey."""
    parts: tuple[str, ...] = ("train",)
    """Parts of the data to train on."""
    model: ImageVAEConfig = field(default_factory=ImageVAEConfig)
    loss: ImageVAELossConfig = field(default_factory=ImageVAELossConfig)
    steps: Count = 3000
    """Optimiser steps (the book: 5 epochs of 600)."""
    batch_size: Count = 100
    log_every: Count = 100
    picture_every: Count = 600
    """Steps from one picture to the next, a multiple of log_every; the last step has one too."""
    score_images: Count = 1000
    """Test images whose likelihood is bounded."""
    score_draws: Count = 100
    """Draws of z for each of them."""
    report: Annotated[Path, Ending((".json",))] | None = None
    """JSON file to which the result is added, under the name of the run's folder."""
    threads: Workers = 0
    """CPU threads; 0 tries one and all for a few steps, and keeps the faster."""
    device: Device = "auto"
    seed: Seed = 1


FACES = ImageVAEConfig(
    (3, 32, 32), latent_dim=200, channels=(128,) * 4, batch_norm=True, likelihood="gaussian"
)
DEFAULT_PRESET = "digits"
PRESETS = {
    "book": Args(loss=IMAGE_VAE_BOOK),
    # Sums in place of means: at 32x32 the book's KL weighs 2.05 times too much for a likelihood.
    "corrected": Args(loss=ImageVAELossConfig(final_lr=1e-5, ema=0.995)),
    "celeba-book": Args(
        data="celeba",
        model=FACES,
        loss=ImageVAELossConfig(recon="mse", recon_weight=2000.0),
        steps=7900,
        batch_size=128,
    ),
    # The noise of a pixel is learnt, so nothing is left to tune between the two terms.
    "celeba-corrected": Args(
        data="celeba",
        model=FACES,
        loss=ImageVAELossConfig(final_lr=1e-5, ema=0.999, clip=100.0),
        steps=7900,
        batch_size=128,
    ),
    "digits": Args(
        data="digits",
        threshold=8,
        parts=("train", "val"),
        model=ImageVAEConfig((1, 8, 8), latent_dim=16, channels=(), prior_components=32),
        loss=ImageVAELossConfig(num_draws=8, final_lr=1e-5, ema=0.999, clip=5.0),
        steps=4000,
        batch_size=128,
        score_draws=1000,
    ),
    "sprites": Args(
        data="sprites",
        # Colours and shapes make heaps of codes, hence the mixture. Learnt, the noise of sprites
        # is so small that codes shrink to points, and what lies between them is no sprite.
        model=ImageVAEConfig(
            (3, 32, 32),
            latent_dim=16,
            channels=(16, 32, 64),
            likelihood="gaussian",
            pixel_std=0.15,
            prior_components=64,
        ),
        loss=ImageVAELossConfig(lr=2e-3, final_lr=1e-5, ema=0.995, clip=100.0),
        steps=3000,
        batch_size=64,
        score_images=200,
    ),
    "frames": Args(
        data="frames",
        data_dir=Path("runs/rollouts/episodes"),
        model=ImageVAEConfig(
            (3, 64, 64), latent_dim=32, channels=(32, 64, 128, 256), likelihood="gaussian"
        ),
        loss=ImageVAELossConfig(final_lr=1e-5, ema=0.995, clip=100.0),
        batch_size=64,
        score_images=200,
        score_draws=10,
    ),
    "fashion": Args(
        model=ImageVAEConfig(
            (1, 32, 32),
            latent_dim=32,
            channels=(32, 64, 128),
            likelihood="gaussian",
            prior_components=64,
        ),
        loss=ImageVAELossConfig(final_lr=1e-5, ema=0.995, clip=100.0),
        batch_size=64,
        score_images=200,
        score_draws=1,
    ),
    "smoke": Args(
        data="sprites",
        model=ImageVAEConfig((3, 32, 32), channels=(4, 8, 8)),
        steps=20,
        batch_size=8,
        log_every=5,
        picture_every=10,
        score_images=10,
        score_draws=5,
    ),
}


def main(args: Args) -> Path:
    """Returns the folder of the trained VAE."""
    import torch

    from generative.training.loop import fit
    from generative.training.pictures import image_grid, strips
    from generative.vae import ImageVAELearner

    with Run.open(args, kind="train_image_vae") as run:
        if run.done:
            return run.path / "model"
        if args.threads:
            torch.set_num_threads(args.threads)
        images = load_images(args.data, args.data_dir, args.model.image_shape)
        images = black_and_white(images, args.threshold) if args.threshold else images
        test = images.part("test")
        torch.manual_seed(run.seed_for("weights"))
        model = args.model.build().to(run.device)
        learner = ImageVAELearner(model, args.loss, args.steps)
        batch = Batches(images.part(*args.parts), run, args.batch_size)
        scale = max(1, 64 // args.model.image_shape[1])

        @torch.no_grad()
        def show(step: int) -> None:
            if step % args.picture_every and step != args.steps:
                return
            kept, generator = learner.kept, torch.Generator(run.device).manual_seed(0)
            x = test.thin(10).as_tensor(device=run.device)
            rows = strips(x, kept.reconstruct(x), scale=scale)
            run.metrics.log_image(step, "reconstructions", rows)
            run.metrics.log_image(step, "samples", image_grid(kept.sample(64, generator), 0, scale))

        fit(
            learner, batch, run, args.steps,
            log_every=args.log_every, what="training the VAE", on_log=show,
        )  # fmt: skip
        vae = learner.kept
        vae.save_pretrained(run.path / "model")
        run.finish({**run.metrics.last(), **score(vae, images.part(*args.parts), test, args)})
        if args.report is not None:
            add_to_report(args.report, run)
        return run.path / "model"


def black_and_white(images: ImageSet, threshold: int) -> ImageSet:
    """The same images with two levels: pixels of at least `threshold` are white."""
    pixels = (images.images >= threshold).astype("uint8")
    return dataclasses.replace(images, images=pixels, levels=2)


def score(vae, train: ImageSet, test: ImageSet, args: Args) -> dict[str, float]:
    """Training loss, and bounds of -log p in nats, of test images.

    `test_elbo_nats` is the bound from one draw, `test_nats` the one from `score_draws`. A Gaussian
    likelihood makes them log densities, which can be below zero. Of black and white images there
    are also the nats of independent pixels.
    """
    import torch

    from generative.known.baselines import independent_pixels

    device = next(vae.parameters()).device
    generator = torch.Generator(device).manual_seed(0)
    test = test.thin(args.score_images)
    found = {"test_loss": 0.0, "test_recon": 0.0, "test_kl": 0.0}
    found |= {"test_elbo_nats": 0.0, "test_nats": 0.0}
    for row in range(0, len(test), 100):
        x = test.as_tensor(slice(row, row + 100), device)
        with torch.no_grad():
            losses = vae.loss(x, args.loss, generator)
            elbo, tight = (vae.bound(x, k, generator).mean() for k in (1, args.score_draws))
        values = [*losses, -elbo, -tight]
        for name, value in zip(found, values, strict=True):
            found[name] += float(value) * len(x) / len(test)
    if test.levels == 2:
        bits = independent_pixels(train.images, test.images, test.levels)
        found["independent_pixels_nats"] = bits * math.log(2) * math.prod(test.image_shape)
    return found


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
