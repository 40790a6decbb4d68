"""Thousands of dreams as one Stable-Baselines3 `VecEnv`, on one device.

    env = DreamVecEnv(1024, "pretrained/carracing-dream", horizon=50, pace_cap=2.4)
    PPO("MlpPolicy", VecMonitor(env), n_steps=50, batch_size=4096).learn(5_000_000)

    obs = env.reset_tensors()                       # a learner of your own, on the same device
    obs, reward, terminated, truncated, final_obs = env.step_tensors(actions)

`envs.dream.DreamVectorEnv` has a random generator for every lane, so that each episode can be
dreamed again by its seed. Here all lanes draw from one generator on the device, and no Python runs
per lane but for the infos of those that end. What a `DreamVecEnv` shows depends on its seed, its
number of lanes and the actions; on another device, or with another number of lanes, the same seed
gives other dreams. `state_dict` holds all of it, the generator too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from envs.dream import Lanes, Starts, WorldModelSource, configured
from envs.task import Task
from generative.training.hub import find_model
from worldmodels.actions import from_env
from worldmodels.configs import ActionHead
from worldmodels.dreaming.noise import dropout_mask
from worldmodels.dreaming.settings import STORED, Stored
from worldmodels.dreaming.starts import DreamStarts
from worldmodels.dreaming.step import DreamState, draw_noise, dream_step, lost, not_finite

__all__ = ["DreamStep", "DreamVecEnv"]


KEPT = ("z", "h", "c", "prev_reward", "mask", "age", "stretch")
"""Fields of the lanes that `DreamVecEnv.state_dict` keeps."""


class DreamStep(NamedTuple):
    """Result of a decision in N lanes, as tensors on the dream's device."""

    obs: Tensor
    """(N, latent_dim + hidden_dim); where an episode has ended, the first of the next one."""
    reward: Tensor
    """(N,)."""
    terminated: Tensor
    """(N,) bool: M ended the episode."""
    truncated: Tensor
    """(N,) bool: it reached the horizon (and M did not end it with the same decision)."""
    final_obs: Tensor
    """(N, latent_dim + hidden_dim): what the decision led to, before any reset."""


class DreamVecEnv(VecEnv):
    """Dreams in M, stepped as one batch; observations are z and h.

    Args:
        num_envs: lanes.
        model, starts, horizon, temperature, dropout, reward_clip, pace_cap, pace_window, device: as
            `envs.dream.DreamEnv`.
        stagger: begin the first episodes at random ages, so that not all lanes end at once. Their
            horizons come sooner, all later episodes are whole.
        seed: of the one random generator; `seed` adds another one to it.
        render_mode: None or "rgb_array", the decoded pictures.
        task: the environment that M was trained on, as for `envs.dream.DreamEnv`.
    Raises:
        FileNotFoundError: the model folder or its starts are missing.
        ValueError: the parts do not fit each other; M has no reward head; nothing tells what
            actions it was trained on.
    """

    def __init__(
        self,
        num_envs: int,
        model: WorldModelSource,
        starts: Starts = None,
        *,
        horizon: int | Stored = STORED,
        temperature: float | Stored = STORED,
        dropout: bool | Stored = STORED,
        reward_clip: tuple[float, float] | Stored | None = STORED,
        pace_cap: float | Stored | None = STORED,
        pace_window: int | Stored = STORED,
        stagger: bool = False,
        seed: int = 0,
        render_mode: str | None = None,
        device: str = "cpu",
        task: Task | ActionHead | None = None,
    ):
        given = (horizon, temperature, dropout, reward_clip, pace_cap, pace_window)
        model = find_model(model)
        self.config = configured(model, *given)
        if num_envs < 1:
            raise ValueError(f"num_envs is {num_envs}; it must be at least 1")
        # A single lane checks that all parts fit, and says what its spaces are.
        one = Lanes(1, model, starts, self.config, "zh", render_mode, device, task)
        self.world, self.starts = one.world, one.starts
        self.render_mode, self.stagger = render_mode, stagger
        super().__init__(num_envs, one.observation_space, one.action_space)
        self.device = self.world.device
        self.starts = DreamStarts(*(x.to(self.device) for x in vars(self.starts).values()))
        self._head, self._seed = one.head, seed
        self._generator = torch.Generator(self.device).manual_seed(seed)
        self._state: DreamState | None = None
        self._waiting: Tensor | None = None

    # What a learner on the device uses.

    @torch.no_grad()
    def reset_tensors(self) -> Tensor:
        """Begin an episode in every lane; returns observations (N, latent_dim + hidden_dim).

        Raises:
            FloatingPointError: a number of the starts is not finite; says which row.
        """
        self.starts.check_finite()
        state = self._fresh(self.num_envs)
        if self.stagger:
            age = torch.randint(self.config.horizon, (self.num_envs,), **self._random)
            state = state._replace(age=age)
        self._state = state
        return self._observe(state)

    @torch.no_grad()
    def step_tensors(self, actions: Tensor) -> DreamStep:
        """Dream one decision in every lane; lanes that end begin anew.

        Args:
            actions: (N, *action shape) on any device. Box actions are clipped to their space.
        Raises:
            ValueError: the actions have another shape, are not finite, or lie outside a discrete
                space.
            FloatingPointError: M gave something that is not finite.
            RuntimeError: there was no reset yet.
        """
        if self._state is None:
            raise RuntimeError("call reset() or reset_tensors() before the first step")
        memory, state, n = self.world.memory, self._state, self.num_envs
        shape = (n, *(self.action_space.shape or ()))
        if actions.shape != shape:
            raise ValueError(f"actions are {tuple(actions.shape)}, needed {shape}")
        given = from_env(actions.detach().cpu().double().numpy(), self._head)
        action = torch.from_numpy(given).to(state.z)
        noise = draw_noise(memory, n, self._generator, memory.config.predict_end)
        state, outcome = dream_step(memory, state, action, noise, self.config)
        if (found := lost(state.alive)) is not None:
            age = int(state.age[found])
            raise not_finite(f"the dream of lane {found[0]}", f"decision {age} of its episode")
        assert outcome.paid is not None  # an M without a reward head was refused
        paid = outcome.paid.clone()  # M reads the reward again; who is paid may change it in place
        obs = final_obs = self._observe(state)
        over = outcome.ended | outcome.truncated
        if over.any():
            rows = over.nonzero()[:, 0]
            state = state.put(rows, self._fresh(len(rows)))
            obs = self._observe(state)
        self._state = state
        return DreamStep(obs, paid, outcome.ended, outcome.truncated, final_obs)

    def state_dict(self) -> dict[str, Any]:
        """All lanes and the generator, to go on exactly from here."""
        lanes = {} if self._state is None else self._state._asdict()
        kept = {name: lanes[name] for name in KEPT if lanes.get(name) is not None}
        return {"lanes": kept, "generator": self._generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` was taken: as many lanes, on the same kind of device."""
        lanes = {name: tensor.to(self.device) for name, tensor in state["lanes"].items()}
        if lanes and len(lanes["z"]) != self.num_envs:
            raise ValueError(f"the state is of {len(lanes['z'])} lanes, this has {self.num_envs}")
        self._state = None
        if lanes:
            moment = (lanes[name] for name in ("z", "h", "c", "prev_reward"))
            begun = DreamState.at(*moment, mask=lanes.get("mask"))
            self._state = begun._replace(age=lanes["age"], stretch=lanes["stretch"])
        self._generator.set_state(state["generator"])

    # Stable-Baselines3's interface.

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Seed the generator that all lanes share, beside the seed it was made with: a learner
        with a seed of its own calls this, and dreams still depend on both. Takes effect at once,
        best before a reset.
        """
        if seed is not None:
            both = np.random.SeedSequence([self._seed % 2**64, seed % 2**64])
            self._generator.manual_seed(int(both.generate_state(1, np.uint64)[0] >> 1))
        return [seed] * self.num_envs

    def reset(self) -> np.ndarray:
        self.reset_infos = [{} for _ in range(self.num_envs)]
        return self.reset_tensors().float().cpu().numpy()

    def step_async(self, actions: np.ndarray) -> None:
        self._waiting = torch.as_tensor(np.asarray(actions))

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Observations, rewards (float32), dones and infos, copied to the host once each."""
        assert self._waiting is not None, "call step_async first"
        step = self.step_tensors(self._waiting)
        obs, reward = step.obs.float().cpu().numpy(), step.reward.float().cpu().numpy()
        truncated = step.truncated.cpu().numpy()
        done = step.terminated.cpu().numpy() | truncated
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        if done.any():
            rows = np.flatnonzero(done)
            final = step.final_obs[torch.from_numpy(rows).to(self.device)].float().cpu().numpy()
            for row, last in zip(rows.tolist(), final, strict=True):
                infos[row] = {
                    "terminal_observation": last,
                    "TimeLimit.truncated": bool(truncated[row]),
                }
        # On the CPU a tensor's array shares its memory, and lanes are replaced, never overwritten.
        return obs, reward, done, infos

    def close(self) -> None:
        self._state = None

    def get_images(self) -> Sequence[np.ndarray | None]:
        """The pictures that V makes of every z, uint8 (64, 64, 3)."""
        if self.render_mode is None or self._state is None:
            return [None] * self.num_envs
        return list(self.world.decode(self._state.z))

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """The attribute of this object, once per lane asked for: lanes are rows, not objects."""
        return [getattr(self, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Refused: always raises AttributeError."""
        raise AttributeError(
            f"set_attr({attr_name!r}): the lanes of a DreamVecEnv have no attributes of their own; "
            "build another one with the setting you want"
        )

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> Any:
        """Refused: always raises AttributeError."""
        raise AttributeError(
            f"env_method({method_name!r}): the lanes of a DreamVecEnv are rows of one batch and "
            "have no methods of their own"
        )

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        """Never: wrappers are around the whole."""
        return [False for _ in self._get_indices(indices)]

    # Pieces.

    @property
    def _random(self) -> dict[str, Any]:
        return {"generator": self._generator, "device": self.device}

    def _fresh(self, count: int) -> DreamState:
        """This many lanes that begin."""
        memory, mem = self.world.memory, self.world.memory.config
        begun = self.starts.take(torch.randint(len(self.starts), (count,), **self._random))
        mask = None
        if self.config.dropout and mem.dropout:
            mask = dropout_mask(count, mem.hidden_dim, mem.dropout, self._generator, memory.kind)
        return DreamState.at(*(x.to(memory.kind["dtype"]) for x in vars(begun).values()), mask=mask)

    def _observe(self, state: DreamState) -> Tensor:
        return torch.cat([state.z, state.h], dim=1)
