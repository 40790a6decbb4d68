"""Scores of an agent over whole episodes of the real game, the same for any number of workers.

    agent = "pretrained/carracing-dream"
    result = evaluate(agent, EVALUATION_SEEDS, workers=2)
    print(result.mean, result.std, result.interval)

Every episode is reset with its seed, the agent acts deterministically and computes on one thread:
a score depends on agent, environment and seed alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import multiprocessing.connection
import pickle
import signal
import time
import traceback
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

import envs  # noqa: F401  registers this project's environments
from generative.training.files import read_json, write_json
from generative.training.progress import progress
from generative.training.settings import from_json
from worldmodels.collect import EpisodeError

__all__ = [
    "EVALUATION_SEEDS",
    "SELECTION_SEEDS",
    "EpisodeScore",
    "Evaluation",
    "TrainingFacts",
    "bootstrap_interval",
    "evaluate",
    "evaluate_many",
    "run_episode",
]

EVALUATION_SEEDS = range(1_000_000, 1_000_100)
"""Tracks for reporting, the first n of them for n episodes. Nothing is chosen on them."""

SELECTION_SEEDS = range(2_000_000, 2_001_000)
"""Tracks for choosing between controllers; none of them is reported on."""


@dataclass(frozen=True)
class EpisodeScore:
    """How one episode went."""

    seed: int
    score: float
    """Sum of the environment's rewards."""
    length: int
    """Environment steps."""
    tiles: float | None
    """Share of the track's tiles driven over; None where the environment has no track."""
    lap_finished: bool


@dataclass(frozen=True)
class Evaluation:
    """Scores of one agent on some tracks, in the order of the seeds asked for."""

    env_id: str
    action_repeat: int
    tracks: list[EpisodeScore]
    seconds: float = 0.0
    """Wall clock of the evaluation."""

    @property
    def scores(self) -> np.ndarray:
        """(N,) float64."""
        return np.array([track.score for track in self.tracks], np.float64)

    @property
    def mean(self) -> float:
        return float(self.scores.mean())

    @property
    def std(self) -> float:
        """Deviation of the scores themselves: divided by N, not N - 1."""
        return float(self.scores.std())

    @property
    def interval(self) -> tuple[float, float]:
        """95 % bootstrap interval of the mean; see `bootstrap_interval`."""
        return bootstrap_interval(self.scores)

    def to_json(self) -> dict[str, Any]:
        """Summary and tracks, with the names that report.json uses for the same things."""
        scores = self.scores
        return {
            "env_id": self.env_id,
            "real_mean": self.mean,
            "real_std": self.std,
            "real_interval_95": list(self.interval),
            "real_min": float(scores.min()),
            "real_median": float(np.median(scores)),
            "real_max": float(scores.max()),
            "laps_finished": sum(track.lap_finished for track in self.tracks),
            "episodes": len(scores),
            "action_repeat": self.action_repeat,
            "evaluation_seconds": self.seconds,
            "tracks": [dataclasses.asdict(track) for track in self.tracks],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Evaluation:
        """Read what `to_json` gave; the summary is computed anew.

        Raises:
            ValueError: a field is missing or of another type.
        """
        try:
            tracks = from_json(list[EpisodeScore], data["tracks"])
            return cls(data["env_id"], data["action_repeat"], tracks, data["evaluation_seconds"])
        except KeyError as error:
            raise ValueError(f"this is no evaluation: {error} is missing") from None


@dataclass(frozen=True)
class TrainingFacts:
    """What an agent was trained with, kept beside it as training.json."""

    real_frames: int
    """Real frames that V and M learned from."""
    selection_episodes: int
    """Real episodes driven to choose between finished controllers."""
    dream_steps: int
    """Decisions imagined to train C."""
    wall_seconds: float
    """From the first frame collected to the finished agent."""
    seed: int | None = None
    dream_mean: float | None = None
    """Imagined score of the chosen controller, scaled to 1,000 environment steps."""

    def save(self, agent_folder: Path | str) -> None:
        """Write `agent_folder`/training.json."""
        write_json(Path(agent_folder) / "training.json", dataclasses.asdict(self))

    @classmethod
    def load(cls, agent_folder: Path | str) -> TrainingFacts | None:
        """Read `agent_folder`/training.json; None if there is none.

        Raises:
            ValueError: the file is damaged, or a field is missing or unknown.
        """
        path = Path(agent_folder) / "training.json"
        if not path.exists():
            return None
        try:
            return from_json(cls, read_json(path))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


def bootstrap_interval(
    scores: Sequence[float] | np.ndarray,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean (Efron & Tibshirani 1993, chapter 13).

    Args:
        scores: (N,), N of at least 1.
        level: share of the resampled means inside.
        seed: of the resampling, fixed so that the same scores give the same interval.
    """
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 1 or len(scores) == 0:
        raise ValueError(f"scores have shape {scores.shape}; a bootstrap needs (N,), N >= 1")
    rng = np.random.default_rng(seed)
    means = scores[rng.integers(len(scores), size=(resamples, len(scores)))].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def run_episode(agent: Any, env: Any, seed: int, where: str = "") -> EpisodeScore:
    """Drive one whole episode.

    Args:
        agent: anything with `predict(obs, state, episode_start, deterministic)`.
        env: a Gymnasium environment that ends its episodes.
        seed: for `env.reset`.
        where: names the environment in errors.
    Raises:
        EpisodeError: an observation, action or reward is not finite; says seed and step.
    """

    def check(value: Any, what: str) -> None:
        if not np.isfinite(value).all():
            raise EpisodeError(
                f"{where or env}, seed {seed}: {what} at step {length} is not finite "
                f"({np.asarray(value).ravel()[:3]} ...)"
            )

    obs, _ = env.reset(seed=seed)
    state, start, score, length, info = None, True, 0.0, 0, {}
    check(obs, "observation")
    while True:
        action, state = agent.predict(obs, state, episode_start=start, deterministic=True)
        check(action, "action")
        obs, reward, terminated, truncated, info = env.step(action)
        length += 1
        check(obs, "observation")
        check(reward, "reward")
        score += float(reward)
        start = False
        if terminated or truncated:
            break
    track = getattr(env.unwrapped, "track", None)
    tiles = env.unwrapped.tile_visited_count / len(track) if track else None
    return EpisodeScore(seed, score, length, tiles, bool(info.get("lap_finished", False)))


def evaluate(
    agent: Any,
    seeds: Sequence[int] = EVALUATION_SEEDS,
    *,
    workers: int = 0,
    env_id: str = "CarRacing-v3",
    env_kwargs: dict[str, Any] | None = None,
) -> Evaluation:
    """Drive one episode per seed; see `evaluate_many` for the arguments."""
    return evaluate_many([agent], seeds, workers=workers, env_id=env_id, env_kwargs=env_kwargs)[0]


def evaluate_many(
    agents: Sequence[Any],
    seeds: Sequence[int],
    *,
    workers: int = 0,
    env_id: str = "CarRacing-v3",
    env_kwargs: dict[str, Any] | None = None,
) -> list[Evaluation]:
    """Drive every agent on every seed, in one set of worker processes.

    Args:
        agents: folders that WorldModelAgent.save_pretrained wrote, or objects with `predict` that
            can be pickled.
        seeds: one episode each, distinct.
        workers: processes of one thread each; 0 drives in this one. Scores do not depend on it.
        env_id, env_kwargs: for `gymnasium.make`, e.g. {"max_episode_steps": 50}.
    Returns:
        One evaluation per agent. `seconds` is that of the whole, for each of them.
    Raises:
        EpisodeError: something was not finite, an episode failed, or a worker died; says the seed.
    """
    seeds = [int(seed) for seed in seeds]
    if not agents or not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(
            f"{len(agents)} agents and {len(seeds)} seeds, {len(set(seeds))} of them distinct; "
            "pass at least one of each, and no seed twice"
        )
    gymnasium.spec(env_id)  # an unknown one is told here, not by every worker
    job = _Job([_load(agent) for agent in agents], env_id, dict(env_kwargs or {}))
    tasks = [(index, seed) for index in range(len(agents)) for seed in seeds]
    results = _in_processes(job, tasks, min(workers, len(tasks))) if workers else job.run(tasks)
    found: dict[_Task, EpisodeScore] = {}
    total, started = 0.0, time.monotonic()
    bar = progress(len(tasks), f"driving {len(tasks)} episodes of {env_id}")
    with contextlib.closing(results), bar:
        for task, score in results:
            found[task] = score
            total += score.score
            bar.advance(note=f"mean {total / len(found):.0f}")
    seconds = time.monotonic() - started
    return [
        Evaluation(env_id, job.action_repeat(i), [found[i, seed] for seed in seeds], seconds)
        for i in range(len(agents))
    ]


_Task = tuple[int, int]
"""Which agent, and the seed."""


def _load(agent: Any) -> Any:
    if not isinstance(agent, str | Path):
        return agent
    from agents.world_model_agent import WorldModelAgent

    return WorldModelAgent.from_pretrained(agent)


@dataclass(frozen=True)
class _Job:
    """What all episodes have in common."""

    agents: list[Any]
    env_id: str
    env_kwargs: dict[str, Any]

    def action_repeat(self, index: int) -> int:
        return getattr(getattr(self.agents[index], "config", None), "action_repeat", 1)

    def make_env(self) -> Any:
        return gymnasium.make(self.env_id, disable_env_checker=True, **self.env_kwargs)

    def drive(self, task: _Task, env: Any) -> EpisodeScore:
        index, seed = task
        with one_thread():
            return run_episode(self.agents[index], env, seed, self.env_id)

    def run(self, tasks: Iterable[_Task]) -> Iterator[tuple[_Task, EpisodeScore]]:
        """One episode after another in this process."""
        with contextlib.closing(self.make_env()) as env:
            for task in tasks:
                yield task, self.drive(task, env)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread, whose sums have one order, and restore its setting after."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _in_processes(
    job: _Job, tasks: Sequence[_Task], workers: int
) -> Iterator[tuple[_Task, EpisodeScore]]:
    """`job.run` in processes, which end when this one does, however that happens."""
    packed = pickle.dumps(job)
    waiting = deque(tasks)
    processes: dict[Any, Any] = {}  # our end of the pipe -> process
    running: dict[Any, _Task] = {}

    def give_task(pipe: Any) -> None:
        if waiting:
            running[pipe] = waiting.popleft()
            with contextlib.suppress(BrokenPipeError):  # a dead worker is noticed when it is heard
                pipe.send(running[pipe])

    try:
        for _ in range(workers):
            pipe, process = _start(packed)
            processes[pipe] = process
            give_task(pipe)
        while running:
            for pipe in multiprocessing.connection.wait(list(running)):
                task = running.pop(pipe)
                try:
                    score, failure = pipe.recv()
                except (EOFError, ConnectionResetError):
                    processes[pipe].join()
                    failure = (
                        f"{job.env_id}, seed {task[1]}: the worker died (exit code "
                        f"{processes[pipe].exitcode}; -9 usually means that memory ran out: try "
                        "fewer workers)"
                    )
                if failure:
                    raise EpisodeError(failure)
                give_task(pipe)
                yield task, score
    finally:
        for pipe, process in processes.items():
            pipe.close()
            process.terminate()
        for process in processes.values():
            process.join()


def _start(packed: bytes) -> tuple[Any, Any]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, packed), daemon=True)
    process.start()
    theirs.close()
    return ours, process


def _work(pipe: Any, packed: bytes) -> None:
    """A worker: tasks in, (score, failure) out, until the other end is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    job = pickle.loads(packed)
    with (
        contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError),
        contextlib.closing(job.make_env()) as env,
    ):
        while True:
            task = pipe.recv()
            score, failure = None, ""
            try:
                score = job.drive(task, env)
            except EpisodeError as error:
                failure = str(error)
            except Exception:  # whatever it is, the parent must hear of it
                failure = f"{job.env_id}, seed {task[1]}\n{traceback.format_exc()}"
            pipe.send((score, failure))
