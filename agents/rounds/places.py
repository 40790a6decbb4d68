"""Settings of where stages run and where their files are; no result depends on them."""

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
    """Threads, device and seed of a training."""

    resumable_fields: ClassVar[frozenset[str]] = frozenset({"steps"})

    threads: Workers = 0
    """CPU threads; 0 tries one and all for a few steps, and keeps the faster."""
    device: Device = "auto"
    seed: Seed = 1


@dataclass(frozen=True)
class Episodes(Checked):
    """Folders of recorded episodes, and of the V trained on them."""

    out: Folder = Path("runs/vision")
    """Run folder; the trained V is in its `model` folder."""
    rollouts: tuple[Annotated[Path, Input("collect_rollouts.py")], ...] = (EPISODES,)
    """Folders of episodes recorded by collect_rollouts.py."""
