"""Train M, the MDN-RNN, on encoded episodes."""

from __future__ import annotations

from pathlib import Path

from agents.rounds.memory import QUICK_MDNRNN, train_memory
from agents.rounds.memory import MDNRNNTraining as Args
from generative.training.cli import start
from generative.training.settings import recast
from worldmodels.configs import BOOK_MDNRNN, MDNRNNConfig, MemoryLossConfig

PRESETS = {
    "paper": Args(loss=MemoryLossConfig(final_lr="paper")),
    "book": Args(model=BOOK_MDNRNN, steps=4000),
    "quick": recast(Args, QUICK_MDNRNN),
    "smoke": Args(
        model=MDNRNNConfig(hidden_dim=16, predict_reward=True, predict_end=True),
        steps=5,
        batch_size=4,
        length=8,
    ),
}


def main(args: Args) -> Path:
    """Returns the folder of the trained M."""
    return train_memory(args)


if __name__ == "__main__":
    start(main, PRESETS)
