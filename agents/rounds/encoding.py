"""The stage that encodes recorded frames with V."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from agents.rounds.places import Episodes
from generative.training.cli import Input
from generative.training.ranges import Count, Device, Folder
from generative.training.run import Run, read_result

if TYPE_CHECKING:
    import numpy as np

    from worldmodels.rollouts import RolloutStore
    from worldmodels.vision import Vision

__all__ = ["Encoding", "check_fits", "encode"]


@dataclass(frozen=True)
class Encoding(Episodes):
    """Encode recorded frames with V: mu and logvar of every frame, beside actions and rewards."""

    out: Folder = Path("runs/encoded")
    """Run folder; the sequences are in its `data` folder."""
    vision: Annotated[Path, Input("train_vae.py")] = Path("runs/vae/model")
    """Folder of V, of any family."""
    batch_size: Count = 256
    """Frames encoded at once."""
    device: Device = "auto"


def encode(args: Encoding) -> Path:
    """Returns the folder of the encoded sequences."""
    import torch

    from worldmodels.rollouts import RolloutStore
    from worldmodels.sequences import encode_rollouts
    from worldmodels.vision import load_vision, see

    with Run.open(args, kind="encode_rollouts") as run:
        if run.done:
            return run.path / "data"
        vision = load_vision(args.vision, device=run.device)
        vision.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        stores = [RolloutStore(folder) for folder in args.rollouts]
        for store in stores:
            check_fits(args.vision, vision, store)

        def mu_logvar(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            mu, logvar = see(vision, frames)
            return mu.cpu().numpy(), logvar.cpu().numpy()

        encoded = encode_rollouts(stores, mu_logvar, args.batch_size)
        encoded.save(run.path / "data")
        run.finish({"episodes": len(encoded), "frames": encoded.num_frames})
        return run.path / "data"


def check_fits(folder: Path, vision: Vision, store: RolloutStore) -> None:
    """Stop where a V was made for other observations than a store holds, or for other games."""
    from worldmodels.vision import check_observations

    if store.frame_shape is not None:
        check_observations(vision, store.frame_shape, f"{store.folder} holds", f"the V of {folder}")
    if folder.name != "model" or not (folder.parent / "result.json").exists():
        return  # not in the run that trained it, so nothing tells on what
    known = read_result(folder.parent).get("env_ids", [])
    if known and store.env_ids and not set(known) & set(store.env_ids):
        raise ValueError(
            f"the V of {folder} was trained on {', '.join(known)}, {store.folder} holds episodes "
            f"of {', '.join(store.env_ids)}; pass the V that was trained on these"
        )
