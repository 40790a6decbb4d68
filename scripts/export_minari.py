"""Write collected rollouts as a data set of Minari.

python scripts/export_minari.py --rollouts runs/rollouts/episodes --into runs/minari
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from generative.training.cli import Input, start
from generative.training.ranges import Checked, Folder


@dataclass(frozen=True)
class Args(Checked):
    """Write collected rollouts as a data set of Minari."""

    rollouts: Annotated[Path, Input("collect_rollouts.py")] = Path("runs/rollouts/episodes")
    """Folder of the episodes."""
    into: Folder = Path("runs/minari")
    """New folder of the data set."""
    id: str = "worldmodels/rollouts-v0"
    """Minari's name of the data set."""


DEFAULT_PRESET = "default"
PRESETS = {"default": Args(), "smoke": Args()}


def main(args: Args) -> Path:
    """Returns the folder of the data set."""
    from agents.rounds.foreign_episodes import write_minari
    from worldmodels.rollouts import RolloutStore

    folder = write_minari(RolloutStore(args.rollouts), args.into, args.id)
    print(folder)
    return folder


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
