"""Encode recorded frames with V: mu and logvar of every frame, beside actions and rewards."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from generative.training.cli import start
from generative.training.run import Run


@dataclass(frozen=True)
class Args:
    """Encode recorded frames with V: mu and logvar of every frame, beside actions and rewards."""

    out: Path = Path("runs/encoded")
    """Run folder; the sequences are in its `data` folder."""
    rollouts: tuple[Path, ...] = (Path("runs/rollouts/episodes"),)
    """Folders of episodes recorded by collect_rollouts.py."""
    vision: Path = Path("runs/vae/model")
    """Folder of V, of any family."""
    batch_size: int = 256
    """Frames encoded at once."""
    device: str = "auto"


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

        @torch.no_grad()
        def encode(frames):
            x = to_float_bchw(torch.from_numpy(frames).to(run.device))
            x = x.contiguous(memory_format=torch.channels_last)
            mu, logvar = encode_mu_logvar(vision, x)
            return mu.cpu().numpy(), logvar.cpu().numpy()

        stores = [RolloutStore(folder) for folder in args.rollouts]
        encoded = encode_rollouts(stores, encode, args.batch_size)
        encoded.save(run.path / "data")
        run.finish({"episodes": len(encoded), "frames": encoded.num_frames})
        return run.path / "data"


if __name__ == "__main__":
    start(main, PRESETS)
