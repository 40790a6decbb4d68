"""A search on its own, as somebody's script would have it: SEARCH FOLDER BACKEND WORKERS [SECONDS].

Each episode takes so many seconds. At the end the folder has the mean as result.npy.
"""

import sys
from pathlib import Path

import numpy as np

from generative.training.parallel import ParallelConfig
from tests.worldmodels.problems import Logged
from worldmodels.configs import EvaluationConfig, EvolutionConfig
from worldmodels.evolution import evolve
from worldmodels.evolution_log import EvolutionLog
from worldmodels.scoring import Scoring


def main(folder: Path, backend: str, workers: int, seconds: float) -> None:
    from generative.training.signals import exit_on_signals

    calls = folder / "calls"
    calls.mkdir(parents=True, exist_ok=True)
    with (
        exit_on_signals(),
        Scoring(
            Logged(calls, seconds), EvaluationConfig(2), ParallelConfig(backend, workers), seed=1
        ) as evaluation,
        EvolutionLog(folder, tensorboard=False) as log,
    ):
        journal = log.journal(folder)
        result = evolve(evaluation, np.zeros(4), EvolutionConfig(6, 0.5, 6), 1, journal, log)
    np.save(folder / "result.npy", result.mean)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float([*sys.argv, "0"][4]))
