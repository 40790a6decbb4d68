"""Train V on nothing.

A script as scripts/ has them, for tests of the command line.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from generative.training.cli import start
from generative.training.run import Run


@dataclass(frozen=True)
class Model:
    """Sizes."""

    latent_dim: int = 32
    """Size of z."""
    channels: tuple[int, int] = (32, 64)
    """Feature maps."""


@dataclass(frozen=True)
class Args:
    """Train V on recorded frames.

    Frames come from collect_rollouts.py.
    """

    resumable_fields: ClassVar[frozenset[str]] = frozenset({"steps", "log_every"})
    rollouts: Path = Path("runs/rollouts")
    """Folder written by collect_rollouts.py."""
    out: Path = Path("runs/vae")
    """Folder of this run."""
    model: Model = field(default_factory=Model)
    steps: int = 100_000
    """Optimiser steps, not epochs."""
    log_every: int = 100
    """Steps between two lines of metrics."""
    where: Literal["dream", "real"] = "dream"
    """Where the controller drives."""
    clip: float | None = None
    """Largest gradient norm, or None."""
    bf16: bool = False
    """Use bfloat16."""
    seed: int = 0
    """Of everything random."""


def main(args: Args) -> None:
    """Open the run, and finish it at once."""
    with Run.open(args, kind="train_vae") as run:
        run.finish({"steps": args.steps})


PRESETS = {
    "paper": Args(),
    "quick": Args(steps=3_000, model=Model(16), bf16=True),
    "smoke": Args(
        steps=50,
        log_every=5,
        model=Model(4, (1, 1)),
        where="real",
        clip=0.25,
        bf16=True,
        seed=12345,
    ),
}

if __name__ == "__main__":
    start(main, PRESETS)
