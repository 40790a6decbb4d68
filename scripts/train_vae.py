"""Train V, the variational autoencoder, on recorded frames."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, ClassVar

from generative.training.cli import Input, start
from generative.training.ranges import Checked, Count, Device, Folder, Seed, Workers
from generative.training.run import Run
from generative.vae.config import ConvVAEConfig, VAELossConfig


@dataclass(frozen=True)
class Args(Checked):
    """Train V, the variational autoencoder, on recorded frames."""

    resumable_fields: ClassVar[frozenset[str]] = frozenset({"steps"})

    out: Folder = Path("runs/vae")
    """Run folder; the trained V is in its `model` folder."""
    rollouts: tuple[Annotated[Path, Input("collect_rollouts.py")], ...] = (
        Path("runs/rollouts/episodes"),
    )
    """Folders of episodes recorded by collect_rollouts.py."""
    start_from: Annotated[Path, Input("train_vae.py")] | None = None
    """Folder of a V to go on from; its sizes must be those of `model`."""
    model: ConvVAEConfig = field(default_factory=ConvVAEConfig)
    loss: VAELossConfig = field(default_factory=VAELossConfig)
    steps: Count = 100_000
    """Optimiser steps, not epochs."""
    batch_size: Count = 100
    """Frames per step."""
    threads: Workers = 0
    """CPU threads; 0 tries one and all for a few steps, and keeps what is quicker."""
    device: Device = "auto"
    seed: Seed = 1


PRESETS = {
    "paper": Args(),
    "quick": Args(
        model=ConvVAEConfig(channels=(16, 32, 64, 128)),
        loss=VAELossConfig(beta=0.25, lr=1e-3, bf16="auto"),
        steps=1600,
        batch_size=64,
    ),
    "smoke": Args(model=ConvVAEConfig(channels=(4, 4, 8, 8)), steps=5, batch_size=8),
}


def main(args: Args) -> Path:
    """Returns the folder of the trained V."""
    import torch

    from generative.training.loop import fit
    from generative.training.precision import bf16_of_run
    from generative.vae import ConvVAE, VAELearner
    from worldmodels.frames import FrameBatches
    from worldmodels.rollouts import RolloutStore

    with Run.open(args, kind="train_vae") as run:
        if run.done:
            return run.path / "model"
        if args.threads:
            torch.set_num_threads(args.threads)
        stores = [RolloutStore(folder) for folder in args.rollouts]
        frames = FrameBatches(stores, args.batch_size, run.rng, shape=(64, 64, 3))
        torch.manual_seed(run.seed_for("weights"))
        model = ConvVAE(args.model)
        if args.start_from is not None:
            model.continue_from(args.start_from)
        loss = replace(args.loss, bf16=bf16_of_run(args.loss.bf16, run))
        learner = VAELearner(model.to(run.device).train(), loss, args.steps)

        def batch(step: int) -> torch.Tensor:
            return torch.from_numpy(frames(step)).to(run.device)

        fit(learner, batch, run, args.steps, what="training V")
        model.save_pretrained(run.path / "model")
        env_ids = sorted({name for store in stores for name in store.env_ids})
        run.finish({"frames": len(frames), "env_ids": env_ids, **run.metrics.last()})
        return run.path / "model"


if __name__ == "__main__":
    start(main, PRESETS)
