"""Collecting episodes in parallel processes.

An episode is fixed by its `EpisodeSpec` alone, never by the process that runs it, and the episodes
are appended in the order of their specs. So the store's files are the same bytes for any number of
workers, and after any number of interruptions.
"""

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from generative.training.files import DamagedFileError
from generative.training.parallel import ParallelConfig, ProcessPool, Report, Scheduler
from generative.training.progress import progress
from worldmodels.rollouts import Episode, EpisodeRecord, RolloutStore


class EpisodeError(RuntimeError):
    """An episode went wrong; the message names environment, seed and step."""


class NotFiniteError(EpisodeError, FloatingPointError):
    """An observation, action or reward of an episode was not finite."""


@dataclass(frozen=True)
class DriverSpec:
    """Recipe of the driver of an episode, for any process that runs it.

    `factory(seed=..., **kwargs)` is called anew for every episode, so a driver may keep state. A
    factory that loads a model caches that part itself (`functools.lru_cache`).

    Args:
        factory: importable callable (a class or a module-level function).
        kwargs: anything that JSON can hold, and paths.
        key: identifies the driver in place of `kwargs` when an interrupted collection is continued
            and in the recorded info. For a model's folder, give a hash of its weights: the same
            model in another folder is then the same driver.
    """

    factory: Callable[..., Any]
    kwargs: dict[str, Any] = field(default_factory=dict)
    key: str = ""

    @property
    def name(self) -> str:
        """`module.Factory`, with the key where there is one."""
        name = f"{self.factory.__module__}.{self.factory.__qualname__}"
        return f"{name}:{self.key}" if self.key else name


@dataclass(frozen=True)
class EpisodeSpec:
    """Everything that decides an episode.

    Args:
        index: place among the specs of one collection.
        seed: for `env.reset`, and, spread by a SeedSequence, for the driver.
        env_id, env_kwargs: for `gymnasium.make`.
        driver: who drives.
        action_repeat: environment steps per decision.
        reset_options: for `env.reset`, such as {"start_tile": "random"}.
        max_decisions: stop there (counts as truncated); None leaves the end to the environment.
        max_idle: stop after this many decisions without a positive reward (counts as truncated):
            a car that has lost the road teaches little after a while. None never stops for it.
    """

    index: int
    seed: int
    env_id: str
    driver: DriverSpec
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    action_repeat: int = 1
    reset_options: dict[str, Any] = field(default_factory=dict)
    max_decisions: int | None = None
    max_idle: int | None = None

    def __post_init__(self) -> None:
        if self.action_repeat < 1 or (self.max_decisions is not None and self.max_decisions < 1):
            raise ValueError(
                f"action_repeat is {self.action_repeat} and max_decisions {self.max_decisions}; "
                "both count from 1"
            )

    def digest(self) -> str:
        """SHA-256 of the spec, recorded with the episode as info["spec"]."""
        values = dataclasses.asdict(dataclasses.replace(self, driver=self.driver.name))
        if not self.driver.key:
            values["driver_kwargs"] = self.driver.kwargs
        return hashlib.sha256(
            json.dumps(values, sort_keys=True, default=os.fspath).encode()
        ).hexdigest()


def make_episode_env(spec: EpisodeSpec) -> Any:
    """The spec's environment by `gymnasium.make`, without its checker, which costs time."""
    import gymnasium

    import envs  # noqa: F401, a worker knows our ids by it

    return gymnasium.make(spec.env_id, disable_env_checker=True, **spec.env_kwargs)


def make_driver(spec: EpisodeSpec) -> Any:
    """The spec's driver, seeded from the spec's seed but not with the same numbers as the env."""
    seed = int(np.random.SeedSequence([spec.seed, 1]).generate_state(1, np.uint64)[0] >> 1)
    return spec.driver.factory(seed=seed, **spec.driver.kwargs)


def record_episode(
    env: Any, driver: Any, spec: EpisodeSpec, report: Report = lambda n: None
) -> Episode:
    """Drives one episode and records it.

    Args:
        env: a fresh Gymnasium environment whose observations are uint8 (H, W, C) or float32 (D,)
            and whose actions are a Box, as M reads them (`envs.task.Prepared` makes one of others).
        driver: has SB3's `predict(obs, state, episode_start, deterministic) -> (action, state)`.
        report: called with 0 after every step: the environment does not hang.
    Raises:
        EpisodeError: an observation, action or reward is not finite or has the wrong shape.
    """
    frame_shape, frame_type = env.observation_space.shape, env.observation_space.dtype
    box = env.action_space
    where = f"{spec.env_id}, seed {spec.seed}"

    def check_frame(obs: Any, step: int) -> np.ndarray:
        obs = np.asarray(obs)
        if obs.shape != frame_shape or obs.dtype != frame_type:
            raise EpisodeError(
                f"{where}: observation at step {step} is {obs.dtype} {obs.shape}; "
                f"rollouts hold {frame_type} {frame_shape}"
            )
        if frame_type != np.uint8 and not np.isfinite(obs).all():
            raise NotFiniteError(f"{where}: observation at step {step} is not finite")
        return obs.copy()  # some environments draw into the same array again

    obs, reset_info = env.reset(seed=spec.seed, options=dict(spec.reset_options))
    frames = [check_frame(obs, 0)]
    actions, rewards = [], []
    state, env_steps, idle, terminated, truncated = None, 0, 0, False, False
    while not (terminated or truncated):
        action, state = driver.predict(
            frames[-1], state=state, episode_start=np.array([not actions]), deterministic=False
        )
        action = np.asarray(action, np.float32)
        if action.shape != box.shape or not np.isfinite(action).all():
            raise EpisodeError(
                f"{where}: driver {spec.driver.name} gave action {action} of shape {action.shape} "
                f"at step {env_steps}; the environment takes finite ones of shape {box.shape}"
            )
        action = np.clip(action, box.low, box.high, dtype=np.float32)
        total = 0.0
        for _ in range(spec.action_repeat):
            obs, reward, terminated, truncated, step_info = env.step(action.copy())
            env_steps += 1
            report(0)
            if not math.isfinite(reward):
                raise NotFiniteError(f"{where}: reward at step {env_steps} is {reward}, not finite")
            total += float(reward)
            if terminated or truncated:
                break
        frames.append(check_frame(obs, env_steps))
        actions.append(action)
        rewards.append(total)
        idle = 0 if total > 0 else idle + 1
        truncated = bool(truncated) or len(actions) == spec.max_decisions or idle == spec.max_idle
    ends = np.zeros(len(actions), bool)
    ends[-1] = terminated
    return Episode(
        frames=np.stack(frames),
        actions=np.stack(actions),
        rewards=np.array(rewards, np.float32),
        terminated=ends,
        info={
            **_scalars(spec.reset_options),
            **_scalars(reset_info),
            **_scalars(step_info),
            "index": spec.index,
            "seed": spec.seed,
            "env_id": spec.env_id,
            "driver": spec.driver.name,
            "action_repeat": spec.action_repeat,
            "env_steps": env_steps,
            "truncated": truncated and not terminated,
            "spec": spec.digest(),
        },
    )


def _scalars(info: dict[str, Any]) -> dict[str, Any]:
    """Plain finite values of an environment's info; arrays and objects are left out."""
    values = {k: v.item() if isinstance(v, np.generic) else v for k, v in info.items()}
    return {
        k: v
        for k, v in values.items()
        if isinstance(v, str | bool | int) or (isinstance(v, float) and math.isfinite(v))
    }


def collect(
    specs: Iterable[EpisodeSpec],
    store: RolloutStore,
    *,
    workers: int = 0,
    make_env: Callable[[EpisodeSpec], Any] = make_episode_env,
    make_driver: Callable[[EpisodeSpec], Any] = make_driver,
    stop: Callable[[], bool] = lambda: False,
    deadline: float = ParallelConfig.deadline,
) -> int:
    """Runs the episodes that the store does not hold yet; it then has them in order of their index.

    What is damaged in a store that was opened to be mended is recorded again, to the same bytes.

    Args:
        specs: of one collection, each with an index of its own.
        store: holds episodes of this collection only.
        workers: processes; 0 runs in this one. The result does not depend on it.
        make_env, make_driver: called per episode, in the worker; importable there. The environment
            is closed after its episode.
        stop: asked between episodes; true ends the collection early, to be continued later.
        deadline: seconds that a worker's environment may take for a step or a reset.
    Returns:
        Number of episodes recorded.
    Raises:
        EpisodeError: an episode failed.
        DamagedFileError: a file that its driver is made from is, or an episode was damaged, and is
            not the same when it is recorded again.
        WorkerDiedError: two workers died on an episode, or waited too long for its environment.
        ValueError: the store holds episodes of another collection.
    """
    if workers < 0:
        raise ValueError(f"workers is {workers}; give 1 or more, or 0 for this process")
    specs = sorted(specs, key=lambda spec: spec.index)
    indices = {spec.index for spec in specs}
    if len(indices) < len(specs):
        raise ValueError(f"{len(specs)} specs share {len(indices)} indices; number them apart")
    job = _Job(make_env, make_driver)
    with contextlib.ExitStack() as stack:
        store.lock()
        stack.callback(store.close)

        def run(places: list[int]) -> Iterator[tuple[EpisodeRecord, bytes]]:
            todo = [specs[place] for place in places]
            if not workers or not todo:
                return map(job, todo)
            pool = ProcessPool(job, min(workers, len(todo)))
            # A worker may die once in an episode: of memory that ran out, say.
            config = ParallelConfig(attempts=2, straggler=0.0)
            scheduler = stack.enter_context(
                Scheduler(pool, config, lambda spec: deadline, job.name, warnings.warn)
            )
            # Episodes that finish early wait in memory, so workers may not run far ahead.
            return scheduler.stream(todo, ahead=4 * workers)

        bar = stack.enter_context(progress(len(specs), "collecting episodes", done=len(store)))
        recorded = 0
        for record in store.fill([_key(spec) for spec in specs], _key_of, run, stop):
            recorded += 1
            bar.advance(note=f"return {record.total_reward:.0f}")
    return recorded


def _key(spec: EpisodeSpec) -> tuple[int, str]:
    return spec.index, spec.digest()


def _key_of(record: EpisodeRecord) -> tuple[Any, Any]:
    return record.info.get("index"), record.info.get("spec")


@dataclass(frozen=True)
class _Job:
    """Spec in, record and bytes of the episode out."""

    make_env: Callable[[EpisodeSpec], Any]
    make_driver: Callable[[EpisodeSpec], Any]

    def __call__(
        self, spec: EpisodeSpec, report: Report = lambda n: None
    ) -> tuple[EpisodeRecord, bytes]:
        try:
            with contextlib.closing(self.make_env(spec)) as env:
                episode = record_episode(env, self.make_driver(spec), spec, report)
        except (EpisodeError, DamagedFileError):
            raise  # a damaged model is not the episode's doing, and its message names the file
        except Exception as error:
            raise EpisodeError(f"{self.name(spec)}: {type(error).__name__}: {error}") from error
        data = episode.to_bytes()
        return EpisodeRecord.of(episode, data), data

    @staticmethod
    def name(spec: EpisodeSpec) -> str:
        """Name of an episode in messages."""
        return f"episode {spec.index}, {spec.env_id}, seed {spec.seed}"
