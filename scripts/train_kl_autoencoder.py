"""Train an autoencoder with a grid of Gaussian latents, the space of latent diffusion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from generative.text_to_image.config import KLAutoencoderConfig, KLAutoencoderLossConfig
from generative.training.cli import start
from generative.training.ranges import Checked, Count, Device, Ending, Folder, Seed, Workers
from generative.training.reports import add_to_report
from generative.training.run import Run
from scripts.common.images import Batches, ImageData, load_images

if TYPE_CHECKING:
    from torch import Tensor

    from generative.data.image_set import ImageSet


@dataclass(frozen=True)
class Args(Checked):
    """Train an autoencoder with a grid of Gaussian latents, the space of latent diffusion.

    The result has errors of images that were kept for testing and the deviation of their latents.
    Of scenes it has the share of objects that are read right after they were decoded, which caps
    what a diffusion of the latents can reach.
    """

    resumable_fields: ClassVar[frozenset[str]] = frozenset({"steps"})

    out: Folder = Path("runs/kl_autoencoder")
    """Run folder; the trained model is in its `model` folder, reconstructions are in `images`."""
    data: ImageData = "scenes"
    """Images to train on, in the shape of the model."""
    data_dir: Path = Path("data")
    """Folder of the files, or of a subfolder of their name; scenes, sprites, emoji and digits need
    none."""
    max_images: Count | None = None
    """Use at most so many of the images."""
    model: KLAutoencoderConfig = field(default_factory=KLAutoencoderConfig)
    loss: KLAutoencoderLossConfig = field(default_factory=KLAutoencoderLossConfig)
    steps: Count = 1500
    """Optimiser steps."""
    batch_size: Count = 32
    log_every: Count = 100
    picture_every: Count = 500
    """Steps from one picture to the next, a multiple of log_every; the last step has one too."""
    report: Annotated[Path, Ending((".json",))] | None = None
    """JSON file to which the result is added, under the name of the run's folder."""
    threads: Workers = 0
    """CPU threads; 0 tries one and all for a few steps, and keeps what is quicker."""
    device: Device = "auto"
    seed: Seed = 1


DEFAULT_PRESET = "scenes"
PRESETS = {
    # Sizes of Stable Diffusion's autoencoder, 83,653,863 weights; its critic and its perceptual
    # distance are left out.
    "paper": Args(
        data="folder",
        model=KLAutoencoderConfig((3, 256, 256), 128, (1, 2, 4, 4), 2),
        loss=KLAutoencoderLossConfig(lr=4.5e-6, final_lr=4.5e-6),
        steps=1_000_000,
        batch_size=12,
    ),
    # Eight numbers for each cell of a scene, which is black but for a few objects.
    "scenes": Args(
        model=KLAutoencoderConfig((3, 24, 24), 16, (1, 2, 2, 4), 1, channels=8),
        loss=KLAutoencoderLossConfig(recon="l2", lr=2e-3),
        steps=3000,
    ),
    "sprites": Args(
        data="sprites",
        model=KLAutoencoderConfig((3, 32, 32), 16, (1, 2, 2)),
        loss=KLAutoencoderLossConfig(lr=2e-3),
    ),
    # Four numbers for each 4x4 pixels, of emoji that are shifted, scaled and mirrored.
    "emoji": Args(
        data="emoji",
        model=KLAutoencoderConfig((3, 32, 32), 32, (1, 2, 2)),
        loss=KLAutoencoderLossConfig(lr=1e-3),
        steps=3000,
    ),
    "smoke": Args(
        data="sprites",
        model=KLAutoencoderConfig((3, 32, 32), 4, (1, 1, 1)),
        max_images=200,
        steps=10,
        batch_size=4,
        log_every=5,
        picture_every=10,
    ),
}


def main(args: Args) -> Path:
    """Returns the folder of the trained model."""
    import torch

    from generative.text_to_image import KLAutoencoderLearner
    from generative.training.loop import fit
    from generative.training.pictures import strips

    with Run.open(args, kind="train_kl_autoencoder") as run:
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
        learner = KLAutoencoderLearner(model, args.loss, args.steps)

        @torch.no_grad()
        def show(step: int) -> None:
            if step % args.picture_every == 0 or step == args.steps:
                x = test.thin(10).as_tensor(device=run.device)
                scale = max(1, 64 // args.model.image_shape[1])
                rows = strips(x, learner.kept.reconstruct(x), scale=scale)
                run.metrics.log_image(step, "reconstructions", rows)

        batch = draw(args, images.part("train"), run)
        fit(
            learner, batch, run, args.steps,
            log_every=args.log_every, what="training the autoencoder", on_log=show,
        )  # fmt: skip
        kept = learner.kept.eval()
        kept.save_pretrained(run.path / "model")
        found = {f"test_{name}": x for name, x in scores(kept, test, args.data).items()}
        run.finish({**run.metrics.last(), **found})
        if args.report is not None:
            add_to_report(args.report, run)
        return run.path / "model"


def draw(args: Args, images: ImageSet, run: Run) -> Callable[[int], Tensor]:
    """Images of a step (B, C, H, W); emoji are changed as the diffusion will see them."""
    if args.data != "emoji":
        return Batches(images, run, args.batch_size)
    import torch

    from generative.data.emoji import load_emoji

    emoji = load_emoji().part("train")

    def batch(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(run.seed_for("batch", step))
        return emoji.batch(args.batch_size, generator)[0].to(run.device)

    return batch


def scores(model, images, data: ImageData, most: int = 500) -> dict[str, float]:
    """Errors of a model's reconstructions of at most so many images, and its latents' deviation."""
    import torch

    from generative.codes import gradient_energy, psnr
    from scripts.common.codes import objects_read

    images = images.thin(most)
    x = images.as_tensor(device=next(model.parameters()).device)
    with torch.no_grad():
        z = torch.cat([model.encode(part) for part in x.split(100)])
        again = torch.cat([model.decode(part) for part in z.split(100)])
    found = {
        "mae": float((again - x).abs().mean()),
        "psnr": float(psnr(again, x)),
        "gradient_energy": float(gradient_energy(again) / gradient_energy(x)),
        "latent_std": float(z.std()),
    }
    if data == "scenes":
        found["objects_read"] = objects_read(again, images)
    return found


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
