"""Evolve a linear controller for CartPole: here, in processes, or on a Ray cluster.

python examples/evolve_cartpole.py [serial|processes|ray] [ADDRESS]
"""

import sys

import gymnasium
import numpy as np

from generative.training.parallel import ParallelConfig
from worldmodels.configs import EvaluationConfig, EvolutionConfig
from worldmodels.evolution import evolve
from worldmodels.scoring import Scoring


def episode(weights: np.ndarray, seed: int) -> float:
    """The score of a controller; the same for the same seed, wherever it runs."""
    env, score, over = gymnasium.make("CartPole-v1"), 0.0, False
    obs, _ = env.reset(seed=seed)
    while not over:
        obs, reward, terminated, truncated, _ = env.step(int(obs @ weights[:4] > weights[4]))
        score, over = score + float(reward), terminated or truncated
    return score


if __name__ == "__main__":
    backend, address = sys.argv[1:] + ["processes", "local"][len(sys.argv) - 1 :]
    parallel = ParallelConfig(backend, ray_address=address)
    with Scoring(episode, EvaluationConfig(episodes=4), parallel, seed=1) as evaluate:
        config = EvolutionConfig(popsize=16, sigma=0.5, generations=15)
        found = evolve(evaluate, np.zeros(5), config, seed=1, on_generation=lambda g, _: print(
            f"generation {g.index + 1}: mean {g.average:.1f}, best {g.best:.0f}", flush=True
        ))  # fmt: skip
        seeds = np.arange(1000, 1020)[None]
        print(f"20 new episodes: {evaluate.scores(found.mean[None], seeds).mean():.1f} of 500")
