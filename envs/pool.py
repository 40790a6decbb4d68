"""Vector environment in a few processes; each steps several environments in turn.

    envs = gymnasium.make_vec("envs:WorldModels/CarRacing64-v0", num_envs=16)      # a pool
    envs = PooledVectorEnv(make_my_env, num_envs=16, workers=2)

`gymnasium.vector.AsyncVectorEnv` has one process for every environment, and so a message for every
step of each: if a step takes a tenth of a millisecond, messages take most of the time. Here a
process gets one message for all its environments, and pictures lie in shared memory.
"""

from __future__ import annotations

import itertools
import multiprocessing
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import batch_space
from gymnasium.wrappers import TimeLimit

from generative.training.parallel import (
    ParallelConfig,
    Worker,
    WorkerDiedError,
    last_words,
    portable,
)
from generative.training.platforms import count_cores
from worldmodels.actions import check_finite_actions

__all__ = ["PooledVectorEnv", "fast_car_racing_pool", "car_racing_64_pool"]


def fast_car_racing_pool(num_envs: int, **kwargs: Any) -> PooledVectorEnv:
    """Make the pool of `gymnasium.make_vec("envs:WorldModels/FastCarRacing-v0", num_envs)`."""
    from envs.car_racing import FastCarRacing

    return _car_pool(FastCarRacing, num_envs, **kwargs)


def car_racing_64_pool(num_envs: int, **kwargs: Any) -> PooledVectorEnv:
    """Make the pool of `gymnasium.make_vec("envs:WorldModels/CarRacing64-v0", num_envs)`."""
    from envs.car_racing import CarRacing64

    return _car_pool(CarRacing64, num_envs, **kwargs)


def _car_pool(
    kind: Callable[..., gymnasium.Env],
    num_envs: int,
    workers: int = 0,
    autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
    max_episode_steps: int | None = 1000,
    deadline: float = ParallelConfig.deadline,
    **kwargs: Any,
) -> PooledVectorEnv:
    make = partial(_limited, kind, max_episode_steps, kwargs)
    return PooledVectorEnv(make, num_envs, workers, autoreset_mode, deadline)


def _limited(
    kind: Callable[..., gymnasium.Env], max_episode_steps: int | None, kwargs: dict[str, Any]
) -> gymnasium.Env:
    env = kind(**kwargs)
    return env if max_episode_steps is None else TimeLimit(env, max_episode_steps)


class PooledVectorEnv(VectorEnv):
    """`num_envs` environments in `workers` processes, equal bit for bit to `SyncVectorEnv`.

    Seeds, infos, automatic resets and `reset(options={"reset_mask": mask})` are those of
    `gymnasium.vector.SyncVectorEnv`, which runs in every process. Results do not depend on the
    number of workers. The processes end with the one that started them, however that ends.

    If Ctrl-C interrupts a step or reset, some environments have made the step and others have not:
    `reset` without a mask then makes new processes, and begins as a new pool does.

    Args:
        make: makes one environment; importable in a new process. Its observations and actions are
            arrays (Box, MultiDiscrete, MultiBinary) or numbers (Discrete).
        num_envs: number of environments.
        workers: number of processes; 0 for one per core, at most `num_envs`.
        autoreset_mode: a `gymnasium.vector.AutoresetMode` or its value.
        deadline: longest duration of a step or reset in seconds; then the processes are ended.
    Raises:
        ValueError: a space is not supported, or a number is too small.
    """

    def __init__(
        self,
        make: Callable[[], gymnasium.Env],
        num_envs: int,
        workers: int = 0,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        deadline: float = ParallelConfig.deadline,
    ):
        self._workers: list[Worker] = []
        if num_envs < 1:
            raise ValueError(f"num_envs is {num_envs}; give at least 1 environment")
        if workers < 0:
            raise ValueError(f"workers is {workers}; give 1 or more, or 0 for one per core")
        if not deadline > 0:
            raise ValueError(f"deadline is {deadline}; give a number of seconds above 0")
        self._deadline = deadline
        self.num_envs, self.autoreset_mode = num_envs, AutoresetMode(autoreset_mode)
        one = make()
        self.metadata = {**one.metadata, "autoreset_mode": self.autoreset_mode}
        self.single_observation_space = one.observation_space
        self.single_action_space = one.action_space
        one.close()
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

        context = multiprocessing.get_context("spawn")
        self._shared = _Shared(context, self.observation_space, self.action_space, num_envs)
        self._seen = self._shared.arrays()
        count = min(workers or count_cores(), num_envs)
        edges = np.linspace(0, num_envs, count + 1).round().astype(int).tolist()
        self._slices = [slice(a, b) for a, b in itertools.pairwise(edges)]
        self._make = make
        self._start()

    def _start(self) -> None:
        self._in_step = True  # every environment has answered as often as every other
        try:
            for rows in self._slices:
                mode = self.autoreset_mode.value
                self._workers.append(Worker(_work, self._make, rows, self._shared, mode))
        except BaseException:
            self.close_extras()
            raise

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode in all environments, or where options["reset_mask"] (num_envs,) is True.

        Raises:
            WorkerDiedError: a process is gone, or gave no answer in time.
            RuntimeError: a step or reset was interrupted before, and this is not a whole reset.
            Exception: what an environment raised, with the process's traceback as a note.
        """
        if seed is None or isinstance(seed, int | np.integer):
            seeds = [None if seed is None else int(seed) + i for i in range(self.num_envs)]
        else:
            seeds = list(seed)
        if len(seeds) != self.num_envs:
            raise ValueError(f"got {len(seeds)} seeds for {self.num_envs} environments")
        options = dict(options or {})
        mask = options.pop("reset_mask", None)
        if mask is not None:
            mask = np.asarray(mask)
            if mask.shape != (self.num_envs,) or mask.dtype != bool or not mask.any():
                raise ValueError(
                    f"reset_mask is {mask.dtype} {mask.shape}; give bool ({self.num_envs},) with "
                    "at least one True"
                )
        if mask is None and not self._in_step and self._workers:
            self.close_extras()
            self._start()
        asked: dict[int, tuple[Any, ...]] = {}
        for place, rows in enumerate(self._slices):
            if mask is None:
                asked[place] = ("reset", seeds[rows], options)
            elif mask[rows].any():
                asked[place] = ("reset", seeds[rows], {**options, "reset_mask": mask[rows]})
        infos = self._ask(asked)
        return self._seen.obs.copy(), infos

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step all environments; actions (num_envs, ...).

        Raises:
            As `reset`, and ValueError: the actions have another shape.
        """
        actions = np.asarray(actions)
        if actions.shape != self._seen.actions.shape:
            raise ValueError(f"actions are {actions.shape}, needed {self._seen.actions.shape}")
        check_finite_actions(actions)  # before any environment has taken its step
        infos = self._ask(dict.fromkeys(range(len(self._slices)), ("step",)), actions)
        seen = self._seen
        return (
            seen.obs.copy(),
            seen.rewards.copy(),
            seen.terminated.copy(),
            seen.truncated.copy(),
            infos,
        )

    def close_extras(self, **kwargs: Any) -> None:
        """End the processes."""
        while self._workers:
            self._workers.pop().end()

    def _ask(
        self, asked: dict[int, tuple[Any, ...]], actions: np.ndarray | None = None
    ) -> dict[str, Any]:
        """Send each process its message and wait for all answers; returns the merged infos."""
        if not self._workers:
            raise gymnasium.error.ClosedEnvironmentError("these environments were closed")
        resumes = actions is not None or any("reset_mask" in m[2] for m in asked.values())
        if resumes and not self._in_step:
            raise RuntimeError(
                "a step or reset was interrupted, and some environments are a step ahead of "
                "others; call reset() without a mask"
            )
        infos: dict[str, Any] = {}
        failed: BaseException | None = None
        self._in_step = False
        if actions is not None:
            self._seen.actions[...] = actions
        for place, message in asked.items():
            try:
                self._workers[place].pipe.send(message)
            except OSError:
                failed = failed or self._death(place)
        end = time.monotonic() + self._deadline
        for place in asked:
            pipe, rows = self._workers[place].pipe, self._slices[place]
            try:
                if not pipe.poll(max(0.0, end - time.monotonic())):
                    failed = failed or WorkerDiedError(
                        f"environments {rows.start} to {rows.stop - 1} gave no answer within "
                        f"{self._deadline:g} s; their process was ended"
                    )
                    break
                answer = pipe.recv()
            except (EOFError, OSError):
                failed = failed or self._death(place)
                continue
            if isinstance(answer, Exception):
                failed = failed or answer
            elif answer:
                _merge(infos, answer, rows, self.num_envs)
        if failed is not None:
            self.close()
            raise failed from None
        self._in_step = True
        return infos

    def _death(self, place: int) -> WorkerDiedError:
        try:
            why = self._workers[place].fate()
        except WorkerDiedError as error:
            return error
        return WorkerDiedError(last_words(f"a process of the environments died ({why})", why))


@dataclass(frozen=True)
class _Arrays:
    """Inputs and outputs of a step, one row per environment."""

    obs: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray


class _Shared:
    """Memory that all processes see."""

    def __init__(self, context: Any, observations: spaces.Space, actions: spaces.Space, n: int):
        for name, space in (("observations", observations), ("actions", actions)):
            if space.shape is None or space.dtype is None:
                raise ValueError(
                    f"{name} are {space}; a pool needs arrays or numbers (Box, Discrete, "
                    "MultiDiscrete, MultiBinary): flatten them first, for example with "
                    "gymnasium.wrappers.FlattenObservation"
                )
        self._forms = {
            "obs": (observations.shape, observations.dtype),
            "actions": (actions.shape, actions.dtype),
            "rewards": ((n,), np.dtype(np.float64)),
            "terminated": ((n,), np.dtype(np.bool_)),
            "truncated": ((n,), np.dtype(np.bool_)),
        }
        self._memory = {
            name: context.RawArray("b", int(np.prod(shape)) * dtype.itemsize)
            for name, (shape, dtype) in self._forms.items()
        }

    def arrays(self, rows: slice = slice(None)) -> _Arrays:
        """The memory as arrays, or the part of it for these environments."""
        return _Arrays(
            **{
                name: np.frombuffer(self._memory[name], dtype).reshape(shape)[rows]
                for name, (shape, dtype) in self._forms.items()
            }
        )


def _work(
    pipe: Any, make: Callable[[], gymnasium.Env], rows: slice, shared: _Shared, autoreset_mode: str
) -> None:
    """Run a worker: messages in, infos or an error out, all other data in shared memory."""
    seen, envs = shared.arrays(rows), None
    while True:
        try:
            message = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            if envs is None:
                count = rows.stop - rows.start
                envs = SyncVectorEnv([make] * count, copy=False, autoreset_mode=autoreset_mode)
            if message[0] == "reset":
                obs, infos = envs.reset(seed=message[1], options=message[2])
            else:
                obs, seen.rewards[:], seen.terminated[:], seen.truncated[:], infos = envs.step(
                    seen.actions
                )
            seen.obs[...] = obs
            answer: Any = infos
        except Exception as error:
            answer = portable(error)
        pipe.send(answer)


def _merge(infos: dict[str, Any], part: dict[str, Any], rows: slice, n: int) -> None:
    """Copy the infos of some environments into those of all."""
    for key, value in part.items():
        if isinstance(value, dict):
            _merge(infos.setdefault(key, {}), value, rows, n)
            continue
        if key not in infos:
            empty = None if value.dtype == object else 0
            infos[key] = np.full((n, *value.shape[1:]), empty, value.dtype)
        infos[key][rows] = value
