"""Train M, the MDN-RNN, on encoded episodes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from generative.training.cli import start
from generative.training.run import Run
from worldmodels.configs import BOOK_MDNRNN, PAPER_MDNRNN, MDNRNNConfig, MemoryLossConfig


@dataclass(frozen=True)
class Args:
    """Train M, the MDN-RNN, on encoded episodes."""

    out: Path = Path("runs/mdnrnn")
    """Run folder; the trained M is in its `model` folder."""
    encoded: tuple[Path, ...] = (Path("runs/encoded/data"),)
    """Folders written by encode_rollouts.py, all with the same V."""
    start_from: Path | None = None
    """Folder of an M to go on from; its sizes must be those of `model`."""
    model: MDNRNNConfig = PAPER_MDNRNN
    loss: MemoryLossConfig = field(default_factory=MemoryLossConfig)
    steps: int = 100_000
    """Optimiser steps."""
    batch_size: int = 100
    """Windows per step."""
    length: int = 999
    """Decisions per window; shorter episodes are padded, and padding never counts."""
    start_fraction: float = 0.3
    """Share of windows that begin where an episode begins; the others begin anywhere."""
    threads: int = 0
    """CPU threads; 0 leaves the choice to torch."""
    device: str = "auto"
    seed: int = 1


PRESETS = {
    "paper": Args(),
    "book": Args(model=BOOK_MDNRNN, steps=4000),
    "quick": Args(
        model=MDNRNNConfig(
            predict_reward=True, predict_end=True, residual=True, dropout=0.1, reward_scale=3.0
        ),
        loss=MemoryLossConfig(lr=2e-3, final_lr=1e-4, bf16=True),
        steps=800,
        batch_size=32,
        length=64,
    ),
    "smoke": Args(
        model=MDNRNNConfig(hidden_dim=16, predict_reward=True, predict_end=True),
        steps=5,
        batch_size=4,
        length=8,
    ),
}


def main(args: Args) -> Path:
    """Returns the folder of the trained M."""
    import torch

    from generative.training.loop import fit
    from worldmodels.memory import MDNRNN, MemoryLearner
    from worldmodels.sequences import EncodedRollouts, SequenceBatches

    with Run.open(args, kind="train_mdnrnn") as run:
        if run.done:
            return run.path / "model"
        if args.threads:
            torch.set_num_threads(args.threads)
        encoded = EncodedRollouts.concat([EncodedRollouts.load(folder) for folder in args.encoded])
        if encoded.z_dim != args.model.latent_dim:
            raise ValueError(
                f"{args.encoded[0]} holds z of {encoded.z_dim} dimensions, this M is to have "
                f"{args.model.latent_dim}; pass --model.latent-dim {encoded.z_dim}"
            )
        if encoded.action_dim != args.model.action_dim:
            raise ValueError(
                f"{args.encoded[0]} holds actions of {encoded.action_dim} numbers, this M is to "
                f"read {args.model.action_dim}; pass --model.action-dim {encoded.action_dim}"
            )
        windows = SequenceBatches(
            encoded,
            args.batch_size,
            args.length,
            seed=run.seed_for("windows"),
            start_fraction=args.start_fraction,
        )
        torch.manual_seed(run.seed_for("weights"))
        model = MDNRNN(args.model)
        if args.start_from is not None:
            model.continue_from(args.start_from)
        learner = MemoryLearner(model.to(run.device).train(), args.loss, args.steps)

        def batch(step: int) -> dict[str, torch.Tensor]:
            return {name: value.to(run.device) for name, value in windows(step).items()}

        fit(learner, batch, run, args.steps, what="training M")
        model.save_pretrained(run.path / "model")
        run.finish({"frames": encoded.num_frames, **run.metrics.last()})
        return run.path / "model"


if __name__ == "__main__":
    start(main, PRESETS)
