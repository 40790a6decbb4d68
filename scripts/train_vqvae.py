"""Train a VQ-VAE, which makes a grid of codes of every image."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, ClassVar

from generative.codes.config import FSQConfig, QuantiserConfig, VQVAEConfig, VQVAELossConfig
from generative.training.cli import start
from generative.training.ranges import Checked, Count, Device, Ending, Folder, Seed, Workers
from generative.training.reports import add_to_report
from generative.training.run import Run
from generative.training.streams import tell
from scripts.common.codes import collapse, reconstruction_scores
from scripts.common.images import Batches, ImageData, load_images


@dataclass(frozen=True)
class Args(Checked):
    """Train a VQ-VAE, which makes a grid of codes of every image.

    What draws such grids is trained next, by train_code_prior. The result has errors of images that
    were kept for testing, and how many codes they take.
    """

    resumable_fields: ClassVar[frozenset[str]] = frozenset({"steps"})

    out: Folder = Path("runs/vqvae")
    """Run folder; the trained model is in its `model` folder, reconstructions are in `images`."""
    data: ImageData = "cifar-10"
    """Images to train on, in the shape of the model."""
    data_dir: Path = Path("data")
    """Folder of the files, or of a subfolder of their name; scenes, sprites, digits need none."""
    max_images: Count | None = None
    """Use at most so many of the images."""
    model: VQVAEConfig = field(default_factory=VQVAEConfig)
    loss: VQVAELossConfig = field(default_factory=VQVAELossConfig)
    steps: Count = 3000
    """Optimiser steps."""
    batch_size: Count = 64
    log_every: Count = 100
    picture_every: Count = 1000
    """Steps from one picture to the next, a multiple of log_every; the last step has one too."""
    report: Annotated[Path, Ending((".json",))] | None = None
    """JSON file to which the result is added, under the name of the run's folder."""
    threads: Workers = 0
    """CPU threads; 0 tries one and all for a few steps, and keeps what is quicker."""
    device: Device = "auto"
    seed: Seed = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.model.critic is not None:
            raise ValueError("the model has a critic, which train_vqgan trains; give it none here")


DEFAULT_PRESET = "scenes"
SCENES = Args(
    data="scenes",
    # A code for each cell, of that cell alone: three halvings and no kernel that overlaps.
    model=VQVAEConfig((3, 24, 24), (64, 128, 128), 32, 2, QuantiserConfig(32, 16), overlap=False),
    loss=VQVAELossConfig(lr=3e-3),
    batch_size=16,
    picture_every=500,
)
SPRITES = Args(data="sprites", model=VQVAEConfig((3, 32, 32)), loss=VQVAELossConfig(lr=3e-3))
PRESETS = {
    # 30 epochs at the size that is usual for CIFAR-10: 372,096 and 289,987 parameters.
    "paper": Args(
        model=VQVAEConfig((3, 32, 32), (64, 128), 32, 2, QuantiserConfig(512, 64)),
        loss=VQVAELossConfig(lr=2e-4, final_lr=2e-4),
        steps=11_700,
        batch_size=128,
    ),
    "scenes": SCENES,
    "sprites": SPRITES,
    # As many codes, which are numbers that are rounded and not a list.
    "scenes-fsq": replace(SCENES, model=replace(SCENES.model, quantiser=FSQConfig((8, 4)))),
    "sprites-fsq": replace(SPRITES, model=replace(SPRITES.model, quantiser=FSQConfig((8, 8)))),
    "fashion": Args(data="fashion-mnist", loss=VQVAELossConfig(lr=3e-3)),
    "smoke": Args(
        data="sprites",
        model=VQVAEConfig((3, 32, 32), (4, 8), 4, 1, QuantiserConfig(8, 4)),
        steps=20,
        batch_size=8,
        log_every=5,
        picture_every=10,
    ),
}


def main(args: Args) -> Path:
    """Returns the folder of the trained model."""
    import torch

    from generative.codes import VQVAELearner
    from generative.training.loop import fit
    from generative.training.pictures import strips

    with Run.open(args, kind="train_vqvae") as run:
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
        learner = VQVAELearner(model, args.loss, args.steps)

        @torch.no_grad()
        def show(step: int) -> None:
            if step % args.picture_every == 0 or step == args.steps:
                x = test.thin(10).as_tensor(device=run.device)
                scale = max(1, 64 // args.model.image_shape[1])
                rows = strips(x, model.reconstruct(x), scale=scale)
                run.metrics.log_image(step, "reconstructions", rows)

        batch = Batches(images.part("train"), run, args.batch_size)
        fit(
            learner, batch, run, args.steps,
            log_every=args.log_every, what="training the VQ-VAE", on_log=show,
        )  # fmt: skip
        model.save_pretrained(run.path / "model")
        found = reconstruction_scores(model.eval(), test, args.data)
        run.finish({**run.metrics.last(), **{f"test_{name}": x for name, x in found.items()}})
        if args.report is not None:
            add_to_report(args.report, run)
        if said := collapse(model, int(found["codes_used"])):
            tell(said)
        return run.path / "model"


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
