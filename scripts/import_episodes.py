"""Import episodes, your own .npz files or a data set of Minari or LeRobot, to train V and M."""

from __future__ import annotations

from pathlib import Path

from agents.rounds.own_episodes import Importing as Args
from agents.rounds.own_episodes import import_episodes
from generative.training.cli import start

DEFAULT_PRESET = "own"
PRESETS = {"own": Args(), "smoke": Args()}


def main(args: Args) -> Path:
    """Returns the folder of the episodes."""
    return import_episodes(args)


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
