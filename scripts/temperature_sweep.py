"""Train a controller per temperature on one V and M, and compare dreamed with real scores.

python scripts/temperature_sweep.py doom --results docs/results/doom

The study of Ha & Schmidhuber (2018), section 4.3, for any agent. At a low temperature the dream is
easy to exploit, and its best controllers fail in the game; at a high one it is too hard to learn
in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

from agents.rounds.controller import (
    QUICK_CONTROLLER,
    ControllerSettings,
    ControllerTraining,
    Search,
    search_dream,
)
from agents.rounds.settings import without_places
from generative.training.cli import Input, start
from generative.training.ranges import Checked, Count, Folder, NonNegative, Seed, Workers
from generative.training.run import Run
from generative.training.settings import recast
from scripts import train_controller, train_in_dream
from worldmodels.configs import DreamConfig

FIRST_EPISODE = 7000
"""Index of the first real episode among the seeds for selection; training uses earlier ones."""


@dataclass(frozen=True)
class Args(Checked):
    """Train a controller per temperature on one V and M, and compare dreamed with real scores."""

    resumable_fields: ClassVar[frozenset[str]] = frozenset({"workers", "results"})

    out: Folder = Path("runs/temperatures")
    """Run folder; the table is in sweep.json, the chart in sweep.png."""
    results: Folder | None = None
    """Folder that also gets sweep.json and sweep.png."""
    agent: Annotated[Path, Input("train_in_dream.py")] = Path("pretrained/carracing-dream")
    """Folder of the agent whose V, M, starts and environment are used; its C is not."""
    temperatures: tuple[NonNegative, ...] = (0.1, 0.5, 1.0, 1.15, 1.3)
    """Temperatures of the dreams, one controller each."""
    controller: ControllerSettings = QUICK_CONTROLLER
    """Training settings of the controllers; the temperature of their dreams is set here."""
    seeds: Count = 1
    """Controllers per temperature."""
    dreams: Count = 100
    """Dreams that score a controller, at its training temperature."""
    dream_decisions: Count = 333
    """Largest number of decisions of these dreams; M may end them earlier."""
    episodes: Count = 100
    """Real episodes that score a controller, the same for all."""
    episode_steps: Count | None = None
    """Environment steps of an episode; None: as many as the environment allows."""
    workers: Workers = 2
    """Processes, one controller each; results do not depend on it."""
    seed: Seed = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.temperatures:
            raise ValueError("temperatures is empty; give at least one")

    @classmethod
    def upgrade(cls, settings: dict[str, Any]) -> dict[str, Any]:
        """Older runs held places of the controller's training, which were not used."""
        controller = settings.get("controller")
        if not isinstance(controller, dict):
            return settings
        kinds = ControllerSettings, ControllerTraining
        return {**settings, "controller": without_places(controller, *kinds)}


CAR = replace(
    QUICK_CONTROLLER,
    dream=DreamConfig(horizon=30, bf16="auto", reward_clip=(-1.0, 21.0), pace_cap=2.7),
)
# Each of the 4 tics of a decision has reward 1.
DOOM = replace(
    train_in_dream.DOOM, dream=replace(train_in_dream.DOOM.dream, reward_clip=(4.0, 4.0))
)
DEFAULT_PRESET = "car"
PRESETS = {
    "car": Args(controller=CAR, out=Path("runs/temperatures-car")),
    "doom": Args(
        agent=Path("pretrained/doom-take-cover"),
        controller=DOOM,
        dream_decisions=525,
        out=Path("runs/temperatures-doom"),
    ),
    "smoke": Args(
        temperatures=(0.5, 1.15),
        controller=recast(ControllerSettings, train_controller.PRESETS["smoke"]),
        dreams=4,
        dream_decisions=6,
        episodes=2,
        episode_steps=30,
        workers=0,
    ),
}


@dataclass(frozen=True)
class Trial:
    """One controller to train in the dream, and to score there and in the game."""

    temperature: float
    number: int
    """Index among the trials of this temperature."""
    args: Args
    folder: Path
    seed: int


def main(args: Args) -> Path:
    """Returns the file of the table."""
    from agents.evaluation import random_scores
    from envs.task import Task
    from generative.training.files import (
        MAX_LIST_BYTES,
        read_file,
        read_json,
        write_file,
        write_json,
    )
    from generative.training.parallel import run_jobs
    from generative.training.precision import bf16_of_run

    with Run.open(args, kind="temperature_sweep") as run:
        report = run.path / "sweep.json"
        if not run.done:
            dream = args.controller.dream
            dream = replace(dream, bf16=bf16_of_run(dream.bf16, run, "cpu"))
            settings = replace(args, controller=replace(args.controller, dream=dream))
            trials = [
                Trial(
                    temperature,
                    number,
                    settings,
                    run.path / "trials" / f"{temperature}-{number}",
                    run.seed_for("trial", number) % 2**31,  # the same noise at every temperature
                )
                for temperature in args.temperatures
                for number in range(args.seeds)
            ]
            outcomes = run_jobs(
                train_and_score, trials, args.workers, 1 + args.episodes, "training and playing"
            )
            task = Task.load(args.agent)
            chance = random_scores(task.env_id, _kwargs(args, task), _seeds(args))
            write_json(
                report,
                {
                    "agent": args.agent.name,
                    "env_id": task.env_id,
                    "episodes": args.episodes,
                    "dreams": args.dreams,
                    "dream_decisions": args.dream_decisions,
                    "random": summary(chance),
                    "rows": summarize(outcomes),
                    "trials": outcomes,
                    "versions": run.versions,
                },
            )
            draw(read_json(report), run.path / "sweep.png")
            run.finish({"trials": len(trials)})
        if args.results is not None:
            args.results.mkdir(parents=True, exist_ok=True)
            for name in ("sweep.json", "sweep.png"):
                write_file(args.results / name, read_file(run.path / name, MAX_LIST_BYTES))
        print(table(read_json(report)))
        print(f"written to {report}")
        return report


def _seeds(args: Args) -> list[int]:
    from agents.evaluation import SELECTION_SEEDS

    return list(SELECTION_SEEDS[FIRST_EPISODE : FIRST_EPISODE + args.episodes])


def _kwargs(args: Args, task: Any) -> dict[str, Any]:
    limit = {} if args.episode_steps is None else {"max_episode_steps": args.episode_steps}
    return {**task.env_kwargs, **limit}


def train_and_score(trial: Trial, report: Callable[[int], None]) -> dict[str, Any]:
    """Run one trial; a finished one is only read."""
    import contextlib
    import time

    import gymnasium
    import torch

    from agents.evaluation import run_episode
    from agents.world_model_agent import WorldModelAgent
    from generative.training.files import read_json, write_json
    from worldmodels.controller import ControllerConfig, LinearController
    from worldmodels.dreaming.rollout import Dream
    from worldmodels.dreaming.starts import STARTS_NAME, DreamStarts

    args, file = trial.args, trial.folder / "result.json"
    if file.exists():
        report(1 + args.episodes)
        return read_json(file)
    trial.folder.mkdir(parents=True, exist_ok=True)
    agent = WorldModelAgent.from_pretrained(args.agent)
    memory, action = agent.world.memory, agent.task.action
    controller = LinearController(
        ControllerConfig(
            memory.config.latent_dim,
            memory.config.hidden_dim,
            action.size,
            args.controller.features,
            action,
        )
    )
    dream = replace(args.controller.dream, temperature=trial.temperature)
    starts = args.agent / STARTS_NAME
    search = Search(
        replace(args.controller, dream=dream),
        args.agent / "memory",
        starts,
        controller.to_vector().numpy(),
        controller.config,
        trial.folder / "search",
        trial.seed,
        "cpu",
    )
    begun = time.process_time()
    found = search_dream(search, lambda steps: report(0))
    seconds = time.process_time() - begun
    agent.controller = controller.load_vector(torch.as_tensor(found.vector))
    agent.controller.save_pretrained(trial.folder / "controller")
    generator = torch.Generator().manual_seed(trial.seed)
    moments = DreamStarts.load(starts)
    rows = torch.randint(len(moments), (args.dreams,), generator=generator)
    scored = Dream(memory, controller.config, replace(dream, horizon=args.dream_decisions))
    vector = controller.to_vector().unsqueeze(0)
    dreamed = scored.evaluate(vector, moments.take(rows), seed=trial.seed).returns[0].tolist()
    report(1)
    task, scores = agent.task, []
    env = gymnasium.make(task.env_id, disable_env_checker=True, **_kwargs(args, task))
    with contextlib.closing(env):
        for seed in _seeds(args):
            scores.append(run_episode(agent, env, seed, task.env_id, report=report).score)
            report(1)
    write_json(
        file,
        {
            "temperature": trial.temperature,
            "number": trial.number,
            "cpu_seconds": round(seconds, 1),
            "dream_steps": found.dream_steps,
            "dream": summary(dreamed),
            "real": summary(scores),
            "scores": [round(score, 1) for score in scores],
        },
    )
    return read_json(file)


def summary(scores: list[float]) -> dict[str, float]:
    """Mean and standard deviation of the scores (divided by N)."""
    mean = sum(scores) / len(scores)
    deviation = (sum((score - mean) ** 2 for score in scores) / len(scores)) ** 0.5
    return {"mean": round(mean, 1), "std": round(deviation, 1)}


def summarize(outcomes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per temperature with the mean scores of its controllers.

    With several, `std` is the mean of their standard deviations.
    """
    rows = []
    for temperature in dict.fromkeys(outcome["temperature"] for outcome in outcomes):
        group = [outcome for outcome in outcomes if outcome["temperature"] == temperature]
        row: dict[str, Any] = {"temperature": temperature}
        for world in ("dream", "real"):
            row[world] = {
                what: round(sum(outcome[world][what] for outcome in group) / len(group), 1)
                for what in ("mean", "std")
            }
        row["best"] = max(outcome["real"]["mean"] for outcome in group)
        rows.append(row)
    return rows


def table(sweep: dict[str, Any]) -> str:
    """The rows as text, 80 columns wide."""
    lines = [f"{'temperature':>11}{'dreamed':>20}{'real':>20}{'best':>10}"]
    for row in sweep["rows"]:
        dreamed, real = (
            f"{row[world]['mean']:.0f} +/- {row[world]['std']:.0f}" for world in ("dream", "real")
        )
        lines.append(f"{row['temperature']:11.2f}{dreamed:>20}{real:>20}{row['best']:10.0f}")
    chance = sweep["random"]
    lines.append(f"{'random':>11}{'':20}{chance['mean']:>10.0f} +/- {chance['std']:.0f}")
    return "\n".join(lines)


def draw(sweep: dict[str, Any], path: Path) -> None:
    """Draw dreamed and real scores by temperature, with standard deviations."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
    temperatures = [row["temperature"] for row in sweep["rows"]]
    for world, colour, label in (
        ("dream", "#d1495b", "in the dream it was trained in"),
        ("real", "#2a6f97", "in the real game"),
    ):
        axes.errorbar(
            temperatures,
            [row[world]["mean"] for row in sweep["rows"]],
            [row[world]["std"] for row in sweep["rows"]],
            marker="o",
            capsize=3,
            color=colour,
            label=label,
        )
    axes.axhline(sweep["random"]["mean"], color="0.5", ls=":", label="random actions, real")
    axes.set_xlabel("temperature of the dream")
    axes.set_ylabel("score, mean and deviation")
    axes.set_xticks(temperatures, [f"{temperature:g}" for temperature in temperatures])
    axes.set_ylim(0)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=9)
    figure.savefig(path, dpi=130)
    plt.close(figure)


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
