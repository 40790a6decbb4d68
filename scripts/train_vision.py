"""Train an autoencoder as V on recorded frames: its code takes the place of a VAE's z."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar

from generative.autoencoder.config import AutoencoderLossConfig, ConvAutoencoderConfig
from generative.training.cli import Input, start
from generative.training.ranges import Checked, Count, Device, Folder, Seed, Workers
from generative.training.run import Run

FRAMES = ConvAutoencoderConfig((3, 64, 64), latent_dim=32, channels=(8, 16, 32, 64, 128))
"""A step takes a CPU about twice as long as one of the VAE of train_vae.py quick."""

LOSS = AutoencoderLossConfig(final_lr=1e-4)

SCALE_FRAMES = 4096
"""Recorded frames, at most, that decide the scale of the code."""


@dataclass(frozen=True)
class Args(Checked):
    """Train an autoencoder as V on recorded frames: its code takes the place of a VAE's z."""

    resumable_fields: ClassVar[frozenset[str]] = frozenset({"steps"})

    out: Folder = Path("runs/vision")
    """Run folder; the trained V is in its `model` folder."""
    rollouts: tuple[Annotated[Path, Input("collect_rollouts.py")], ...] = (
        Path("runs/rollouts/episodes"),
    )
    """Folders of episodes recorded by collect_rollouts.py."""
    start_from: Annotated[Path, Input("train_vision.py")] | None = None
    """Folder of a V to go on from; its sizes must be those of `model`."""
    model: ConvAutoencoderConfig = FRAMES
    loss: AutoencoderLossConfig = LOSS
    steps: Count = 1600
    """Optimiser steps, not epochs."""
    batch_size: Count = 64
    """Frames per step."""
    threads: Workers = 0
    """CPU threads; 0 tries one and all for a few steps, and keeps what is quicker."""
    device: Device = "auto"
    seed: Seed = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.model.image_shape != FRAMES.image_shape:
            raise ValueError(
                f"model.image_shape is {self.model.image_shape}; V sees frames of "
                f"{FRAMES.image_shape}"
            )


DEFAULT_PRESET = "autoencoder"
PRESETS = {
    "autoencoder": Args(),
    "denoising": Args(loss=replace(LOSS, noise=0.1)),
    "smoke": Args(
        model=ConvAutoencoderConfig((3, 64, 64), 32, channels=(4, 4, 8, 8)), steps=5, batch_size=8
    ),
}


def main(args: Args) -> Path:
    """Returns the folder of the trained V."""
    import numpy as np
    import torch

    from generative.autoencoder import AutoencoderLearner, ConvAutoencoder
    from generative.training.loop import fit
    from generative.vae import to_float_bchw
    from worldmodels.frames import FrameBatches
    from worldmodels.rollouts import RolloutStore
    from worldmodels.vision import standardise

    with Run.open(args, kind="train_vision") as run:
        if run.done:
            return run.path / "model"
        if args.threads:
            torch.set_num_threads(args.threads)
        stores = [RolloutStore(folder) for folder in args.rollouts]
        frames = FrameBatches(stores, args.batch_size, run.rng, shape=(64, 64, 3))
        torch.manual_seed(run.seed_for("weights"))
        model = ConvAutoencoder(args.model)
        if args.start_from is not None:
            model.continue_from(args.start_from)
        # Channels last is quicker on a CPU.
        model.to(run.device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        learner = AutoencoderLearner(model.train(), args.loss, args.steps)

        def images(some: np.ndarray) -> torch.Tensor:
            x = to_float_bchw(torch.from_numpy(some).to(run.device))
            return x.contiguous(memory_format=torch.channels_last)

        def batch(step: int) -> torch.Tensor:
            return images(frames(step))

        fit(learner, batch, run, args.steps, what="training V")
        model.eval()
        seen = frames.take(run.rng("scale").permutation(len(frames))[:SCALE_FRAMES])
        codes, squared_error = [], 0.0
        with torch.no_grad():
            for first in range(0, len(seen), args.batch_size):
                x = images(seen[first : first + args.batch_size])
                codes.append(model.encode(x))
                squared_error += float((model.decode(codes[-1]) - x).square().sum())
        standardise(model, torch.cat(codes))
        model.save_pretrained(run.path / "model")
        recon = squared_error / len(seen)  # of a whole frame, as train_vae.py counts it
        env_ids = sorted({name for store in stores for name in store.env_ids})
        run.finish(
            {"frames": len(frames), "env_ids": env_ids, **run.metrics.last(), "recon": recon}
        )
        return run.path / "model"


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
