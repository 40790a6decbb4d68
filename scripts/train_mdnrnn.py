"""Train M, the MDN-RNN, on encoded episodes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from generative.training.cli import start
from generative.training.ranges import Folder
from scripts.common.memory import MemoryArgs, train_memory
from worldmodels.configs import BOOK_MDNRNN, PAPER_MDNRNN, MDNRNNConfig, MemoryLossConfig


@dataclass(frozen=True)
class Args(MemoryArgs):
    """Train M, the MDN-RNN, on encoded episodes."""

    out: Folder = Path("runs/mdnrnn")
    """Run folder; the trained M is in its `model` folder."""
    model: MDNRNNConfig = PAPER_MDNRNN


PRESETS = {
    "paper": Args(loss=MemoryLossConfig(final_lr="paper")),
    "book": Args(model=BOOK_MDNRNN, steps=4000),
    "quick": Args(
        model=MDNRNNConfig(
            predict_reward=True, predict_end=True, residual=True, dropout=0.1, reward_scale=3.0
        ),
        loss=MemoryLossConfig(lr=2e-3, final_lr=1e-4, bf16="auto"),
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
