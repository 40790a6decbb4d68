"""The world model as an environment: M predicts the next moments, the actions come from outside.

    env = gymnasium.make("envs:WorldModels/CarRacingDream-v0", model="pretrained/carracing-dream")
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
from generative.training.hub import find_model, where_else
from worldmodels.actions import from_env
from worldmodels.configs import ActionHead, DreamConfig
from worldmodels.dreaming.noise import dropout_mask
from worldmodels.dreaming.settings import STORED, Stored, dream_config
from worldmodels.dreaming.starts import STARTS_NAME, DreamStarts
from worldmodels.dreaming.step import (
    DreamState,
    check_can_dream,
    draw_noise,
    dream_step,
    lost,
    not_finite,
)
from worldmodels.world_model import WorldModel

__all__ = ["DreamEnv", "DreamVectorEnv", "Lanes"]

WorldModelSource = WorldModel | Path | str
Starts = DreamStarts | Path | str | None
DreamObservation = Literal["zh", "frames"]


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
        pace_cap: most that a decision pays on average over `pace_window` decisions; None for no
            cap. A decision earns by how much it raises min(rewards of the stretch so far, cap *
            decisions of the stretch), so that an episode returns what
            `worldmodels.dreaming.rollout.Dream` says of it. M itself reads the uncapped reward.
        pace_window: decisions of a stretch. It and the five before are, if not given, those of
            dream.json in the model folder: of the dream in which its agent was trained. Where there
            is no such file they are those of `DreamConfig`.
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
        model: WorldModelSource,
        starts: Starts = None,
        *,
        horizon: int | Stored = STORED,
        temperature: float | Stored = STORED,
        dropout: bool | Stored = STORED,
        reward_clip: tuple[float, float] | Stored | None = STORED,
        pace_cap: float | Stored | None = STORED,
        pace_window: int | Stored = STORED,
        observation: DreamObservation = "zh",
        render_mode: str | None = None,
        device: str = "cpu",
        task: Task | ActionHead | None = None,
    ):
        given = (horizon, temperature, dropout, reward_clip, pace_cap, pace_window)
        model = find_model(model)
        config = configured(model, *given)
        self._lanes = Lanes(1, model, starts, config, observation, render_mode, device, task)
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
        model: WorldModelSource,
        starts: Starts = None,
        *,
        horizon: int | Stored = STORED,
        temperature: float | Stored = STORED,
        dropout: bool | Stored = STORED,
        reward_clip: tuple[float, float] | Stored | None = STORED,
        pace_cap: float | Stored | None = STORED,
        pace_window: int | Stored = STORED,
        observation: DreamObservation = "zh",
        render_mode: str | None = None,
        device: str = "cpu",
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        task: Task | ActionHead | None = None,
    ):
        given = (horizon, temperature, dropout, reward_clip, pace_cap, pace_window)
        model = find_model(model)
        config = configured(model, *given)
        self._lanes = Lanes(num_envs, model, starts, config, observation, render_mode, device, task)
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


def configured(
    model: WorldModelSource,
    horizon: int | Stored,
    temperature: float | Stored,
    dropout: bool | Stored,
    reward_clip: tuple[float, float] | Stored | None,
    pace_cap: float | Stored | None,
    pace_window: int | Stored,
) -> DreamConfig:
    """The settings of a dream of `model`: those given, or those of its folder."""
    folder = None if isinstance(model, WorldModel) else model
    return dream_config(
        folder,
        {
            "horizon": horizon,
            "temperature": temperature,
            "dropout": dropout,
            "reward_clip": reward_clip,
            "pace_cap": pace_cap,
            "pace_window": pace_window,
        },
    )


class Lanes:
    """The dreams themselves, row by row: what an `Env` (one lane) and a `VectorEnv` share."""

    def __init__(
        self,
        num_lanes: int,
        model: WorldModelSource,
        starts: Starts,
        config: DreamConfig,
        observation: DreamObservation,
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
        check_can_dream(mem)
        self.head = _find_head(task, model, mem.action_dim)
        self.starts.check_fits(mem)
        vectors = self.world.sees_vectors
        if vectors and render_mode is not None:
            raise ValueError("this V decodes vectors, which have no picture; leave out render_mode")

        self.action_space = action_space(self.head)
        if observation == "frames" and vectors:
            self.observation_space = spaces.Box(-np.inf, np.inf, (mem.latent_dim,))
        elif observation == "frames":
            self.observation_space = spaces.Box(0, 255, (64, 64, 3), np.uint8)
        else:  # h ends in a tanh
            bounds = np.repeat(np.array([np.inf, 1], np.float32), [mem.latent_dim, mem.hidden_dim])
            self.observation_space = spaces.Box(-bounds, bounds)

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(num_lanes, *shape, **self.world.memory.kind)

        masked = config.dropout and mem.dropout
        self.state = DreamState.at(
            zeros(mem.latent_dim),
            zeros(mem.hidden_dim),
            zeros(mem.state_dim),
            zeros(),
            zeros(mem.hidden_dim) if masked else None,
        )
        self.episode_seeds: list[int | None] = [None] * num_lanes
        self.rngs: list[np.random.Generator] = [np.random.default_rng()] * num_lanes

    def begin(self, lanes: np.ndarray, episode_seeds: Sequence[int]) -> list[dict[str, Any]]:
        """Put these lanes at the beginning of the episodes of these seeds; an info for each."""
        if not len(lanes):
            return []
        for lane, seed in zip(lanes, episode_seeds, strict=True):
            # A stream apart from `np_random` of the same seed, which gives the later seeds.
            self.rngs[lane] = np.random.default_rng([seed, 1])
            self.episode_seeds[lane] = int(seed)
        rngs, mem = [self.rngs[lane] for lane in lanes], self.world.memory.config
        kind = self.world.memory.kind
        rows = [int(rng.integers(len(self.starts))) for rng in rngs]
        moments = self.starts.take(rows)
        numbers = torch.cat([x.reshape(len(rows), -1) for x in vars(moments).values()], 1)
        for lane in lanes[~numbers.isfinite().all(1).numpy()]:
            raise self._not_finite(lane, 0)
        mask = None
        if self.state.mask is not None:
            mask = dropout_mask(len(lanes), mem.hidden_dim, mem.dropout, rngs, kind)
        begun = (field.to(**kind) for field in vars(moments).values())
        self.state = self.state.put(self._rows(lanes), DreamState.at(*begun, mask=mask))
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
        memory, rows = self.world.memory, self._rows(lanes)
        # The end's number is drawn of every M, so that seeds mean the same with and without ends.
        noise = draw_noise(memory, len(lanes), [self.rngs[lane] for lane in lanes], ends=True)
        action = torch.from_numpy(given).to(**memory.kind)
        before = self.state.map(lambda x: x[rows])
        after, outcome = dream_step(memory, before, action, noise, self.config)
        self.state = self.state.put(rows, after)
        if (found := lost(after.alive)) is not None:
            raise self._not_finite(lanes[found[0]], int(after.age[found]))
        assert outcome.paid is not None  # an M without a reward head was refused
        flags = (outcome.ended.cpu().numpy(), outcome.truncated.cpu().numpy())
        return outcome.paid.double().cpu().numpy(), *flags

    def observe(self) -> np.ndarray:
        """Observations of all lanes, in memory of their own."""
        if self.observation == "frames":
            return self.frames()
        return torch.cat([self.state.z, self.state.h], dim=1).float().cpu().numpy()

    def frames(self) -> np.ndarray:
        """V's decoding of every z: pictures, uint8 (N, 64, 64, 3), or vectors."""
        return self.world.decode(self.state.z)

    def _rows(self, lanes: np.ndarray) -> Tensor:
        return torch.from_numpy(lanes).to(self.world.device)

    def _not_finite(self, lane: int, step: int) -> FloatingPointError:
        seed = self.episode_seeds[lane]
        return not_finite(
            f"the dream of lane {lane}", f"step {step} of the episode with seed {seed}"
        )


def _find_starts(starts: Starts, model: WorldModelSource) -> DreamStarts:
    if isinstance(starts, DreamStarts):
        return starts
    if starts is not None:
        path = Path(starts)
    elif isinstance(model, WorldModel):
        raise ValueError(
            "a dream begins at a stored real moment: pass starts, a DreamStarts as "
            "worldmodels.dreaming.starts.warm_up makes it, or the file of one"
        )
    else:
        path = Path(model) / STARTS_NAME
        if not Path(model).is_dir():
            raise FileNotFoundError(
                f"{model}: no such folder; pass one that holds V and M{where_else(model)}"
            )
    if not path.exists():
        raise FileNotFoundError(
            f"{path} is missing, and a dream begins at a stored real moment: pass starts, or write "
            "them there with worldmodels.dreaming.starts.warm_up(memory, encoded).save(path)"
        )
    return DreamStarts.load(path)


def _find_head(
    task: Task | ActionHead | None, model: WorldModelSource, action_dim: int
) -> ActionHead:
    """Action head that maps an action to M's input: the one asked for, or that of the folder.

    An M alone does not determine it: three numbers may be steering, gas and brake, or three
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
