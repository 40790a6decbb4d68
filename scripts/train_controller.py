"""Train C, the linear controller: in the dream (no real reward), or on real tracks."""

from __future__ import annotations

from pathlib import Path

from agents.rounds.controller import QUICK_CONTROLLER, train_controller
from agents.rounds.controller import ControllerTraining as Args
from generative.training.cli import start
from generative.training.settings import recast
from worldmodels.configs import (
    DreamConfig,
    EvaluationConfig,
    EvolutionConfig,
    GradientConfig,
)

PRESETS = {
    "paper": Args(where="real", workers=64),
    "dream": Args(evolution=EvolutionConfig(popsize=64, generations=200)),
    "quick": recast(Args, QUICK_CONTROLLER, workers=2),
    "smoke": Args(
        evolution=EvolutionConfig(popsize=4, generations=2),
        gradient=GradientConfig(steps=2, lanes=4, check_dreams=8),
        dream=DreamConfig(horizon=5),
        evaluation=EvaluationConfig(episodes=2, candidates_per_task=2),
        test_dreams=8,
    ),
}


def main(args: Args) -> list[Path]:
    """Returns the folders of the controllers, one per search."""
    return train_controller(args)


if __name__ == "__main__":
    start(main, PRESETS)
