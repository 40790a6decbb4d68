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
import multiprocessing
import multiprocessing.connection
import os
import signal
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Self, cast

import numpy as np

from generative.training.progress import progress
from worldmodels.rollouts import Episode, EpisodeRecord, RolloutStore

# Each worker is one of many, so its libraries must not start threads of their own.
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
)


class EpisodeError(RuntimeError):
    """An episode went wrong; the message names environment, seed and step."""


class NotFiniteError(EpisodeError, FloatingPointError):
    """An observation, action or reward of an episode was not finite."""


@dataclass(frozen=True)
class DriverSpec:
    """How to make the driver of an episode, in whichever process runs it.

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


def make_env(spec: EpisodeSpec) -> Any:
    """The spec's environment by `gymnasium.make`, without its checker, which costs time."""
    import gymnasium

    return gymnasium.make(spec.env_id, disable_env_checker=True, **spec.env_kwargs)


def make_driver(spec: EpisodeSpec) -> Any:
    """The spec's driver, seeded from the spec's seed but not with the same numbers as the env."""
    seed = int(np.random.SeedSequence([spec.seed, 1]).generate_state(1, np.uint64)[0] >> 1)
    return spec.driver.factory(seed=seed, **spec.driver.kwargs)


def run_episode(env: Any, driver: Any, spec: EpisodeSpec) -> Episode:
    """Drives one episode and records it.

    Args:
        env: a fresh Gymnasium environment with uint8 (H, W, C) observations and a Box of actions.
        driver: has SB3's `predict(obs, state, episode_start, deterministic) -> (action, state)`.
    Raises:
        EpisodeError: an observation, action or reward is not finite or has the wrong shape.
    """
    frame_shape = env.observation_space.shape
    box = env.action_space
    where = f"{spec.env_id}, seed {spec.seed}"

    def check_frame(obs: Any, step: int) -> np.ndarray:
        obs = np.asarray(obs)
        if obs.shape != frame_shape or obs.dtype != np.uint8:
            raise EpisodeError(
                f"{where}: observation at step {step} is {obs.dtype} {obs.shape}; "
                f"rollouts hold uint8 {frame_shape}"
            )
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
    """What of an environment's info is a plain finite value; arrays and objects are left out."""
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
    make_env: Callable[[EpisodeSpec], Any] = make_env,
    make_driver: Callable[[EpisodeSpec], Any] = make_driver,
    stop: Callable[[], bool] = lambda: False,
) -> int:
    """Runs the episodes that the store does not hold yet and appends them in order of their index.

    Args:
        specs: of one collection, each with an index of its own.
        store: holds episodes of this collection only.
        workers: processes; 0 runs in this one. The result does not depend on it.
        make_env, make_driver: called per episode, in the worker; importable there. The environment
            is closed after its episode.
        stop: asked between episodes; true ends the collection early, to be continued later.
    Returns:
        Number of episodes appended.
    Raises:
        EpisodeError: an episode failed, or two workers died on it.
        ValueError: the store holds episodes of another collection.
    """
    specs = list(specs)
    job = _Job(make_env, make_driver)
    with contextlib.ExitStack() as stack:
        store.lock()
        stack.callback(store.close)
        todo = _missing(specs, store)
        if workers and todo:
            pool = stack.enter_context(_Pool(job, min(workers, len(todo))))
            results = pool.run(todo)
        else:
            results = map(job, todo)
        bar = stack.enter_context(progress(len(specs), "collecting episodes", done=len(store)))
        before = len(store)
        while len(store) - before < len(todo) and not stop():
            record = store.append_encoded(*next(results))
            bar.advance(note=f"return {record.total_reward:.0f}")
    return len(store) - before


def _missing(specs: list[EpisodeSpec], store: RolloutStore) -> list[EpisodeSpec]:
    by_index = {spec.index: spec for spec in specs}
    if len(by_index) < len(specs):
        raise ValueError(f"{len(specs)} specs share {len(by_index)} indices; number them apart")
    for record in store.records:
        spec = by_index.pop(record.info.get("index", -1), None)
        if spec is None or record.info.get("spec") != spec.digest():
            raise ValueError(
                f"{store.folder / record.file} (driver {record.info.get('driver')}, seed "
                f"{record.info.get('seed')}) is not of this collection; continue with the settings "
                "it was begun with, or pass a new folder"
            )
    return [by_index[index] for index in sorted(by_index)]


@dataclass(frozen=True)
class _Job:
    """Spec in, record and bytes of the episode out."""

    make_env: Callable[[EpisodeSpec], Any]
    make_driver: Callable[[EpisodeSpec], Any]

    def __call__(self, spec: EpisodeSpec) -> tuple[EpisodeRecord, bytes]:
        with contextlib.closing(self.make_env(spec)) as env:
            episode = run_episode(env, self.make_driver(spec), spec)
        data = episode.to_bytes()
        return EpisodeRecord.of(episode, data), data


class _Pool:
    """Worker processes that give results in order and survive the death of one of them.

    multiprocessing.Pool hangs when a worker is killed, and ProcessPoolExecutor gives up without
    saying on which task; so each worker has a pipe and one task at a time.
    """

    def __init__(self, job: _Job, workers: int) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._job = job
        self._processes: dict[Any, Any] = {}  # our end of the pipe -> process
        self._num_workers = workers

    def __enter__(self) -> Self:
        try:
            for _ in range(self._num_workers):
                self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def run(self, specs: Sequence[EpisodeSpec]) -> Iterator[tuple[EpisodeRecord, bytes]]:
        """Yields the results in the order of the specs."""
        waiting = deque(range(len(specs)))
        running: dict[Any, int] = {}  # pipe -> place in specs
        done: dict[int, tuple[EpisodeRecord, bytes]] = {}
        died_on: set[int] = set()
        for wanted in range(len(specs)):
            while wanted not in done:
                # Episodes that finish early wait in memory, so workers may not run far ahead.
                ahead = wanted + 4 * self._num_workers
                for pipe in self._processes.keys() - running.keys():
                    if waiting and waiting[0] < ahead:
                        running[pipe] = waiting.popleft()
                        with contextlib.suppress(OSError):  # a dead worker; noticed as EOF below
                            pipe.send(specs[running[pipe]])
                ready = multiprocessing.connection.wait(list(running))
                for pipe in cast("list[Connection]", ready):
                    place = running.pop(pipe)
                    try:
                        result, failure = pipe.recv()
                    except (EOFError, OSError):  # OSError: it died while sending
                        self._replace(pipe, specs[place], final=place in died_on)
                        died_on.add(place)
                        waiting.appendleft(place)
                        continue
                    if failure:
                        raise EpisodeError(f"episode {specs[place].index}: {failure}")
                    done[place] = result
            yield done.pop(wanted)

    def _start(self) -> None:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_work, args=(theirs, self._job), daemon=True)
        before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
        # The libraries read them when the new process imports them.
        os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
        try:
            process.start()
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
        theirs.close()
        self._processes[ours] = process

    def _replace(self, pipe: Any, spec: EpisodeSpec, final: bool) -> None:
        process = self._processes.pop(pipe)
        pipe.close()
        process.join()
        what = f"a worker died (exit code {process.exitcode}) on episode {spec.index}"
        if final:
            raise EpisodeError(
                f"{what}, {spec.env_id}, seed {spec.seed}, the second one to do so; exit code -9 "
                "usually means that memory ran out: try fewer workers"
            )
        warnings.warn(f"{what}; running it again in a new one", stacklevel=2)
        self._start()

    def _stop(self) -> None:
        for pipe, process in self._processes.items():
            pipe.close()
            process.terminate()
        for process in self._processes.values():
            process.join()


def _work(pipe: Any, job: _Job) -> None:
    """A worker: specs in, (result, failure) out, until the other end is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    with contextlib.suppress(EOFError, OSError):
        while True:
            spec = pipe.recv()
            try:
                result, failure = job(spec), ""
            except EpisodeError as error:
                result, failure = None, str(error)
            except Exception:  # whatever it is, the parent must hear of it
                result, failure = None, f"seed {spec.seed}\n{traceback.format_exc()}"
            pipe.send((result, failure))
