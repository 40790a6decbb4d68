"""A world model's eyes in front of any agent: z of V, and h of M, in place of frames.

    env = ActionRepeat(gymnasium.make("envs:WorldModels/CarRacing64-v0"), 3)
    env = LatentObservation(env, "pretrained/carracing-dream")       # Box (288,): z 32, h 256

An ordinary Gymnasium wrapper, so Stable-Baselines3, CleanRL and the rest learn on it unchanged. M
carries the past, so that a policy needs no memory of its own: what RecurrentPPO learns
with an LSTM, M has learned from recordings.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, SupportsFloat

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from envs.task import Preprocess, Task, action_head, preprocess_for
from generative.training.hub import find_model
from worldmodels.actions import from_env
from worldmodels.configs import ActionHead
from worldmodels.memory import Memory
from worldmodels.vision import (
    Vision,
    check_observations,
    load_vision,
    see,
)
from worldmodels.world_model import WorldModel

__all__ = ["LatentObservation", "SeenObservation", "check_environment"]

VisionSource = WorldModel | Vision | Path | str


class SeenObservation(gymnasium.ObservationWrapper):
    """Shows the input of V: 64x64 colour frames uint8, or one flat vector; no V is needed."""

    def __init__(self, env: gymnasium.Env, preprocess: Preprocess):
        super().__init__(env)
        self.preprocess = preprocess
        shape = preprocess.seen_shape
        self.observation_space = (
            spaces.Box(-np.inf, np.inf, shape)
            if preprocess.kind == "vector"
            else spaces.Box(0, 255, shape, np.uint8)
        )

    def observation(self, observation: Any) -> np.ndarray:
        """One observation, preprocessed."""
        batch, _ = self.preprocess.batch_of(np.asarray(observation))
        return self.preprocess(batch)[0]


class LatentObservation(gymnasium.Wrapper):
    """Shows V's z (its mean) of every frame, float32, with M's h behind it if asked for.

    M reads a decision when it is over, as it does in `agents.world_model_agent` and in dreams: h
    knows everything before the frame that z is of. An M that reads rewards is given its own
    estimates, as when a finished agent drives, which is told none.

    Args:
        env: what V and M were trained on, or one whose observations and actions fit them. One step
            is one decision; see `envs.action_repeat`.
        model: a `WorldModel`, a V, the folder of a V, or a folder with vision/ and memory/,
            here or by its name on the hub.
        memory: whether M's h stands behind z; if not given, where the model has an M.
        task: how observations become what V sees, and actions what M reads. If not given, a folder
            is taken at its word (its task.json, or the car race where it has an M and no such
            file), and an environment that is not the one it names is refused; without a folder
            it is chosen by the environment's spaces.
        device: where to load the model, if it is a folder.
    Raises:
        FileNotFoundError: the folder does not hold what is needed.
        ValueError: the environment is not what V and M were trained on; names both.
    """

    def __init__(
        self,
        env: gymnasium.Env,
        model: VisionSource,
        *,
        memory: bool | None = None,
        task: Task | None = None,
        device: str = "cpu",
    ):
        super().__init__(env)
        model = find_model(model)
        self.vision, found = _load(model, memory, device)
        whose = f" of {model}" if isinstance(model, str | Path) else ""
        if memory and found is None:
            raise ValueError(
                f"memory is True, but the model{whose} is a V alone; pass a world model with an M, "
                "or memory=False"
            )
        self.memory = found if memory or memory is None else None
        self._preprocess, head = _meet(env, model, task)
        name = _name(env)
        seen = self._preprocess.seen_shape
        check_observations(self.vision, seen, f"{name} shows", f"the V{whose}")
        bounds = np.full(self.vision.latent_dim, np.inf, np.float32)
        if self.memory is not None:
            mem = self.memory.config
            self._head = head or action_head(env.action_space, name)
            if self._head.size != mem.action_dim:
                raise ValueError(
                    f"{name} has the actions {env.action_space}, {self._head.size} numbers to M; "
                    f"the M{whose} was trained with {mem.action_dim}: pass the world model of this "
                    "environment, or memory=False to see by V alone"
                )
            # h ends in a tanh
            bounds = np.concatenate([bounds, np.ones(mem.hidden_dim, np.float32)])
        self.observation_space = spaces.Box(-bounds, bounds)
        self._state: tuple[Tensor, Tensor] | None = None
        self._z = self._prev_reward = torch.zeros(1)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode: M knows nothing yet."""
        obs, info = self.env.reset(seed=seed, options=options)
        if self.memory is not None:
            self._state = self.memory.initial_state(1)
            self._prev_reward = self._state[0].new_zeros(1)
        return self._look(obs), info

    def step(self, action: Any) -> tuple[np.ndarray, SupportsFloat, bool, bool, dict[str, Any]]:
        """One step of the environment; M reads it, V looks."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        if self.memory is not None:
            self._remember(self.memory, action)
        return self._look(obs), reward, terminated, truncated, info

    @torch.no_grad()
    def _remember(self, memory: Memory, action: Any) -> None:
        assert self._state is not None, "call reset() before step()"
        read = torch.from_numpy(from_env(np.asarray(action)[None], self._head)).to(self._z)
        self._state = memory.observe(self._z, read, self._state, self._prev_reward)
        reward, _ = memory.reward_and_end(self._state[0])
        if reward is not None:
            self._prev_reward = reward

    def _look(self, obs: Any) -> np.ndarray:
        batch, _ = self._preprocess.batch_of(np.asarray(obs))
        self._z, _ = see(self.vision, self._preprocess(batch))
        parts = [self._z] if self._state is None else [self._z, self._state[0]]
        return torch.cat(parts, dim=1)[0].float().cpu().numpy()


def check_environment(env: gymnasium.Env, trained: Task, model: Any) -> None:
    """Raise ValueError if an environment is not the one that a world model was trained on.

    All car races are one to it: CarRacing-v3, and this project's, whose frames are already small.
    """
    same_car = _is_car_racing(env) and trained.preprocess.kind == "car_racing"
    if not same_car and _name(env) != trained.env_id:
        raise ValueError(
            f"{model} was trained on {trained.env_id}, the environment is {_name(env)}; pass the "
            "world model of this one, or the `task` by which this one is to be seen"
        )


def _meet(
    env: gymnasium.Env, model: VisionSource, task: Task | None
) -> tuple[Preprocess, ActionHead | None]:
    """Preprocessing for V, and the action head of M; None to choose it by the space."""
    if task is None and isinstance(model, str | Path) and (Path(model) / "memory").is_dir():
        task = Task.load(model, trust=True)  # the environment is made already
        check_environment(env, task, model)
    if task is None and _is_car_racing(env):
        task = Task()
    if task is None:
        return preprocess_for(env.observation_space, _name(env)), None
    discrete = isinstance(env.action_space, spaces.Discrete)
    return task.preprocess, task.action if discrete == (task.action.kind == "discrete") else None


def _is_car_racing(env: gymnasium.Env) -> bool:
    try:
        from gymnasium.envs.box2d.car_racing import CarRacing
    except gymnasium.error.DependencyNotInstalled:
        return False
    return isinstance(env.unwrapped, CarRacing)


def _load(model: VisionSource, memory: bool | None, device: str) -> tuple[Vision, Memory | None]:
    if isinstance(model, WorldModel):
        model.eval()
        return model.vision, model.memory
    if not isinstance(model, str | Path):
        return model, None
    folder = Path(model)
    if not (folder / "vision").is_dir():
        return load_vision(folder, device=device), None
    if memory is False or (memory is None and not (folder / "memory").is_dir()):
        return load_vision(folder / "vision", device=device), None
    world = WorldModel.from_pretrained(folder, device=device)
    return world.vision, world.memory


def _name(env: gymnasium.Env) -> str:
    spec = env.spec
    return type(env.unwrapped).__name__ if spec is None else spec.id
