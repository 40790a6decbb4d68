"""Task of an agent: its environment, the observations that V sees, and the form of its actions.

    task = Task.of("LunarLander-v3")        # chosen from the spaces
    env = task.make()                       # the environment as V and M know it: `Prepared`
    task.save("runs/lander/agent")          # beside the agent; without one it drives CarRacing

Images become 64x64 colour frames, everything else that is a Box one flat float32 vector.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium import spaces

from envs.registration import register_envs
from generative.training.files import DamagedFileError, read_json, write_json
from generative.training.ranges import Checked, SizeOrZero, Sizes
from generative.training.settings import from_json, to_json
from generative.training.trust import refuse_import
from worldmodels.actions import bounds, inner_bounds, to_env
from worldmodels.configs import CAR_RACING, ActionHead

__all__ = [
    "SIZE",
    "TASK_NAME",
    "Prepared",
    "Preprocess",
    "Task",
    "action_head",
    "action_space",
    "game_name",
    "make_env",
    "preprocess_for",
]

SIZE = 64
"""Height and width of the frames that V sees."""

TASK_NAME = "task.json"
"""File name of the task in an agent's folder."""


@dataclass(frozen=True)
class Preprocess(Checked):
    """Converts an environment's observations to those V sees, (64, 64, 3) uint8 or (D,) float32."""

    kind: Literal["car_racing", "image", "vector"] = "car_racing"
    """Kind: CarRacing's frames (96x96 or 64x64); other images; or numbers of any shape."""
    shape: Sizes = (96, 96, 3)
    """Shape of an observation; for images (H, W), (H, W, 1) or (H, W, 3)."""
    crop: tuple[SizeOrZero, SizeOrZero, SizeOrZero, SizeOrZero] = (0, 0, 0, 0)
    """Pixels cropped from an image above, below, left and right, such as a score line."""
    grey: bool = False
    """Show V brightness only (three equal channels)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if math.prod(self.shape) > 2**24:
            raise ValueError(f"shape is {self.shape}; an observation has at most {2**24:,} numbers")
        if self.kind == "image":
            top, bottom, left, right = self.crop
            height, width = self.shape[0] - top - bottom, self.shape[1] - left - right
            if min(height, width) < 1:
                raise ValueError(f"crop {self.crop} leaves nothing of images of {self.shape}")

    @property
    def seen_shape(self) -> tuple[int, ...]:
        """Shape of an observation of V."""
        return (int(np.prod(self.shape)),) if self.kind == "vector" else (SIZE, SIZE, 3)

    @property
    def seen(self) -> Preprocess:
        """Preprocessing of observations that this one has already converted."""
        return Preprocess("vector" if self.kind == "vector" else "image", self.seen_shape)

    def batch_of(self, obs: np.ndarray) -> tuple[np.ndarray, bool]:
        """Convert one observation or a batch to (batch, True if it was a single one).

        Raises:
            ValueError: the shape fits neither; says what was got and what is needed.
        """
        shapes = [(96, 96, 3), (64, 64, 3)] if self.kind == "car_racing" else [self.shape]
        right_type = self.kind == "vector" or obs.dtype == np.uint8
        if not right_type or not (obs.shape in shapes or obs.shape[1:] in shapes):
            names = " or ".join(map(str, shapes))
            needed = {
                "car_racing": "uint8 (96, 96, 3) frames of CarRacing-v3 or (64, 64, 3) of "
                "CarRacing64",
                "image": f"uint8 images of {names}",
                "vector": f"numbers of shape {names}",
            }[self.kind]
            raise ValueError(
                f"got observations of shape {obs.shape} and {obs.dtype}; this agent needs {needed},"
                " or a batch"
            )
        single = obs.shape in shapes
        return (obs[None] if single else obs), single

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        """Observations (N, *shape) -> (N, 64, 64, 3) uint8 or (N, D) float32."""
        if self.kind == "vector":
            return batch.reshape(len(batch), -1).astype(np.float32)
        if self == self.seen:
            return batch
        if self.kind == "car_racing":
            from envs.car_racing import resize_frames

            return resize_frames(batch) if batch.shape[1] == 96 else batch
        images = batch[..., None] if batch.ndim == 3 else batch
        top, bottom, left, right = self.crop
        height, width = images.shape[1:3]
        images = resize_by_area(images[:, top : height - bottom, left : width - right], SIZE)
        if self.grey and images.shape[-1] == 3:
            # Rec. 601 luma, the weights of black-and-white television.
            luma = images @ np.array([0.299, 0.587, 0.114], np.float32)
            images = luma[..., None]
        images = np.floor(images + 0.5).clip(0, 255).astype(np.uint8)
        return np.repeat(images, 3, -1) if images.shape[-1] == 1 else images


def resize_by_area(images: np.ndarray, size: int) -> np.ndarray:
    """Resize (N, H, W, C) -> float32 (N, size, size, C) by means over the area of each pixel."""
    rows, columns = (_area_weights(n, size) for n in images.shape[1:3])
    count, _, width, channels = images.shape
    flat = images.reshape(count, images.shape[1], -1).astype(np.float32)
    flat = (rows @ flat).reshape(count * size, width, channels)
    return (columns @ flat).reshape(count, size, size, channels)


@functools.lru_cache(maxsize=8)
def _area_weights(length: int, size: int) -> np.ndarray:
    """Weights (size, length) of the old pixels in each new one; rows sum to 1."""
    edges = np.linspace(0, length, size + 1)
    low, high = edges[:-1, None], edges[1:, None]
    pixel = np.arange(length)
    overlap = np.minimum(high, pixel + 1) - np.maximum(low, pixel)
    return (overlap.clip(0) / (high - low)).astype(np.float32)


@dataclass(frozen=True)
class Task:
    """An environment, its preprocessing and its action head; by default the paper's car race."""

    env_id: str = "CarRacing-v3"
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    """Arguments of `gymnasium.make`; any JSON values."""
    preprocess: Preprocess = Preprocess()
    action: ActionHead = CAR_RACING

    @classmethod
    def of(cls, env_id: str, env_kwargs: Mapping[str, Any] | None = None) -> Task:
        """Choose preprocessing and action head from the spaces of an environment.

        Raises:
            ValueError: there is no such environment, or a space is not supported; says which, and
                which ones are.
        """
        kwargs = dict(env_kwargs or {})
        env = make_env(env_id, kwargs)
        try:
            from gymnasium.envs.box2d.car_racing import CarRacing
        except gymnasium.error.DependencyNotInstalled:
            is_car = False
        else:
            is_car = isinstance(env.unwrapped, CarRacing)
        try:
            head = action_head(env.action_space, env_id)
            if is_car and head.kind == "box":
                head = ActionHead("car_racing")
            if is_car:
                return cls(env_id, kwargs, Preprocess(), head)
            return cls(env_id, kwargs, preprocess_for(env.observation_space, env_id), head)
        finally:
            env.close()

    def make(self) -> Prepared:
        """Make the environment with the observations and actions of V and M."""
        return Prepared(make_env(self.env_id, self.env_kwargs), self)

    def save(self, folder: Path | str) -> None:
        """Write `folder`/task.json; the default task needs none, and an older file is removed."""
        path = Path(folder) / TASK_NAME
        if self == Task():
            path.unlink(missing_ok=True)
        else:
            write_json(path, to_json(self))

    @classmethod
    def load(cls, folder: Path | str, trust: bool = False) -> Task:
        """Read `folder`/task.json; without one, the car race.

        Args:
            trust: accept an environment whose module has to be imported; also for tasks whose
                environment will not be made.
        Raises:
            DamagedFileError: the file was not written by `save`.
            ValueError: it names a module; see `generative.training.trust`.
        """
        path = Path(folder) / TASK_NAME
        if not path.exists():
            return cls()
        try:
            task = from_json(cls, read_json(path))
        except ValueError as error:
            raise DamagedFileError(f"{path}: {error}") from error
        if not trust:  # some environments make another one, named in env_kwargs
            for name in (task.env_id, task.env_kwargs.get("env_id", "")):
                refuse_import(str(name), path)
        return task


def make_env(env_id: str, env_kwargs: Mapping[str, Any]) -> gymnasium.Env:
    """`gymnasium.make` without its checker, which costs time.

    Raises:
        ValueError: the environment cannot be made; names it, with the error that it raised.
    """
    register_envs()

    try:
        return gymnasium.make(env_id, disable_env_checker=True, **env_kwargs)
    except Exception as error:
        raise ValueError(f"{game_name(env_id, env_kwargs)} cannot be made: {error}") from error


def game_name(env_id: str, env_kwargs: Mapping[str, Any]) -> str:
    """Id of an environment and its changed arguments: "X-v0 with speed=2"."""
    spec = gymnasium.registry.get(env_id.rpartition(":")[2])
    stock = {"max_episode_steps": None}
    wrappers: list[str] = []
    if spec is not None:
        stock = {"max_episode_steps": spec.max_episode_steps, **spec.kwargs}
        wrappers = [wrapper.name for wrapper in spec.additional_wrappers]
    changed = [
        f"{name}={_short(value)}"
        for name, value in env_kwargs.items()
        if name not in stock or value not in (stock[name], None)
    ]
    return f"{env_id} with {', '.join([*changed, *wrappers])}" if changed or wrappers else env_id


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:56]} ..."


def action_head(space: spaces.Space, whose: str = "the environment") -> ActionHead:
    """Return the action head for an action space.

    Raises:
        ValueError: the space is neither Discrete nor a bounded Box of float32 or float64 with one
            axis; says which.
    """
    if isinstance(space, spaces.Discrete):
        return ActionHead("discrete", num=int(space.n), first=int(space.start))
    if isinstance(space, spaces.Box) and len(space.shape) == 1:
        if not space.is_bounded("both"):
            raise ValueError(
                f"{whose} has the actions {space}, which are not bounded; a Box needs finite "
                "bounds, to which C's outputs are scaled: wrap it so that it has "
                "(gymnasium.wrappers.ClipAction or RescaleAction)"
            )
        if space.dtype not in (np.float32, np.float64):
            raise ValueError(
                f"{whose} has the actions {space} of {space.dtype}; a Box has to take float32 or "
                "float64: make it one by a wrapper that rounds (gymnasium.ActionWrapper), or of "
                "few choices a Discrete space"
            )
        low, high = (tuple(map(float, bound)) for bound in (space.low, space.high))
        head = ActionHead("box", low=low, high=high)
        lowest, highest = inner_bounds(head)
        if (lowest >= highest).any():
            raise ValueError(
                f"{whose} has the actions {space}, between whose bounds lie no two numbers of "
                "float32; widen it by a wrapper (gymnasium.wrappers.RescaleAction)"
            )
        return head
    raise ValueError(
        f"{whose} has the actions {space}; supported are Discrete(n) and a bounded Box of one axis "
        "(make one of the others by a wrapper, e.g. one Discrete action per combination)"
    )


def action_space(head: ActionHead) -> spaces.Space:
    """Action space of an environment with this head."""
    if head.kind == "discrete":
        return spaces.Discrete(head.num, start=head.first)
    if head.kind in ("car_racing", "raw"):
        return spaces.Box(*bounds(head))
    return spaces.Box(*inner_bounds(head))


def preprocess_for(space: spaces.Space, whose: str = "the environment") -> Preprocess:
    """Return the preprocessing for an observation space: of images for uint8 (H, W[, 1 or 3]).

    Raises:
        ValueError: the space is no Box, or has images with other channels.
    """
    if not isinstance(space, spaces.Box) or not space.shape:
        raise ValueError(
            f"{whose} has the observations {space}; supported are a Box of uint8 images (H, W, 3), "
            "(H, W, 1) or (H, W), and a Box of numbers (gymnasium.wrappers.FlattenObservation "
            "makes one of Discrete, Dict and Tuple)"
        )
    shape = tuple(space.shape)
    if space.dtype != np.uint8 or len(shape) == 1:
        return Preprocess("vector", shape)
    if len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3)):
        return Preprocess("image", shape)
    raise ValueError(
        f"{whose} has uint8 observations of {shape}; images have to be (H, W, 3), (H, W, 1) or "
        "(H, W): the channels last, and one frame at a time (M remembers the earlier ones)"
    )


class Prepared(gymnasium.Wrapper):
    """Environment with the observations and actions of V and M, for collecting.

    Observations are preprocessed; actions are those that M reads (`worldmodels.actions`).
    """

    def __init__(self, env: gymnasium.Env, task: Task):
        super().__init__(env)
        self.task = task
        shape = task.preprocess.seen_shape
        self.observation_space = (
            spaces.Box(-np.inf, np.inf, shape)
            if len(shape) == 1
            else spaces.Box(0, 255, shape, np.uint8)
        )
        self.action_space = spaces.Box(*bounds(task.action))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode."""
        obs, info = self.env.reset(seed=seed, options=options)
        return self._see(obs), info

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Take one environment step; action (A,) as M reads it."""
        given = to_env(np.asarray(action)[None], self.task.action)[0]
        obs, reward, terminated, truncated, info = self.env.step(given)
        return self._see(obs), float(reward), bool(terminated), bool(truncated), info

    def _see(self, obs: Any) -> np.ndarray:
        batch, _ = self.task.preprocess.batch_of(np.asarray(obs))
        return self.task.preprocess(batch)[0]
