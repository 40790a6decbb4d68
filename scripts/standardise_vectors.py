"""Make V of an environment that shows vectors: mean and deviation of the recorded ones."""

from __future__ import annotations

from pathlib import Path

from agents.rounds.vision import VectorScaling as Args
from agents.rounds.vision import scale_vectors
from generative.training.cli import start

DEFAULT_PRESET = "vector"
PRESETS = {"vector": Args(), "smoke": Args(max_observations=100)}


def main(args: Args) -> Path:
    """Returns the folder of V."""
    return scale_vectors(args)


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
