"""Make V of an environment that shows vectors: mean and deviation of what was recorded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from generative.training.cli import Input, start
from generative.training.ranges import Checked, Count, Folder, Seed
from generative.training.run import Run


@dataclass(frozen=True)
class Args(Checked):
    """Make V of an environment that shows vectors: mean and deviation of what was recorded."""

    out: Folder = Path("runs/vector-vision")
    """Run folder; V is in its `model` folder."""
    rollouts: tuple[Annotated[Path, Input("collect_rollouts.py")], ...] = (
        Path("runs/rollouts/episodes"),
    )
    """Folders of episodes recorded by collect_rollouts.py."""
    max_observations: Count = 1_000_000
    """As many, at most, decide the scale."""
    seed: Seed = 1


DEFAULT_PRESET = "vector"
PRESETS = {"vector": Args(), "smoke": Args(max_observations=100)}


def main(args: Args) -> Path:
    """Returns the folder of V."""
    import torch

    from worldmodels.rollouts import RolloutStore, load_frames
    from worldmodels.vision import VectorVision

    with Run.open(args, kind="standardise_vectors") as run:
        if run.done:
            return run.path / "model"
        stores = [RolloutStore(folder) for folder in args.rollouts]
        for store in stores:
            if store.frame_shape is not None and len(store.frame_shape) != 1:
                raise ValueError(
                    f"{store.folder} holds frames of {store.frame_shape}, and this V is for "
                    "vectors; train one on them by train_vae.py or train_vision.py"
                )
        vectors = load_frames(
            stores, max_frames=args.max_observations, seed=run.seed_for("vectors") % 2**32
        )
        VectorVision.of(torch.from_numpy(vectors)).save_pretrained(run.path / "model")
        env_ids = sorted({name for store in stores for name in store.env_ids})
        run.finish({"frames": len(vectors), "env_ids": env_ids})
        return run.path / "model"


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
