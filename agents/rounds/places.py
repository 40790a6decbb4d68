"""Where stages run: settings that no stage learns anything by."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from generative.training.cli import Input
from generative.training.ranges import Checked, Device, Folder, Seed, Workers

__all__ = ["EPISODES", "Computing", "Episodes"]

EPISODES = Path("runs/rollouts/episodes")


@dataclass(frozen=True)
class Computing(Checked):
    """Where a network is trained."""

    resumable_fields: ClassVar[frozenset[str]] = frozenset({"steps"})

    threads: Workers = 0
    """CPU threads; 0 tries one and all for a few steps, and keeps what is quicker."""
    device: Device = "auto"
    seed: Seed = 1


@dataclass(frozen=True)
class Episodes(Checked):
    """Where recorded episodes are, and what is made of them."""

    out: Folder = Path("runs/vision")
    """Run folder; the trained V is in its `model` folder."""
    rollouts: tuple[Annotated[Path, Input("collect_rollouts.py")], ...] = (EPISODES,)
    """Folders of episodes recorded by collect_rollouts.py."""
