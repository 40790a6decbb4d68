"""Controllers scored on real tracks, for evolution in the real environment."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from envs.task import Task, make_env
from worldmodels.configs import ControllerConfig
from worldmodels.scoring import Scores

__all__ = ["RealTracks"]


class RealTracks:
    """`tracks(candidate, seed)`: the score of a controller on a track, V and M being fixed.

    A problem for `worldmodels.scoring.Scoring`. What is sent to workers are the names of the
    folders; each loads V and M when it is first called.

    Args:
        vision, memory: folders of V and M.
        action_repeat: environment steps per decision.
        controller: what the candidates are; C of the paper on this V and M if not given.
        env_id, env_kwargs: the environment, for `gymnasium.make`.
        task: what of it V sees and how actions reach it; CarRacing's if not given.
    Raises:
        ValueError: V, M and C do not belong together.
    """

    def __init__(
        self,
        vision: Path,
        memory: Path,
        action_repeat: int,
        *,
        controller: ControllerConfig | None = None,
        env_id: str = "WorldModels/CarRacing64-v0",
        env_kwargs: Mapping[str, Any] = MappingProxyType({}),
        task: Task | None = None,
    ):
        self._names = vision, memory
        self._folders = Path(vision).absolute(), Path(memory).absolute()
        self._action_repeat, self._controller = action_repeat, controller
        self._env_id, self._env_kwargs = env_id, dict(env_kwargs)
        self._task = task or Task()
        self._agent = self._load()  # what does not fit is told before workers start

    def __call__(self, candidate: np.ndarray, seed: int) -> Scores:
        """Drive one episode.

        Args:
            candidate: (num_parameters,).
            seed: of the track.
        Raises:
            NotFiniteError, EpisodeError: see `agents.evaluation.run_episode`.
        """
        import torch

        from agents.evaluation import run_episode

        self._agent = self._agent or self._load()
        self._agent.controller.load_vector(torch.from_numpy(np.asarray(candidate)).float())
        with contextlib.closing(make_env(self._env_id, self._env_kwargs)) as env:
            episode = run_episode(self._agent, env, seed, self._env_id)
        return Scores(episode.score, episode.length)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_agent": None}

    def _load(self) -> Any:
        """An agent whose controller is replaced from episode to episode."""
        from agents.world_model_agent import AgentConfig, WorldModelAgent
        from worldmodels.controller import LinearController
        from worldmodels.memory import load_memory
        from worldmodels.vision import load_vision
        from worldmodels.world_model import WorldModel

        vision, memory = load_vision(self._folders[0]), load_memory(self._folders[1])
        if vision.latent_dim != memory.config.latent_dim:
            raise ValueError(
                f"{self._names[0]} holds a V with z of {vision.latent_dim} dimensions, the "
                f"M of {self._names[1]} was trained with {memory.config.latent_dim}; pass the V "
                "that M was trained on"
            )
        sizes = ControllerConfig(
            memory.config.latent_dim,
            memory.config.hidden_dim,
            self._task.action.size,
            action=self._task.action,
        )
        return WorldModelAgent(
            WorldModel(vision, memory),
            LinearController(self._controller or sizes),
            AgentConfig(self._action_repeat),
            task=self._task,
        )
