"""A tiny training run for tests to kill: `python linear_run.py OUT STEPS [SECONDS_PER_STEP]`."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from generative.training.loop import fit
from generative.training.run import Run


@dataclass(frozen=True)
class Args:
    """Fit a line."""

    resumable_fields: ClassVar[frozenset[str]] = frozenset({"steps"})
    out: Path = Path("runs/linear")
    steps: int = 50
    seed: int = 3
    tensorboard: bool = False


class LinearLearner:
    """Least squares with noise and dropout, so that every random number matters."""

    def __init__(self, seconds_per_step: float = 0.0):
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 1))
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.05)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, T_max=50)
        self.seconds_per_step = seconds_per_step

    def update(self, batch: Tensor) -> dict[str, Tensor | float]:
        """One step on (B, 3) inputs whose target is their sum."""
        time.sleep(self.seconds_per_step)
        noisy = batch + 0.01 * torch.randn_like(batch)
        loss = (self.model(noisy) - batch.sum(1, keepdim=True)).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        return {"loss": loss, "lr": self.schedule.get_last_lr()[0]}

    def state_dict(self) -> dict:
        """Everything."""
        names = ("model", "optimizer", "schedule")
        return {name: getattr(self, name).state_dict() for name in names}

    def load_state_dict(self, state: dict) -> None:
        """Everything."""
        for name, part in state.items():
            getattr(self, name).load_state_dict(part)


LinearLearner()  # torch's optimisers import more when first used: before processes are forked


def main(out: Path, steps: int, seconds_per_step: float = 0.0) -> LinearLearner:
    """Train, and leave the weights in the run's result."""
    torch.set_num_threads(1)
    args = Args(out=out, steps=steps)
    with Run.open(args, kind="linear") as run:
        learner = LinearLearner(seconds_per_step)
        fit(
            learner,
            lambda step: torch.from_numpy(run.rng("batch", step).normal(size=(8, 3))).float(),
            run,
            steps,
            log_every=7,
            checkpoint_every_seconds=0.0 if seconds_per_step else 60.0,
            what="fitting a line",
        )
        weights = torch.cat([p.detach().flatten() for p in learner.model.parameters()])
        run.finish({"weights": [value.hex() for value in weights.double().tolist()]})
    return learner


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), *map(float, sys.argv[3:]))
