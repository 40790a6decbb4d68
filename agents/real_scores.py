"""Scores of many controllers on real tracks, for evolution in the real environment."""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from worldmodels.parallel import one_thread_each

__all__ = ["RealScores"]


class RealScores:
    """`scores(candidates, seeds)`: every candidate drives every track, V and M being fixed.

    Args:
        vision, memory: folders of V and M.
        action_repeat: environment steps per decision.
        workers: processes of one thread each; 0 drives in this one. Scores do not depend on it.
        env_id: an environment of 64x64 or 96x96 frames.
    """

    def __init__(
        self,
        vision: Path,
        memory: Path,
        action_repeat: int,
        workers: int = 0,
        env_id: str = "WorldModels/CarRacing64-v0",
    ):
        self._setup = (str(vision), str(memory), action_repeat, env_id)
        self._pool: Any = None
        if workers:
            with one_thread_each():
                context = multiprocessing.get_context("spawn")
                self._pool = context.Pool(workers, _set_up, self._setup)
        else:
            _set_up(*self._setup)

    def __call__(self, candidates: np.ndarray, seeds: Sequence[int]) -> np.ndarray:
        """Scores (P, len(seeds)) of candidates (P, num_parameters)."""
        tasks = [(vector, int(seed)) for vector in candidates for seed in seeds]
        drive = map if self._pool is None else self._pool.imap
        return np.array(list(drive(_drive, tasks))).reshape(len(candidates), len(seeds))

    def __enter__(self) -> RealScores:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.terminate()
            self._pool.join()


_driving: Any = None


def _set_up(vision: str, memory: str, action_repeat: int, env_id: str) -> None:
    """What a worker keeps between tasks: the agent (its controller is replaced) and the id."""
    global _driving
    import torch

    from agents.world_model_agent import AgentConfig, WorldModelAgent
    from generative.vae import ConvVAE
    from worldmodels.configs import ControllerConfig
    from worldmodels.controller import LinearController
    from worldmodels.memory import MDNRNN
    from worldmodels.world_model import WorldModel

    if multiprocessing.parent_process() is not None:
        torch.set_num_threads(1)
    world = WorldModel(ConvVAE.from_pretrained(vision), MDNRNN.from_pretrained(memory))
    sizes = ControllerConfig(world.memory.config.latent_dim, world.memory.config.hidden_dim)
    agent = WorldModelAgent(world, LinearController(sizes), AgentConfig(action_repeat))
    _driving = (agent, env_id)


def _drive(task: tuple[np.ndarray, int]) -> float:
    import gymnasium
    import torch

    vector, seed = task
    agent, env_id = _driving
    agent.controller.load_vector(torch.from_numpy(np.asarray(vector)).float())
    with contextlib.closing(gymnasium.make(env_id, disable_env_checker=True)) as env:
        obs, _ = env.reset(seed=seed)
        state, score, over = None, 0.0, False
        while not over:
            action, state = agent.predict(obs, state)
            obs, reward, terminated, truncated, _ = env.step(action)
            score += float(reward)
            over = terminated or truncated
    return score
