"""Let an agent play its real environment with published seeds and print its scores.

python scripts/evaluate.py pretrained/carracing-dream --episodes 100 --workers 2
python scripts/evaluate.py runs/ppo/agent
python scripts/evaluate.py model.zip --trust
"""

from __future__ import annotations

import textwrap
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from generative.training.cli import Input, start
from generative.training.ranges import Checked, Count, Ending, Positive, Range, Workers

if TYPE_CHECKING:
    from agents.configs import PolicyConfig
    from agents.evaluation import Evaluation, TrainingFacts


@dataclass(frozen=True)
class Args(Checked):
    """Let an agent play its real environment with published seeds and print its scores."""

    agent: tyro.conf.Positional[Annotated[Path, Input("train_in_dream.py", hub=True)]] = Path(
        "pretrained/carracing-dream"
    )
    """Folder of the agent, or its owner/name[@revision] on the hub; or an archive of
    Stable-Baselines3 (PPO, DQN or SAC)."""
    episodes: Annotated[int, Range(1, 100)] = 100
    """As many, of the first of the published seeds, 1000000 to 1000099; of CarRacing, tracks."""
    workers: Workers = 2
    """Processes; 0 plays in this one. The scores do not depend on it."""
    deadline: Positive = 600.0
    """Seconds that a worker waits for one step of the game, before it is ended and the episode
    given to another, once."""
    fast: bool = False
    """CarRacing in our own drawing instead of the stock game's: quicker, pixels differ a little."""
    max_steps: Count | None = None
    """Environment steps after which an episode ends; the environment's own limit if not given, for
    CarRacing 1000."""
    sampled: bool = False
    """Let a policy draw its actions, as in training, in place of its mean or likeliest ones."""
    trust: bool = False
    """Read an archive, or make an environment of a module that the agent names, though either can
    run any code of those who made it."""
    json: Annotated[Path, Ending((".json",))] | None = None
    """Also write everything to this file."""


PRESETS = {"paper": Args(), "smoke": Args(episodes=2, workers=0, max_steps=30, fast=True)}


def main(args: Args) -> Evaluation:
    from agents.configs import PolicyConfig, find_agent

    path = find_agent(args.agent)  # torch takes seconds to import
    from agents.evaluation import EVALUATION_SEEDS, TrainingFacts, evaluate
    from agents.loading import load_agent
    from envs.task import game_name
    from generative.training.files import check_place, write_json
    from generative.training.run import collect_versions
    from generative.training.settings import to_json

    if args.json:
        check_place(args.json)
    agent = load_agent(path, args.trust)
    facts = None if path.is_file() else TrainingFacts.load(path)
    policy = agent.config if isinstance(agent.config, PolicyConfig) else None
    task = agent.task
    if (played := game_name(task.env_id, task.env_kwargs)) != task.env_id:
        print(f"not the stock game: {played}")
    if args.fast:
        if task.env_id != "CarRacing-v3":
            raise ValueError(f"fast draws CarRacing, this agent is for {task.env_id}; leave it out")
        task = replace(task, env_id="WorldModels/FastCarRacing-v0")
    limit = {} if args.max_steps is None else {"max_episode_steps": args.max_steps}
    evaluation = evaluate(
        agent,
        EVALUATION_SEEDS[: args.episodes],
        workers=args.workers,
        env_id=task.env_id,
        env_kwargs={**task.env_kwargs, **limit},
        sampled=args.sampled,
        deadline=args.deadline,
    )
    versions = collect_versions()
    print(describe(args.agent, evaluation, facts, versions, policy, args.sampled))
    if args.json:
        training = {"training": asdict(facts)} if facts else {}
        if policy:
            training["policy"] = to_json(policy)
        everything = {"agent": str(args.agent), **evaluation.to_json(), **training}
        everything["sampled"] = args.sampled
        write_json(args.json, {**everything, "versions": versions})
    return evaluation


def describe(
    agent: Path,
    evaluation: Evaluation,
    facts: TrainingFacts | None,
    versions: dict[str, Any],
    policy: PolicyConfig | None = None,
    sampled: bool = False,
) -> str:
    """The whole result as text of at most 80 columns."""
    low, high = evaluation.interval
    data, tracks = evaluation.to_json(), evaluation.tracks
    known = [track.tiles for track in tracks if track.tiles is not None]
    packages = {"python": versions["python"], **versions["packages"]}
    drawn = "drawn, " if sampled else ""
    names = ("python", "gymnasium", "torch", "numpy", "box2d")
    laps = f"{data['laps_finished']} of {len(tracks)} finished"
    if known:  # only CarRacing has any
        laps += f"; {sum(known) / len(known):.1%} of the tiles on average"
    rows = [
        ("agent", str(agent)),
        ("game", f"{evaluation.game}, seeds {tracks[0].seed} to {tracks[-1].seed}"),
        ("action", f"{drawn}held for {_count(evaluation.action_repeat, 'step')}"),
        ("versions", ", ".join(f"{name} {packages[name]}" for name in names if name in packages)),
        *(_training_rows(facts) if policy is None else _policy_rows(policy)),
        ("", ""),
        ("episodes", f"{len(tracks)}, played in {evaluation.seconds:,.0f} s"),
        ("mean", f"{evaluation.mean:.1f}"),
        ("deviation", f"{evaluation.std:.1f}   (of the scores, divided by n)"),
        ("95 % interval", f"{low:.1f} to {high:.1f}   (of the mean; bootstrap, 10,000 resamples)"),
        ("range", "{real_min:.1f} to {real_max:.1f}, median {real_median:.1f}".format(**data)),
        *([("laps", laps)] if known or data["laps_finished"] else []),
    ]
    lines = ["", *_score_table(evaluation), "", *_histogram(evaluation), ""]
    for name, value in rows:
        lines += textwrap.wrap(f"{name:<14} {value}", 80, subsequent_indent=" " * 15) or [""]
    return "\n".join(lines)


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}" + ("" if n == 1 else "s")


def _training_rows(facts: TrainingFacts | None) -> list[tuple[str, str]]:
    if facts is None:
        return [("training", "not known (the agent has no training.json)")]
    return [
        ("V and M saw", f"{facts.real_frames:,} real frames"),
        ("C was trained", f"on {facts.dream_steps:,} dreamed decisions, never on a real reward"),
        ("C was chosen", f"by {_count(facts.selection_episodes, 'real episode')}"),
        ("training time", f"{facts.wall_seconds:,.0f} s"),
    ]


def _policy_rows(policy: PolicyConfig) -> list[tuple[str, str]]:
    sees = {"pixels": "frames", "z": "V's z", "zh": "V's z and M's h"}[policy.observation]
    if policy.trained_in == "dream":
        budget = f"{policy.decisions:,} dreamed decisions, never on a real reward"
    else:
        budget = (
            f"{_count(policy.decisions, 'real decision')}, each held for "
            f"{_count(policy.action_repeat, 'step')}"
        )
    return [("policy", f"{policy.algorithm.upper()} of {sees}"), ("was trained", f"on {budget}")]


def _score_table(evaluation: Evaluation) -> list[str]:
    tracks = evaluation.tracks
    laps = " (* lap finished)" if any(track.lap_finished for track in tracks) else ""
    lines = [f"score of every episode{laps}"]
    for i in range(0, len(tracks), 10):
        cells = [f"{t.score:6.0f}{'*' if t.lap_finished else ' '}" for t in tracks[i : i + 10]]
        lines.append(f"{tracks[i].seed:>8} " + "".join(cells).rstrip())
    return lines


def _histogram(evaluation: Evaluation, width: int = 50) -> list[str]:
    """One line per 100 points between the lowest and the highest score."""
    bins = [int(score // 100) for score in evaluation.scores]
    counts = {b: bins.count(b) for b in range(min(bins), max(bins) + 1)}
    longest = max(counts.values())
    lines = ["how many episodes scored what"]
    for b, count in counts.items():
        bar = "#" * (-(-count * width // longest) if longest > width else count)
        lines.append(f"{100 * b:>6} to {100 * (b + 1):>5}  {bar} {count or ''}".rstrip())
    return lines


if __name__ == "__main__":
    start(main, PRESETS)
