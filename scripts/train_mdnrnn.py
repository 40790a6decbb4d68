"""Train M, the MDN-RNN, on encoded episodes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from generative.training.cli import start
from scripts.common.memory import train_memory
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
    from worldmodels.memory import MDNRNN

    return train_memory(args, "train_mdnrnn", lambda: MDNRNN(args.model))


if __name__ == "__main__":
    start(main, PRESETS)
