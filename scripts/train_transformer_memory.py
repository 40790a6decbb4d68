"""Train M as a causal Transformer on encoded episodes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from generative.training.cli import start
from generative.training.ranges import Folder
from scripts.common.memory import MemoryArgs, train_memory
from worldmodels.configs import MemoryLossConfig, TransformerMemoryConfig


@dataclass(frozen=True)
class Args(MemoryArgs):
    """Train M as a causal Transformer on encoded episodes."""

    out: Folder = Path("runs/transformer_memory")
    """Run folder; the trained M is in its `model` folder."""
    model: TransformerMemoryConfig = field(default_factory=TransformerMemoryConfig)


PRESETS = {
    "quick": Args(
        model=TransformerMemoryConfig(
            predict_reward=True, predict_end=True, residual=True, dropout=0.1, reward_scale=3.0
        ),
        loss=MemoryLossConfig(lr=1e-3, final_lr=1e-4, bf16="auto"),
        steps=800,
        batch_size=32,
        length=64,
    ),
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
DEFAULT_PRESET = "quick"


def main(args: Args) -> Path:
    """Returns the folder of the trained M."""
    from worldmodels.memory.transformer import TransformerMemory

    return train_memory(args, "train_transformer_memory", lambda: TransformerMemory(args.model))


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
