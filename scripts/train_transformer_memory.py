"""Train M as a causal Transformer on encoded episodes."""

from __future__ import annotations

from pathlib import Path

from agents.rounds.memory import QUICK_TRANSFORMER, train_memory
from agents.rounds.memory import TransformerTraining as Args
from generative.training.cli import start
from generative.training.settings import recast
from worldmodels.configs import TransformerMemoryConfig

DEFAULT_PRESET = "quick"
PRESETS = {
    "quick": recast(Args, QUICK_TRANSFORMER),
    "smoke": Args(
        model=TransformerMemoryConfig(
            hidden_dim=16,
            num_layers=1,
            num_heads=2,
            head_dim=8,
            ff_dim=16,
            context=4,
            predict_reward=True,
            predict_end=True,
        ),
        steps=5,
        batch_size=4,
        length=8,
    ),
}


def main(args: Args) -> Path:
    """Returns the folder of the trained M."""
    return train_memory(args)


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
