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

from envs.dream import DreamEnv, Model, Starts
from envs.task import Task
from generative.training.checks import placed
from worldmodels.actions import from_env
from worldmodels.configs import ActionHead, DreamConfig
from worldmodels.dream import DreamStarts

__all__ = ["DreamStep", "DreamVecEnv"]


class DreamStep(NamedTuple):
    """What a decision brings to N lanes, as tensors on the dream's device."""

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

    With a `pace_cap`, what a lane is paid within a stretch of `pace_window` decisions never adds up
    to more than the cap times the stretch's decisions. A decision earns by how much it raises
    min(sum of the stretch's rewards so far, cap * decisions of the stretch), so that an episode
    that is not ended by M returns exactly what `worldmodels.dream.Dream` says of it, and yet every
    decision is paid at once. (M's own input stays the uncapped reward.)

    Args:
        num_envs: lanes.
        model, starts, horizon, temperature, dropout, reward_clip, device: as
            `envs.dream.DreamEnv`.
        pace_cap: most that a decision pays on average over a stretch; None for no cap.
        pace_window: decisions of a stretch.
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
        model: Model,
        starts: Starts = None,
        *,
        horizon: int = 50,
        temperature: float = 1.1,
        dropout: bool = True,
        reward_clip: tuple[float, float] | None = None,
        pace_cap: float | None = None,
        pace_window: int = 10,
        stagger: bool = False,
        seed: int = 0,
        render_mode: str | None = None,
        device: str = "cpu",
        task: Task | ActionHead | None = None,
    ):
        if num_envs < 1:
            raise ValueError(f"num_envs is {num_envs}; it must be at least 1")
        self.config = DreamConfig(horizon, temperature, dropout, reward_clip, pace_cap, pace_window)
        # A single dream checks that all parts fit, and says what its spaces are.
        one = DreamEnv(
            model,
            starts,
            horizon=horizon,
            temperature=temperature,
            dropout=dropout,
            reward_clip=reward_clip,
            render_mode=render_mode,
            device=device,
            task=task,
        )
        self.world, self.starts = one._lanes.world, one._lanes.starts
        self.render_mode, self.stagger = render_mode, stagger
        super().__init__(num_envs, one.observation_space, one.action_space)
        self.device = self.world.device
        self.starts = DreamStarts(*(x.to(self.device) for x in vars(self.starts).values()))
        self._head, self._seed = one._lanes.head, seed
        self._generator = torch.Generator(self.device).manual_seed(seed)
        self._lanes: dict[str, Tensor] = {}
        self._waiting: Tensor | None = None

    # What a learner on the device uses.

    @torch.no_grad()
    def reset_tensors(self) -> Tensor:
        """Begin an episode in every lane; returns observations (N, latent_dim + hidden_dim).

        Raises:
            FloatingPointError: a number of the starts is not finite; says which row.
        """
        self.starts.check_finite()
        n, horizon = self.num_envs, self.config.horizon
        everywhere = torch.ones(n, dtype=torch.bool, device=self.device)
        self._lanes = self._fresh(everywhere)
        if self.stagger:
            self._lanes["age"] = torch.randint(horizon, (n,), **self._random)
        return self._observe()

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
        if not self._lanes:
            raise RuntimeError("call reset() or reset_tensors() before the first step")
        memory, tau, lanes = self.world.memory, self.config.temperature, self._lanes
        n, shape = self.num_envs, (self.num_envs, *(self.action_space.shape or ()))
        if actions.shape != shape:
            raise ValueError(f"actions are {tuple(actions.shape)}, needed {shape}")
        given = from_env(actions.detach().cpu().double().numpy(), self._head)
        z, action = lanes["z"], torch.from_numpy(given).to(lanes["z"])
        h, (_, c) = memory.read(
            z.unsqueeze(1),
            action.unsqueeze(1),
            (lanes["h"], lanes["c"]),
            lanes["prev_reward"].unsqueeze(1),
        )
        h = h[:, 0]
        out = memory.heads(h * lanes["mask"] if "mask" in lanes else h, z)
        reward = out.reward
        assert reward is not None  # DreamEnv refuses an M without a reward head
        if self.config.reward_clip is not None:
            reward = reward.clamp(*self.config.reward_clip)
        z = out.mixture.sample(tau, self._generator)
        lanes |= {"z": z, "h": h, "c": c, "prev_reward": reward}
        terminated, p_end = torch.zeros_like(reward, dtype=torch.bool), torch.zeros_like(reward)
        if out.end_logit is not None:
            p_end = out.end_logit.sigmoid()
            terminated = torch.rand(n, dtype=reward.dtype, **self._random) < p_end
        paid = self._pay(reward)
        lanes["age"] = lanes["age"] + 1
        truncated = ~terminated & (lanes["age"] >= self.config.horizon)

        final_obs = self._observe()
        self._check_finite(final_obs, reward, p_end)
        ended = terminated | truncated
        if ended.any():
            for name, fresh in self._fresh(ended).items():
                lanes[name] = lanes[name].index_copy(0, ended.nonzero()[:, 0], fresh)
            return DreamStep(self._observe(), paid, terminated, truncated, final_obs)
        return DreamStep(final_obs, paid, terminated, truncated, final_obs)

    def state_dict(self) -> dict[str, Any]:
        """All lanes and the generator, to go on exactly from here."""
        return {"lanes": dict(self._lanes), "generator": self._generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` was taken: as many lanes, on the same kind of device."""
        lanes = state["lanes"]
        if lanes and len(lanes["z"]) != self.num_envs:
            raise ValueError(f"the state is of {len(lanes['z'])} lanes, this has {self.num_envs}")
        self._lanes = {name: tensor.to(self.device) for name, tensor in lanes.items()}
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
        self._lanes = {}

    def get_images(self) -> Sequence[np.ndarray | None]:
        """The pictures that V makes of every z, uint8 (64, 64, 3)."""
        if self.render_mode is None or not self._lanes:
            return [None] * self.num_envs
        return list(self.world.decode(self._lanes["z"]))

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

    def _fresh(self, which: Tensor) -> dict[str, Tensor]:
        """Rows of lanes that begin, one for each True of `which` (N,)."""
        count, mem = int(which.sum()), self.world.memory.config
        begun = self.starts.take(torch.randint(len(self.starts), (count,), **self._random))
        dtype = placed(self.world.memory)["dtype"]
        fresh = {name: field.to(dtype) for name, field in vars(begun).items()}
        if self.config.dropout and mem.dropout:
            keep = 1.0 - mem.dropout
            kept = torch.rand(count, mem.hidden_dim, dtype=dtype, **self._random) < keep
            fresh["mask"] = kept.to(dtype) / keep
        fresh["age"] = torch.zeros(count, dtype=torch.int64, device=self.device)
        fresh["stretch"] = torch.zeros_like(fresh["prev_reward"])
        return fresh

    def _pay(self, reward: Tensor) -> Tensor:
        """What the decision earns under the pace cap; see the class."""
        cap, window = self.config.pace_cap, self.config.pace_window
        if cap is None:
            return reward.clone()  # M reads the reward again; who is paid may change it in place
        age = self._lanes["age"]
        into = age % window
        before = torch.where(into == 0, 0.0, self._lanes["stretch"])
        after = before + reward
        decisions = torch.clamp(self.config.horizon - (age - into), max=window)
        self._lanes["stretch"] = after
        return torch.minimum(after, cap * decisions) - torch.minimum(before, cap * decisions)

    def _observe(self) -> Tensor:
        return torch.cat([self._lanes["z"], self._lanes["h"]], dim=1)

    def _check_finite(self, obs: Tensor, reward: Tensor, p_end: Tensor) -> None:
        # One number tells: a sum is finite only if all its terms are.
        if not torch.isfinite(obs.sum() + reward.sum() + p_end.sum()):
            bad = ~(obs.isfinite().all(1) & reward.isfinite() & p_end.isfinite())
            if bad.any():
                lane = int(bad.nonzero()[0, 0])
                raise FloatingPointError(
                    f"M gave the dream of lane {lane} a z, h, reward or end that is not finite "
                    f"after decision {int(self._lanes['age'][lane])} of its episode; lower the "
                    "temperature, or train M again"
                )
