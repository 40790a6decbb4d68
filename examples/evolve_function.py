"""Evolve anything: the minimum of a function of five numbers, in processes of this machine.

python examples/evolve_function.py
"""

import numpy as np

from generative.training.parallel import ParallelConfig
from worldmodels.configs import EvaluationConfig, EvolutionConfig
from worldmodels.evolution import evolve
from worldmodels.scoring import Scoring


def minus_rosenbrock(x: np.ndarray, _seed: int) -> float:
    """Scores are maximised; the maximum, 0, is at 1, 1, ..."""
    return -float((100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum())


if __name__ == "__main__":
    config = EvolutionConfig(popsize=12, sigma=0.5, generations=2000, restarts=3)
    with Scoring(minus_rosenbrock, EvaluationConfig(1), ParallelConfig("serial")) as evaluate:
        found = evolve(evaluate, np.zeros(5), config, seed=1)
    print(f"{len(found.generations)} generations ({found.reason}): {np.round(found.mean, 4)}")
