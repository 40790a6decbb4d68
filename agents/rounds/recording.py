"""The stage that records episodes: played at random, or by an agent with noise on its actions."""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from generative.training.cli import Input
from generative.training.ranges import (
    Checked,
    Count,
    Folder,
    NonNegative,
    Positive,
    Probability,
    Seed,
    Workers,
)
from generative.training.run import Run

if TYPE_CHECKING:
    from agents.collect import DriverSpec, EpisodeSpec
    from envs.task import Prepared, Task
    from generative.training.signals import Stop
    from worldmodels.rollouts import RolloutStore

__all__ = [
    "CAR_ENV",
    "AgentRecording",
    "RandomRecording",
    "Recording",
    "RecordingSettings",
    "check_anywhere",
    "record_episodes",
    "task_of",
    "track_seed",
]

CAR_ENV = "WorldModels/CarRacing64-v0"
"""CarRacing in our own drawing."""


@dataclass(frozen=True)
class RecordingSettings(Checked):
    """Episodes to record, for any driver."""

    episodes: Count = 10_000
    """Episodes to record."""
    decisions: Count = 1000
    """An episode is cut after this many."""
    max_idle: Count | None = None
    """An episode is cut after this many decisions without a positive reward."""
    anywhere: Probability = 0.0
    """Share of episodes that start anywhere on the track, without the opening zoom."""


@dataclass(frozen=True)
class RandomRecording(RecordingSettings):
    """A recording of random drivers."""

    hold: Positive = 8.0
    """Longest mean time, in decisions, that a random action lasts (CarRacing has its own walks)."""


@dataclass(frozen=True)
class AgentRecording(RecordingSettings):
    """A recording of an agent."""

    noise: NonNegative = 0.3
    """Strength of the noise on an agent's actions; each episode draws its own from 0 to this."""


@dataclass(frozen=True)
class Recording(RandomRecording, AgentRecording):
    """Record episodes: played at random, or by an agent with noise on its actions."""

    resumable_fields: ClassVar[frozenset[str]] = frozenset({"workers"})

    out: Folder = Path("runs/rollouts")
    """Run folder; the episodes are in its `episodes` folder."""
    env: str = ""
    """Any Gymnasium environment of images or vectors; CarRacing, in our own drawing, if empty."""
    env_kwargs: str = "{}"
    """For gymnasium.make, as a JSON object: '{"continuous": false}'."""
    agent: Annotated[Path, Input("train_in_dream.py")] | None = None
    """Folder of the agent that drives; random drivers if not given."""
    action_repeat: Count = 1
    """Environment steps for which an action is held."""
    workers: Workers = 2
    """Processes; the recording does not depend on their number."""
    seed: Seed = 1


def record_episodes(args: Recording) -> Path:
    """Returns the folder of the recorded episodes."""
    from generative.training.signals import stop_signals
    from worldmodels.rollouts import RolloutStore

    with Run.open(args, kind="collect_rollouts") as run, stop_signals() as stop:
        store = RolloutStore(run.path / "episodes", mend=True)
        if not store.is_whole(run):
            _record_missing(args, run, store, stop)
        return store.folder


def _record_missing(args: Recording, run: Run, store: RolloutStore, stop: Stop) -> None:
    """The episodes that are not recorded yet, and those that are damaged."""
    from agents.collect import EpisodeSpec, collect, make_episode_env
    from envs.task import TASK_NAME, Task

    task = task_of(args.env, args.env_kwargs)
    if args.agent is not None and task is None and (args.agent / TASK_NAME).exists():
        task = Task.load(args.agent)
    check_anywhere(args.anywhere, task)
    driver = _driver(args, task)
    anywhere = {"start_tile": "random", "zoom": False}
    specs = [
        EpisodeSpec(
            index=i,
            seed=track_seed(run.seed_for("episode", i)),
            env_id=task.env_id if task else CAR_ENV,
            env_kwargs=task.env_kwargs if task else {},
            driver=driver,
            action_repeat=args.action_repeat,
            reset_options=anywhere if run.rng("start", i).random() < args.anywhere else {},
            max_decisions=args.decisions,
            max_idle=args.max_idle,
        )
        for i in range(args.episodes)
    ]
    make = make_episode_env if task is None else functools.partial(make_prepared, task)
    collect(specs, store, workers=args.workers, make_env=make, stop=lambda: stop.requested)
    if len(store) < args.episodes:
        stop.exit(f"{len(store)} of {args.episodes} episodes recorded")
    run.finish(
        {
            "episodes": len(store),
            "frames": store.num_frames,
            "return_mean": float(store.returns.mean()),
        }
    )


def _driver(args: Recording, task: Task | None) -> DriverSpec:
    """Who drives: the agent, or else random actions that suit the environment."""
    from agents.collect import DriverSpec
    from agents.explorers import RandomWalkDriver, noisy_agent
    from agents.random_actions import RandomActions
    from generative.training.files import MAX_STATE_BYTES, read_file
    from generative.training.settings import to_json

    if args.agent is None and task is None:
        return DriverSpec(RandomWalkDriver, {"action_repeat": args.action_repeat})
    if args.agent is None:
        assert task is not None  # as it is not CarRacing
        return DriverSpec(RandomActions, {"head": to_json(task.action), "hold": args.hold})
    weights = args.agent / "controller" / "model.safetensors"
    if not weights.exists():
        raise FileNotFoundError(
            f"{args.agent} holds no agent; pass the `agent` folder of a train_in_dream run"
        )
    digest = hashlib.sha256(read_file(weights, MAX_STATE_BYTES)).hexdigest()
    return DriverSpec(
        noisy_agent,
        {
            "folder": str(args.agent),
            "noise": args.noise,
            "action_repeat": args.action_repeat,
        },
        key=f"{digest[:16]}, noise {args.noise}",
    )


def track_seed(number: int) -> int:
    """A track's seed out of any number, never one that is kept for choosing or for the score."""
    from agents.evaluation import EVALUATION_SEEDS, SELECTION_SEEDS

    seed = number % 2**31
    reserved = seed in EVALUATION_SEEDS or seed in SELECTION_SEEDS
    return seed + 2**30 if reserved else seed


def task_of(env: str, env_kwargs: str) -> Task | None:
    """Task that `--env` and `--env-kwargs` name; None for the default, the car race.

    Raises:
        ValueError: the arguments are no JSON object, or the environment's spaces do not fit.
    """
    try:
        kwargs = json.loads(env_kwargs)
    except json.JSONDecodeError as error:
        raise ValueError(f"env_kwargs is {env_kwargs!r}, which is no JSON: {error}") from None
    if not isinstance(kwargs, dict) or (kwargs and not env):
        raise ValueError(
            f"env_kwargs is {env_kwargs!r}; it has to be a JSON object of arguments for the "
            "environment that --env names"
        )
    if not env:
        return None
    from envs.task import Task

    return Task.of(env, kwargs)


def check_anywhere(anywhere: float, task: Task | None, name: str = "anywhere") -> None:
    """Raise ValueError where episodes cannot start anywhere on the track: the stock car race, or
    another environment, would begin as always, and the recording say something else."""
    if not anywhere or task is None:
        return
    if task.env_id not in (CAR_ENV, "WorldModels/FastCarRacing-v0"):
        raise ValueError(
            f"{name} is {anywhere}, but {task.env_id} always begins at the start: set it to 0, or "
            f"record {CAR_ENV}, which is the same game in our own drawing"
        )


def make_prepared(task: Task, _spec: EpisodeSpec) -> Prepared:
    """`make_episode_env` for `agents.collect`."""
    return task.make()


QUICK_FIRST = RandomRecording(episodes=250, decisions=70, max_idle=20, anywhere=0.8)
"""The first recording of the quick rounds."""
QUICK_LATER = AgentRecording(episodes=50, decisions=100, max_idle=40, anywhere=0.7)
"""Every later one."""
