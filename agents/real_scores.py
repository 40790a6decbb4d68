"""Scores of many controllers on real tracks, for evolution in the real environment."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from worldmodels.configs import ControllerConfig
from worldmodels.parallel import Report, Workers, one_thread

__all__ = ["RealScores"]


class RealScores:
    """`scores(candidates, seeds)`: every candidate drives every track, V and M being fixed.

    Args:
        vision, memory: folders of V and M.
        action_repeat: environment steps per decision.
        workers: processes of one thread each; 0 drives in this one. Scores do not depend on it.
        controller: what the candidates are; C of the paper on this V and M if not given.
        env_id, env_kwargs: an environment of 64x64 or 96x96 frames, for `gymnasium.make`.
    Raises:
        ValueError: V, M and C do not belong together.
    """

    def __init__(
        self,
        vision: Path,
        memory: Path,
        action_repeat: int,
        workers: int = 0,
        *,
        controller: ControllerConfig | None = None,
        env_id: str = "WorldModels/CarRacing64-v0",
        env_kwargs: dict[str, Any] | None = None,
    ):
        kwargs = tuple((env_kwargs or {}).items())
        self._setup = _Setup(str(vision), str(memory), action_repeat, controller, env_id, kwargs)
        self._agent = _load_agent(self._setup)  # what does not fit is told before workers start
        self._workers: Workers[Any, float] | None = Workers(_drive, workers) if workers else None

    def __call__(self, candidates: np.ndarray, seeds: Sequence[int]) -> np.ndarray:
        """Scores (P, len(seeds)) of candidates (P, num_parameters).

        Raises:
            EpisodeError: an observation, action or reward was not finite; says seed and step.
            WorkerDiedError: a worker was killed.
        """
        tasks = [(vector, int(seed)) for vector in candidates for seed in seeds]
        if self._workers is None:
            with one_thread():
                scores = [_score(self._agent, self._setup, *task) for task in tasks]
        else:
            scores = self._workers.run([(self._setup, *task) for task in tasks])
        return np.array(scores).reshape(len(candidates), len(seeds))

    def __enter__(self) -> RealScores:
        return self

    def __exit__(self, *_: object) -> None:
        if self._workers is not None:
            self._workers.close()


class _Setup(NamedTuple):
    """What all episodes have in common."""

    vision: str
    memory: str
    action_repeat: int
    controller: ControllerConfig | None
    env_id: str
    env_kwargs: tuple[tuple[str, Any], ...]


def _load_agent(setup: _Setup):
    """An agent whose controller is replaced from episode to episode."""
    from agents.world_model_agent import AgentConfig, WorldModelAgent
    from worldmodels.controller import LinearController
    from worldmodels.memory import MDNRNN
    from worldmodels.vision import load_vision
    from worldmodels.world_model import WorldModel

    vision, memory = load_vision(setup.vision), MDNRNN.from_pretrained(setup.memory)
    if vision.config.latent_dim != memory.config.latent_dim:
        raise ValueError(
            f"{setup.vision} holds a V with z of {vision.config.latent_dim} dimensions, the M of "
            f"{setup.memory} was trained with {memory.config.latent_dim}; pass the V that M was "
            "trained on"
        )
    sizes = ControllerConfig(memory.config.latent_dim, memory.config.hidden_dim)
    return WorldModelAgent(
        WorldModel(vision, memory),
        LinearController(setup.controller or sizes),
        AgentConfig(setup.action_repeat),
    )


_load_agent_once = functools.lru_cache(maxsize=1)(_load_agent)


def _drive(task: tuple[_Setup, np.ndarray, int], _report: Report) -> float:
    """One episode in a worker, which keeps the agent."""
    setup, vector, seed = task
    return _score(_load_agent_once(setup), setup, vector, seed)


def _score(agent: Any, setup: _Setup, vector: np.ndarray, seed: int) -> float:
    import gymnasium
    import torch

    from agents.evaluation import run_episode

    agent.controller.load_vector(torch.from_numpy(np.asarray(vector)).float())
    env = gymnasium.make(setup.env_id, disable_env_checker=True, **dict(setup.env_kwargs))
    with contextlib.closing(env):
        return run_episode(agent, env, seed, setup.env_id).score
