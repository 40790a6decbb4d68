"""The world model as an environment: M makes up what follows, the actions come from outside.

    env = gymnasium.make("WorldModels/CarRacingDream-v0", model="pretrained/carracing-dream")
    obs, info = env.reset(seed=1)
    obs, reward, terminated, truncated, info = env.step(env.action_space.sample())

    envs = DreamVectorEnv(64, "pretrained/carracing-dream")     # 64 dreams stepped as one batch

A step is one decision, as M was trained on it: an action held for a few frames of the real game.
Every episode begins at a moment that V and M really had in mind (`DreamStarts`) and depends on its
seed and the actions alone: info["episode_seed"] after `reset` names it, and `reset(seed=...)` with
that number dreams it again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from torch import Tensor

from envs.task import Task, action_space
from generative.training.checks import placed
from worldmodels.actions import from_env
from worldmodels.configs import ActionHead, DreamConfig
from worldmodels.dream import DreamStarts
from worldmodels.world_model import WorldModel

__all__ = ["STARTS_NAME", "DreamEnv", "DreamVectorEnv"]

STARTS_NAME = "starts.safetensors"
"""The file of a model folder that holds its `DreamStarts`."""

Model = WorldModel | Path | str
Starts = DreamStarts | Path | str | None
Observation = Literal["zh", "frames"]


class DreamEnv(gymnasium.Env):
    """One dream.

    Actions are those of the environment that M was trained on: of CarRacing, float32
    [steering -1..1, gas 0..1, brake 0..1]; a Box is clipped to its ranges. Rewards and ends are
    M's: the expected reward of a decision, and an end drawn with the probability that M gives it
    (never, if M has no end head).

    Args:
        model: a folder with vision/ and memory/, as training leaves it, or a `WorldModel` (put
            into evaluation mode).
        starts: where episodes begin, each at a row drawn at random. A `DreamStarts`, the file of
            one, or None for starts.safetensors in the model folder.
        horizon: decisions after which an episode is truncated.
        temperature: uncertainty of the dream, 0 or more.
        dropout: one dropout mask per episode over M's outputs, if M was trained with dropout.
        reward_clip: bounds of the reward of a decision; None for none.
        observation: "zh" for z and h as one float32 vector, or "frames" for the decoded
            (64, 64, 3) uint8 picture of z (where V is of vectors: the decoded vector).
        render_mode: None or "rgb_array", the decoded picture.
        task: the environment that M was trained on, or its action head; None for the task.json of
            the model folder, or CarRacing where there is none. A `WorldModel` does not tell.
        device: where to load the model, if it is a folder.
    Raises:
        FileNotFoundError: the model folder or its starts are missing.
        ValueError: the parts do not fit each other; M has no reward head; nothing tells what
            actions it was trained on.
    """

    # A decision is mostly held for three of CarRacing's 50 frames a second.
    metadata = {"render_modes": ["rgb_array"], "render_fps": 17}  # noqa: RUF012 (gymnasium's form)

    def __init__(
        self,
        model: Model,
        starts: Starts = None,
        *,
        horizon: int = 50,
        temperature: float = 1.1,
        dropout: bool = True,
        reward_clip: tuple[float, float] | None = None,
        observation: Observation = "zh",
        render_mode: str | None = None,
        device: str = "cpu",
        task: Task | ActionHead | None = None,
    ):
        config = DreamConfig(horizon, temperature, dropout, reward_clip)
        self._lanes = _Lanes(1, model, starts, config, observation, render_mode, device, task)
        self.render_mode = render_mode
        self.observation_space = self._lanes.observation_space
        self.action_space = self._lanes.action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode; info tells its seed and the row of the starts it began at."""
        super().reset(seed=seed)
        episode_seed = _next_seed(self.np_random) if seed is None else seed
        [info] = self._lanes.begin(np.array([0]), [episode_seed])
        return self._lanes.observe()[0], info

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Dream one decision.

        Raises:
            ValueError: the action does not fit the space, or is not finite.
            FloatingPointError: M gave something that is not finite; names seed and step.
        """
        reward, terminated, truncated = self._lanes.step(np.array([0]), np.asarray(action)[None])
        obs = self._lanes.observe()[0]
        return obs, float(reward[0]), bool(terminated[0]), bool(truncated[0]), {}

    def render(self) -> np.ndarray | None:
        """The picture that V makes of z, uint8 (64, 64, 3); None without a render mode."""
        return None if self.render_mode is None else self._lanes.frames()[0]


class DreamVectorEnv(VectorEnv):
    """Many dreams, stepped as one batch; lane i is what `DreamEnv` would be, up to rounding.

    Seeds, infos and automatic resets are those of `gymnasium.vector.SyncVectorEnv`: an integer
    seed s gives lane i the seed s + i; after an episode's end the next step begins another one
    (NEXT_STEP), the same step does (SAME_STEP), or nothing does (DISABLED);
    `reset(options={"reset_mask": mask})` begins anew in some lanes only.

    Args:
        num_envs: how many.
        autoreset_mode: a `gymnasium.vector.AutoresetMode` or its value.
        Others: as `DreamEnv`.
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
        observation: Observation = "zh",
        render_mode: str | None = None,
        device: str = "cpu",
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        task: Task | ActionHead | None = None,
    ):
        config = DreamConfig(horizon, temperature, dropout, reward_clip)
        self._lanes = _Lanes(
            num_envs, model, starts, config, observation, render_mode, device, task
        )
        self.num_envs, self.render_mode = num_envs, render_mode
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {**DreamEnv.metadata, "autoreset_mode": self.autoreset_mode}
        self.single_observation_space = self._lanes.observation_space
        self.single_action_space = self._lanes.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._rngs: list[np.random.Generator | None] = [None] * num_envs
        self._done = np.zeros(num_envs, bool)

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode in every lane, or in those of options["reset_mask"], (num_envs,)."""
        if seed is None or isinstance(seed, int | np.integer):
            seeds = [None if seed is None else int(seed) + i for i in range(self.num_envs)]
        else:
            seeds = list(seed)
        if len(seeds) != self.num_envs:
            raise ValueError(f"got {len(seeds)} seeds for {self.num_envs} environments")
        mask = np.ones(self.num_envs, bool)
        if options and "reset_mask" in options:
            mask = np.asarray(options["reset_mask"])
            if mask.shape != (self.num_envs,) or mask.dtype != bool or not mask.any():
                raise ValueError(
                    f"reset_mask is {mask.dtype} {mask.shape}; give bool ({self.num_envs},) with "
                    "at least one True"
                )
        self._done &= ~mask
        infos = self._begin(np.flatnonzero(mask), seeds, {})
        return self._lanes.observe(), infos

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Dream one decision in every lane; actions (num_envs, action_dim), or (num_envs,) of a
        discrete space.

        Raises:
            FloatingPointError: M gave something that is not finite; names lane, seed and step.
        """
        actions = np.asarray(actions)
        if actions.shape != self.action_space.shape:
            raise ValueError(f"actions are {actions.shape}, needed {self.action_space.shape}")
        if self.autoreset_mode is AutoresetMode.DISABLED and self._done.any():
            lane = np.flatnonzero(self._done)[0]
            raise gymnasium.error.ResetNeeded(f"the episode of lane {lane} is over; reset it")
        next_step = self.autoreset_mode is AutoresetMode.NEXT_STEP
        beginning = self._done if next_step else np.zeros(self.num_envs, bool)
        rewards = np.zeros(self.num_envs)
        terminated, truncated = np.zeros((2, self.num_envs), bool)
        lanes = np.flatnonzero(~beginning)
        if len(lanes):
            rewards[lanes], terminated[lanes], truncated[lanes] = self._lanes.step(
                lanes, actions[lanes]
            )
        infos: dict[str, Any] = {}
        self._done = terminated | truncated
        if self.autoreset_mode is AutoresetMode.SAME_STEP and self._done.any():
            final_obs = self._lanes.observe()
            for lane in np.flatnonzero(self._done).tolist():
                final = {"final_obs": final_obs[lane].copy(), "final_info": {}}
                infos = self._add_info(infos, final, lane)
            beginning = self._done
        infos = self._begin(np.flatnonzero(beginning), [None] * self.num_envs, infos)
        return self._lanes.observe(), rewards, terminated, truncated, infos

    def render(self) -> tuple[np.ndarray, ...] | None:
        """The pictures that V makes of every z, uint8 (64, 64, 3); None without a render mode."""
        return None if self.render_mode is None else tuple(self._lanes.frames())

    def _begin(
        self, lanes: np.ndarray, seeds: Sequence[int | None], infos: dict[str, Any]
    ) -> dict[str, Any]:
        """Begin episodes in these lanes; `infos` with theirs added."""
        episode_seeds = []
        for lane in lanes:
            seed, rng = seeds[lane], self._rngs[lane]
            if seed is not None or rng is None:
                rng, _ = seeding.np_random(seed)
                self._rngs[lane] = rng
            episode_seeds.append(_next_seed(rng) if seed is None else seed)
        for lane, info in zip(lanes, self._lanes.begin(lanes, episode_seeds), strict=True):
            infos = self._add_info(infos, info, lane)
        return infos


class _Lanes:
    """The dreams themselves, row by row: what an `Env` (one lane) and a `VectorEnv` share."""

    def __init__(
        self,
        num_lanes: int,
        model: Model,
        starts: Starts,
        config: DreamConfig,
        observation: Observation,
        render_mode: str | None,
        device: str,
        task: Task | ActionHead | None,
    ):
        if num_lanes < 1:
            raise ValueError(f"num_envs is {num_lanes}; it must be at least 1")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f'render_mode is {render_mode!r}; a dream has None or "rgb_array"')
        if observation not in ("zh", "frames"):
            raise ValueError(f'observation is {observation!r}; give "zh" or "frames"')
        self.starts = _find_starts(starts, model)
        self.world = (
            model
            if isinstance(model, WorldModel)
            else WorldModel.from_pretrained(model, device=device)
        )
        self.world.eval()
        self.config, self.observation = config, observation
        mem = self.world.memory.config
        if not mem.predict_reward:
            raise ValueError("this M has no reward head; train it with predict_reward=True")
        self.head = _find_head(task, model, mem.action_dim)
        self.starts.check_fits(mem)
        vectors = self.world.sees_vectors
        if vectors and render_mode is not None:
            raise ValueError("this V is of vectors, of which there is no picture: no render_mode")

        self.action_space = action_space(self.head)
        if observation == "frames" and vectors:
            self.observation_space = spaces.Box(-np.inf, np.inf, (mem.latent_dim,))
        elif observation == "frames":
            self.observation_space = spaces.Box(0, 255, (64, 64, 3), np.uint8)
        else:  # h ends in a tanh
            bounds = np.repeat(np.array([np.inf, 1], np.float32), [mem.latent_dim, mem.hidden_dim])
            self.observation_space = spaces.Box(-bounds, bounds)

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(num_lanes, *shape, **placed(self.world.memory))

        self.z, self.h, self.c = zeros(mem.latent_dim), zeros(mem.hidden_dim), zeros(mem.state_dim)
        self.prev_reward = zeros()
        self.mask = zeros(mem.hidden_dim) if config.dropout and mem.dropout else None
        self.steps = np.zeros(num_lanes, np.int64)
        self.episode_seeds: list[int | None] = [None] * num_lanes
        self.rngs: list[np.random.Generator] = [np.random.default_rng()] * num_lanes

    def begin(self, lanes: np.ndarray, episode_seeds: Sequence[int]) -> list[dict[str, Any]]:
        """Put these lanes at the beginning of the episodes of these seeds; an info for each."""
        keep, rows, masks = 1.0 - self.world.memory.config.dropout, [], []
        for lane, seed in zip(lanes, episode_seeds, strict=True):
            # A stream apart from `np_random` of the same seed, which gives the later seeds.
            rng = self.rngs[lane] = np.random.default_rng([seed, 1])
            self.episode_seeds[lane] = int(seed)
            rows.append(int(rng.integers(len(self.starts))))
            if self.mask is not None:
                masks.append((rng.random(self.mask.shape[1]) < keep) / keep)
        if rows:
            begun = torch.from_numpy(lanes).to(self.world.device)
            moments = self.starts.take(rows)
            for name in ("z", "h", "c", "prev_reward"):
                getattr(self, name)[begun] = getattr(moments, name).to(self.z)
            if self.mask is not None:
                self.mask[begun] = self._tensor(masks)
            self.steps[lanes] = 0
            self._check_finite(lanes)
        return [
            {"episode_seed": seed, "start": row}
            for seed, row in zip(episode_seeds, rows, strict=True)
        ]

    @torch.no_grad()
    def step(
        self, lanes: np.ndarray, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Dream one decision in these lanes: rewards, terminated, truncated, each (n,)."""
        if any(self.episode_seeds[lane] is None for lane in lanes):
            raise gymnasium.error.ResetNeeded("call reset() before step()")
        given = from_env(actions, self.head)
        memory, tau = self.world.memory, self.config.temperature
        shape = (memory.config.latent_dim, memory.config.num_mixtures)
        rngs = [self.rngs[lane] for lane in lanes]
        gumbel = self._tensor([rng.gumbel(size=shape) for rng in rngs])
        eps = self._tensor([rng.standard_normal(shape[0]) for rng in rngs])
        uniform = self._tensor([rng.random() for rng in rngs])

        row = torch.from_numpy(lanes).to(self.world.device)
        z, action = self.z[row], self._tensor(given)
        prev_reward, state = self.prev_reward[row], (self.h[row], self.c[row])
        _, (h, c) = memory.read(
            z.unsqueeze(1), action.unsqueeze(1), state, prev_reward.unsqueeze(1)
        )
        out = memory.heads(h if self.mask is None else h * self.mask[row], z)
        reward = out.reward
        assert reward is not None  # an M without a reward head was refused
        if self.config.reward_clip is not None:
            reward = reward.clamp(*self.config.reward_clip)
        terminated = torch.zeros_like(reward, dtype=torch.bool)
        if out.end_logit is not None:
            terminated = uniform < out.end_logit.sigmoid()
        self.z[row], self.h[row], self.c[row] = out.mixture.draw(gumbel, eps, tau), h, c
        self.prev_reward[row] = reward
        self.steps[lanes] += 1
        self._check_finite(lanes, out.end_logit)
        truncated = self.steps[lanes] >= self.config.horizon
        return reward.double().cpu().numpy(), terminated.cpu().numpy(), truncated

    def observe(self) -> np.ndarray:
        """What all lanes show now, in memory of its own."""
        if self.observation == "frames":
            return self.frames()
        return torch.cat([self.z, self.h], dim=1).float().cpu().numpy()

    def frames(self) -> np.ndarray:
        """What V makes of every z: pictures, uint8 (N, 64, 64, 3), or vectors."""
        return self.world.decode(self.z)

    def _tensor(self, values: Any) -> Tensor:
        return torch.from_numpy(np.asarray(values, np.float32)).to(self.z)

    def _check_finite(self, lanes: np.ndarray, end_logit: Tensor | None = None) -> None:
        """Stop at the first of these lanes where M gave something that is not finite.

        Args:
            end_logit: of these lanes, (n,); infinities say for certain what NaN does not say.
        """
        parts = (self.z, self.h, self.c, self.prev_reward.unsqueeze(1))
        good = torch.stack([part.isfinite().all(1) for part in parts]).all(0).cpu().numpy()[lanes]
        if end_logit is not None:
            good &= ~end_logit.isnan().cpu().numpy()
        for lane in lanes[~good]:
            raise FloatingPointError(
                f"M gave the dream of lane {lane} a z, h, reward or end that is not finite after "
                f"step {self.steps[lane]} of the episode with seed {self.episode_seeds[lane]}; "
                "lower the temperature, or train M again"
            )


def _find_starts(starts: Starts, model: Model) -> DreamStarts:
    if isinstance(starts, DreamStarts):
        return starts
    if starts is not None:
        path = Path(starts)
    elif isinstance(model, WorldModel):
        raise ValueError(
            "a dream begins at a stored real moment: pass starts, a DreamStarts as "
            "worldmodels.dream.warm_up makes it, or the file of one"
        )
    else:
        path = Path(model) / STARTS_NAME
        if not Path(model).is_dir():
            raise FileNotFoundError(f"{model}: no such folder; pass one that holds V and M")
    if not path.exists():
        raise FileNotFoundError(
            f"{path} is missing, and a dream begins at a stored real moment: pass starts, or write "
            "them there with worldmodels.dream.warm_up(memory, encoded).save(path)"
        )
    return DreamStarts.load(path)


def _find_head(task: Task | ActionHead | None, model: Model, action_dim: int) -> ActionHead:
    """What becomes of an action before M reads it: as asked for, or as the folder tells.

    An M alone does not tell: of three numbers it may have seen steering, gas and brake, or three
    torques.
    """
    if task is None:
        if isinstance(model, WorldModel):
            raise ValueError(
                f"nothing tells what actions this M of {action_dim} was trained on: pass `task`, "
                "envs.task.Task() for CarRacing, Task.of(ID) or Task.load(folder) for another "
                "environment, or a worldmodels.configs.ActionHead"
            )
        task = Task.load(model, trust=True)  # the environment itself is not made
    whose = "the action head"
    if isinstance(task, Task):
        whose, task = task.env_id, task.action
    if action_dim != task.size:
        raise ValueError(
            f"this M takes {action_dim} actions, {whose} has {task.size}; pass the `task` that M "
            "was trained on"
        )
    return task


def _next_seed(rng: np.random.Generator) -> int:
    """The seed of an episode that nobody has seeded."""
    return int(rng.integers(2**63))
