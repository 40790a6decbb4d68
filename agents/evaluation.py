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
import importlib
import pickle
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

import envs  # noqa: F401  registers this project's environments
from agents.collect import EpisodeError, NotFiniteError
from agents.lanes import play_in_lanes
from envs.task import Task, game_name, make_env
from generative.training.files import read_json, write_json
from generative.training.parallel import ParallelConfig, Report, run_jobs
from generative.training.settings import from_json
from worldmodels.actions import NotFiniteActionError

__all__ = [
    "EVALUATION_SEEDS",
    "SELECTION_SEEDS",
    "EpisodeScore",
    "Evaluation",
    "TrainingFacts",
    "bootstrap_interval",
    "episode_score",
    "evaluate",
    "evaluate_many",
    "random_scores",
    "run_episode",
    "undrawn",
]

EVALUATION_SEEDS = range(1_000_000, 1_000_100)
"""Seeds of the tracks for reporting; n episodes use the first n. Nothing is selected on them."""

SELECTION_SEEDS = range(2_000_000, 2_010_000)
"""Seeds of the tracks for selecting controllers; none of them is reported on."""


@dataclass(frozen=True)
class EpisodeScore:
    """Score and length of one episode."""

    seed: int
    score: float
    """Sum of the environment's rewards."""
    length: int
    """Environment steps."""
    tiles: float | None
    """Share of the track's tiles visited; None if the environment has no track."""
    lap_finished: bool


@dataclass(frozen=True)
class Evaluation:
    """Scores of one agent on some tracks, in the order of the seeds."""

    env_id: str
    action_repeat: int
    tracks: list[EpisodeScore]
    seconds: float = 0.0
    """Wall-clock time of the evaluation."""
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    """Arguments of `gymnasium.make`."""

    @property
    def game(self) -> str:
        """Name of the game: the environment's id, with its changed arguments."""
        return game_name(self.env_id, self.env_kwargs)

    @property
    def scores(self) -> np.ndarray:
        """Scores of the episodes, (N,) float64."""
        return np.array([track.score for track in self.tracks], np.float64)

    @property
    def mean(self) -> float:
        return float(self.scores.mean())

    @property
    def std(self) -> float:
        """Standard deviation of the scores, with division by N, not N - 1."""
        return float(self.scores.std())

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the mean; see `bootstrap_interval`."""
        return bootstrap_interval(self.scores)

    def to_json(self) -> dict[str, Any]:
        """Summary and tracks, with the field names of report.json."""
        scores = self.scores
        return {
            "env_id": self.env_id,
            "env_kwargs": self.env_kwargs,
            "game": self.game,
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
        """Read the output of `to_json`; the summary is recomputed.

        Raises:
            ValueError: a field is missing or of another type.
        """
        try:
            tracks = from_json(list[EpisodeScore], data["tracks"])
            kwargs = from_json(dict[str, Any], data.get("env_kwargs", {}))  # older ones lack it
            seconds = data["evaluation_seconds"]
            return cls(data["env_id"], data["action_repeat"], tracks, seconds, kwargs)
        except KeyError as error:
            raise ValueError(f"this is no evaluation: {error} is missing") from None


@dataclass(frozen=True)
class TrainingFacts:
    """Amounts of data and time that trained an agent, saved beside it as training.json."""

    real_frames: int
    """Real frames in the training of V and M."""
    selection_episodes: int
    """Real episodes used to select among finished controllers."""
    dream_steps: int
    """Dreamed decisions in the training of C."""
    wall_seconds: float
    """Seconds from the first collected frame to the finished agent."""
    seed: int | None = None
    dream_mean: float | None = None
    """Dreamed score of the selected controller, scaled to 1,000 environment steps."""

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


LEAST_STD = 0.3
"""Smallest standard deviation of a resample, as a share of the sample's."""


def bootstrap_interval(
    scores: Sequence[float] | np.ndarray,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> tuple[float, float]:
    """Studentised bootstrap interval of the mean (Efron & Tibshirani 1993, section 12.5).

    Scores of 20 episodes are few and skewed: many near the best, some far below. An interval from
    percentiles of resampled means then covers the mean in 87 to 91.5 of 100 cases instead of 95. An
    interval from means in units of their own resample's deviation, as here, covers it in 93 to 96,
    fewer with a heavier tail.

    Args:
        scores: (N,), N at least 1; a single score gives an interval of no width.
        level: share of the cases in which the interval should cover the mean.
        seed: seed of the resampling, fixed so that the same scores give the same interval.
    """
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 1 or len(scores) == 0:
        raise ValueError(f"scores have shape {scores.shape}; a bootstrap needs (N,), N >= 1")
    mean = float(scores.mean())
    if len(scores) == 1:
        return mean, mean
    rng, std = np.random.default_rng(seed), scores.std(ddof=1)
    drawn = scores[rng.integers(len(scores), size=(resamples, len(scores)))]
    # A resample may miss all of the few scores that differ, and have almost no deviation.
    least = max(LEAST_STD * std, np.finfo(np.float64).tiny)
    t = (drawn.mean(axis=1) - mean) / np.maximum(drawn.std(axis=1, ddof=1), least)
    low, high = np.quantile(t, [(1 - level) / 2, (1 + level) / 2])
    return float(mean - high * std), float(mean - low * std)


def run_episode(
    agent: Any,
    env: Any,
    seed: int,
    where: str = "",
    sampled: bool = False,
    report: Report = lambda n: None,
) -> EpisodeScore:
    """Drive one whole episode.

    CarRacing skips the drawing of frames that the agent ignores because it still holds its last
    action. The stock game uses frames for nothing but to return them.

    Args:
        agent: anything with `predict(obs, state, episode_start, deterministic)`.
        env: a Gymnasium environment that ends its episodes.
        seed: seed of `env.reset`.
        where: names the environment in errors.
        sampled: the agent draws its actions (by torch's global generator).
        report: called with 0 after every step, as a sign that the environment does not hang.
    Raises:
        EpisodeError: an observation has another shape than the environment says, or (as
            NotFiniteError) an observation, action or reward is not finite; says seed and step.
        Exception: any error of the environment or the agent, with seed and step as a note.
    """
    where = where or str(env)
    state, start, score, length, info = None, True, 0.0, 0, {}

    def check(value: Any, what: str, shape: tuple[int, ...] | None = None) -> None:
        at, array = f"{where}, seed {seed}: {what} at step {length}", np.asarray(value)
        if array.dtype == object or (shape is not None and array.shape != shape):
            got = f"{value}" if array.dtype == object else f"of shape {array.shape}"
            raise EpisodeError(f"{at} is {got}; the environment says {shape}")
        if not np.isfinite(array).all():
            raise NotFiniteError(f"{at} is not finite ({array.ravel()[:3]} ...)")

    try:
        obs, _ = env.reset(seed=seed)
        check(obs, "observation", env.observation_space.shape)
        while True:
            try:
                action, state = agent.predict(
                    obs, state, episode_start=start, deterministic=not sampled
                )
            except NotFiniteActionError as error:
                at = f"{where}, seed {seed}: action at step {length} is not finite"
                raise NotFiniteError(f"{at} ({error})") from error
            check(action, "action")
            with undrawn(env) if _holds_its_action(state) else contextlib.nullcontext():
                obs, reward, terminated, truncated, info = env.step(action)
            length += 1
            report(0)
            check(obs, "observation", env.observation_space.shape)
            check(reward, "reward")
            score += float(reward)
            start = False
            if terminated or truncated:
                break
    except Exception as error:
        if not isinstance(error, EpisodeError):
            error.add_note(f"{where}, seed {seed}, after {length} steps")
        raise
    return episode_score(env, seed, score, length, info)


def episode_score(
    env: gymnasium.Env, seed: int, score: float, length: int, info: dict[str, Any]
) -> EpisodeScore:
    """Score of an episode, with what the environment now knows of its track.

    Args:
        info: of the last step.
    """
    track = getattr(env.unwrapped, "track", None)
    tiles = env.unwrapped.tile_visited_count / len(track) if track else None  # type: ignore[attr-defined]
    return EpisodeScore(seed, score, length, tiles, bool(info.get("lap_finished", False)))


def _holds_its_action(state: Any) -> bool:
    """True if the next call of `predict` will ignore its observation."""
    countdown = getattr(state, "countdown", None)
    return countdown is not None and bool(np.all(countdown > 0))


@contextlib.contextmanager
def undrawn(env: Any) -> Iterator[None]:
    """Let CarRacing step without drawing inside the block: it returns its last picture again.

    Any other environment, or one with a `render_mode`, is not changed.
    """
    from gymnasium.envs.box2d.car_racing import CarRacing

    game = env.unwrapped
    if not isinstance(game, CarRacing) or game.render_mode is not None:
        yield
        return
    last = game.state
    assert isinstance(last, np.ndarray)  # the picture of the reset or of a step
    game._render = lambda mode: last.copy()
    try:
        yield
    finally:
        del game._render  # the class's own again


def random_scores(
    env_id: str, env_kwargs: dict[str, Any] | None, seeds: Sequence[int]
) -> list[float]:
    """Scores of uniformly random actions in the same episodes, as a baseline."""
    scores = []
    with contextlib.closing(make_env(env_id, env_kwargs or {})) as env:
        for seed in seeds:
            env.action_space.seed(int(seed))
            scores.append(run_episode(_Random(env.action_space), env, int(seed), env_id).score)
    return scores


@dataclass(frozen=True)
class _Random:
    """Agent that draws uniform actions from an action space."""

    space: gymnasium.Space

    def predict(self, obs: Any, state: Any = None, **_: Any) -> tuple[Any, Any]:
        return self.space.sample(), state


def evaluate(
    agent: Any,
    seeds: Sequence[int] = EVALUATION_SEEDS,
    *,
    workers: int = 0,
    env_id: str | None = None,
    env_kwargs: dict[str, Any] | None = None,
    sampled: bool = False,
    deadline: float = ParallelConfig.deadline,
) -> Evaluation:
    """Drive one episode per seed; see `evaluate_many` for the arguments."""
    return evaluate_many(
        [agent],
        seeds,
        workers=workers,
        env_id=env_id,
        env_kwargs=env_kwargs,
        sampled=sampled,
        deadline=deadline,
    )[0]


def evaluate_many(
    agents: Sequence[Any],
    seeds: Sequence[int],
    *,
    workers: int = 0,
    env_id: str | None = None,
    env_kwargs: dict[str, Any] | None = None,
    sampled: bool = False,
    deadline: float = ParallelConfig.deadline,
) -> list[Evaluation]:
    """Drive every agent on every seed, in one set of worker processes.

    Args:
        agents: folders that WorldModelAgent.save_pretrained wrote, or objects with `predict` that
            can be pickled.
        seeds: distinct seeds, one episode each.
        workers: processes of one thread each; 0 uses this one. Scores do not depend on it. Agents
            that see vectors play in this process, many episodes at once.
        env_id, env_kwargs: arguments of `gymnasium.make`, e.g. {"max_episode_steps": 50}; by
            default the task of the first agent (`task`), or CarRacing-v3.
        sampled: draw actions, as in the training of a policy, instead of the mean or likeliest
            ones; the seed of an episode fixes its draws.
        deadline: longest duration in seconds of a step or a reset of a worker's environment.
    Returns:
        One evaluation per agent. Each has the `seconds` of the whole call.
    Raises:
        EpisodeError: a value was not finite; says the seed and the step.
        WorkerDiedError: two workers were lost in an episode: killed, for example because memory ran
            out, or ended after they had waited too long for its environment.
        SystemExit: SIGTERM or Ctrl-C; the workers are gone by then.
    """
    seeds = [int(seed) for seed in seeds]
    if not agents or not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(
            f"{len(agents)} agents and {len(seeds)} seeds, {len(set(seeds))} of them distinct; "
            "pass at least one of each, and no seed twice"
        )
    loaded = [_load(agent) for agent in agents]
    tasks: list[Task | None] = [getattr(agent, "task", None) for agent in loaded]
    kwargs = dict(env_kwargs or {})
    if env_id is None:
        task = tasks[0] or Task()
        env_id, kwargs = task.env_id, {**task.env_kwargs, **kwargs}
    module, _, name = env_id.rpartition(":")
    if module:
        importlib.import_module(module)  # which registers it
    if name not in gymnasium.registry:  # told here, not by every worker
        make_env(env_id, kwargs).close()
    started = time.monotonic()
    vectors = all(task is not None and task.preprocess.kind == "vector" for task in tasks)
    if vectors and not sampled:
        played = [play_in_lanes(agent, env_id, kwargs, seeds) for agent in loaded]
        scores = [
            EpisodeScore(seed, score, length, None, False)
            for results in played
            for seed, (score, length) in zip(seeds, results, strict=True)
        ]
    else:
        driver = _Driver(loaded, env_id, kwargs, sampled)
        jobs = [(index, seed) for index in range(len(agents)) for seed in seeds]
        with contextlib.closing(driver):
            what = "driving real tracks" if "CarRacing" in env_id else "playing real episodes"
            scores = run_jobs(
                driver,
                jobs,
                workers,
                1,
                what,
                attempts=2,
                deadline=deadline,
                name_of=lambda job: f"the episode of {env_id}, seed {job[1]}",
            )
    seconds = time.monotonic() - started
    return [
        Evaluation(
            env_id,
            getattr(getattr(agent, "config", None), "action_repeat", 1),
            scores[i * len(seeds) : (i + 1) * len(seeds)],
            seconds,
            kwargs,
        )
        for i, agent in enumerate(loaded)
    ]


def _load(agent: Any) -> Any:
    if not isinstance(agent, str | Path):
        return agent
    from agents.loading import load_agent

    return load_agent(agent)


class _Driver:
    """Drives episodes in turn; each process has a copy with its own environment."""

    def __init__(self, agents: list[Any], env_id: str, env_kwargs: dict[str, Any], sampled: bool):
        self.agents, self.env_id, self.env_kwargs = agents, env_id, env_kwargs
        self.sampled = sampled
        self._env: Any = None

    def __reduce__(self) -> tuple[Any, ...]:
        # As bytes, because torch would pass tensors to another process in shared memory.
        return _unpack, (pickle.dumps(self.agents), self.env_id, self.env_kwargs, self.sampled)

    def __call__(self, task: tuple[int, int], report: Report) -> EpisodeScore:
        import torch

        index, seed = task
        if self._env is None:
            self._env = make_env(self.env_id, self.env_kwargs)
        with torch.random.fork_rng(devices=[], enabled=self.sampled):
            if self.sampled:
                torch.manual_seed(seed)
            score = run_episode(
                self.agents[index], self._env, seed, self.env_id, self.sampled, report
            )
        report(1)
        return score

    def close(self) -> None:
        if self._env is not None:
            self._env.close()


def _unpack(agents: bytes, env_id: str, env_kwargs: dict[str, Any], sampled: bool) -> _Driver:
    return _Driver(pickle.loads(agents), env_id, env_kwargs, sampled)
