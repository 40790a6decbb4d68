"""Encode recorded frames with V: mu and logvar of every frame, beside actions and rewards."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from generative.training.cli import Input, start
from generative.training.ranges import Checked, Count, Device, Folder
from generative.training.run import Run

if TYPE_CHECKING:
    from worldmodels.rollouts import RolloutStore
    from worldmodels.vision import Vision


@dataclass(frozen=True)
class Args(Checked):
    """Encode recorded frames with V: mu and logvar of every frame, beside actions and rewards."""

    out: Folder = Path("runs/encoded")
    """Run folder; the sequences are in its `data` folder."""
    rollouts: tuple[Annotated[Path, Input("collect_rollouts.py")], ...] = (
        Path("runs/rollouts/episodes"),
    )
    """Folders of episodes recorded by collect_rollouts.py."""
    vision: Annotated[Path, Input("train_vae.py")] = Path("runs/vae/model")
    """Folder of V, of any family."""
    batch_size: Count = 256
    """Frames encoded at once."""
    device: Device = "auto"


PRESETS = {"paper": Args(), "smoke": Args(batch_size=32)}


def main(args: Args) -> Path:
    """Returns the folder of the encoded sequences."""
    import torch

    from generative.vae import to_float_bchw
    from worldmodels.rollouts import RolloutStore
    from worldmodels.sequences import encode_rollouts
    from worldmodels.vision import encode_mu_logvar, load_vision

    with Run.open(args, kind="encode_rollouts") as run:
        if run.done:
            return run.path / "data"
        vision = load_vision(args.vision, device=run.device)
        vision.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        stores = [RolloutStore(folder) for folder in args.rollouts]
        for store in stores:
            check_fits(args.vision, vision, store)

        @torch.no_grad()
        def encode(frames):
            x = torch.from_numpy(frames).to(run.device)
            if frames.ndim == 4:
                x = to_float_bchw(x).contiguous(memory_format=torch.channels_last)
            mu, logvar = encode_mu_logvar(vision, x)
            return mu.cpu().numpy(), logvar.cpu().numpy()

        encoded = encode_rollouts(stores, encode, args.batch_size)
        encoded.save(run.path / "data")
        run.finish({"episodes": len(encoded), "frames": encoded.num_frames})
        return run.path / "data"


def check_fits(folder: Path, vision: Vision, store: RolloutStore) -> None:
    """Stop where a V was made for other observations than a store holds, or for other games."""
    from generative.training.run import read_result
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


if __name__ == "__main__":
    start(main, PRESETS)
