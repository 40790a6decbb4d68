"""Compare ways to train C on the V and M of one finished run: methods, budgets, dreams.

Every trial trains one controller in the dream of that run and then drives real tracks. The result
is a table and a chart of dreamed and real scores against the CPU time of training, on which other
work on the machine has little influence.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from agents.rounds.controller import (
    ControllerSettings,
    ControllerTraining,
    Search,
    search_dream,
    write_starts,
)
from agents.rounds.settings import RoundsSettings
from generative.training.cli import Input, start
from generative.training.files import read_json, write_json
from generative.training.ranges import Checked, Count, Folder, Seed, Workers
from generative.training.run import Run, read_config
from generative.training.settings import from_json, recast
from worldmodels.configs import EvolutionConfig

REAL_ENV = "WorldModels/CarRacing64-v0"
"""Real game with our drawing, as in the selection of controllers."""

FIRST_TRACK = 5000
"""Index of the first track among those for selection; training runs use earlier ones."""


@dataclass(frozen=True)
class Args(Checked):
    """Compare ways to train C on the V and M of one finished run: methods, budgets, dreams."""

    resumable_fields: ClassVar[frozenset[str]] = frozenset({"workers"})

    out: Folder = Path("runs/compare")
    """Run folder; the table is in comparison.json, the chart in comparison.png."""
    run: Annotated[Path, Input("train_in_dream.py standard")] = Path("runs/standard")
    """Finished run of train_in_dream.py."""
    round: int = -1
    """Round whose V, M and recordings are used; -1 is the last."""
    study: Literal["methods", "dreams"] = "methods"
    """Subject: methods at several budgets, or the run's method with one dream setting changed."""
    gradient_steps: tuple[Count, ...] = (50, 100, 200, 300)
    """Budgets of the gradient, in steps."""
    generations: tuple[Count, ...] = (75, 150, 300, 600)
    """Budgets of CMA-ES, in generations, each about as long as the gradient's of the same index."""
    evolution: EvolutionConfig = field(
        default_factory=lambda: EvolutionConfig(popsize=32, diagonal=True)
    )
    seeds: Count = 3
    """Number of trials of each kind."""
    tracks: Count = 32
    """Number of real episodes for each controller, the same for all."""
    episode_steps: Count = 1000
    """Environment steps of an episode (the game ends at 1000)."""
    workers: Workers = 2
    """Number of processes, one trial each; results except times do not depend on it."""
    seed: Seed = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.gradient_steps) != len(self.generations):
            raise ValueError(
                f"{len(self.gradient_steps)} budgets of the gradient and {len(self.generations)} "
                "of CMA-ES; give as many of each"
            )


DEFAULT_PRESET = "methods"
PRESETS = {
    "methods": Args(),
    "dreams": Args(study="dreams", out=Path("runs/compare-dreams")),
    "smoke": Args(
        gradient_steps=(2,),
        generations=(2,),
        evolution=EvolutionConfig(popsize=4),
        seeds=1,
        tracks=1,
        episode_steps=60,
        workers=0,
    ),
}


@dataclass(frozen=True)
class Source:
    """Parts of a run that the trials use."""

    agent: Path
    """Folder of an agent with its V and M."""
    controller: ControllerTraining
    """Training settings of the run's C."""

    @classmethod
    def of(cls, run: Path, index: int) -> Source:
        """Load the round of that number; -1 is the last.

        Raises:
            ValueError: the folder belongs to another command, or has no such finished round.
        """
        kind, settings = read_config(run)
        if kind != "train_in_dream":
            raise ValueError(f"{run} is a run of {kind}; pass one of train_in_dream.py")
        args = from_json(RoundsSettings, settings)
        if args.env:
            raise ValueError(
                f"{run} was trained for {args.env}, and trials drive CarRacing; pass a run for that"
            )
        rounds = args.rounds
        folder = run / f"round-{index % rounds:02d}"
        if not -rounds <= index < rounds or not (folder / "choose" / "result.json").exists():
            raise ValueError(f"{run} has {rounds} rounds, and round {index} is not finished")
        _, settings = read_config(folder / "controller")
        return cls(folder / "choose" / "agent", from_json(ControllerTraining, settings))


@dataclass(frozen=True)
class Trial:
    """One controller to train and to drive."""

    kind: str
    budget: int
    number: int
    """Index among the trials that differ in their seed alone."""
    args: ControllerTraining
    source: Source
    folder: Path
    tracks: tuple[int, ...]
    episode_steps: int


def methods(args: Args, base: ControllerTraining) -> dict[tuple[str, int], Any]:
    """Settings by (kind, budget): the gradient, CMA-ES, and CMA-ES followed by the gradient."""
    variants = {}
    base = replace(base, evolution=args.evolution)
    for place, (steps, generations) in enumerate(
        zip(args.gradient_steps, args.generations, strict=True)
    ):

        def with_budget(method: str, steps: int, generations: int) -> ControllerTraining:
            return replace(
                base,
                method=method,
                gradient=replace(base.gradient, steps=steps),
                evolution=replace(base.evolution, generations=generations),
            )

        variants["gradient", place] = with_budget("gradient", steps, generations)
        variants["cma", place] = with_budget("cma", steps, generations)
        halves = max(steps // 2, 1), max(generations // 2, 1)
        variants["both", place] = with_budget("both", *halves)
    return variants


def dreams(args: Args, base: ControllerTraining) -> dict[tuple[str, int], Any]:
    """Settings by (kind, 0): those of the run, then with one setting changed at a time."""

    def changed(**fields: Any) -> ControllerTraining:
        return replace(base, dream=replace(base.dream, **fields))

    cap = base.dream.pace_cap
    variants = {"as in the run": base}
    # The number of lanes keeps the work equal for dreams of other lengths.
    for horizon in (15, 60, 80):
        lanes = max(base.gradient.lanes * base.dream.horizon // horizon, 1)
        variants[f"horizon {horizon}"] = replace(
            changed(horizon=horizon), gradient=replace(base.gradient, lanes=lanes)
        )
    if cap is not None:
        variants["pace not capped"] = changed(pace_cap=None)
        variants["pace cap x 0.8"] = changed(pace_cap=0.8 * cap)
        variants["pace cap x 1.2"] = changed(pace_cap=1.2 * cap)
        variants["pace of one decision"] = changed(pace_window=1)
    variants["starts anywhere"] = replace(base, trouble_weight=1)
    variants["temperature 1"] = changed(temperature=1.0)
    variants["temperature 1.5"] = changed(temperature=1.5)
    variants["no dropout"] = changed(dropout=False)
    return {(kind, 0): variant for kind, variant in variants.items()}


STUDIES: dict[str, Callable[[Args, ControllerTraining], dict[tuple[str, int], Any]]] = {
    "methods": methods,
    "dreams": dreams,
}


def main(args: Args) -> Path:
    """Returns the file of the comparison."""
    from agents.evaluation import SELECTION_SEEDS
    from generative.training.parallel import run_jobs
    from generative.training.precision import bf16_of_run

    with Run.open(args, kind="compare_controllers") as run:
        report = run.path / "comparison.json"
        if not run.done:
            source = Source.of(args.run, args.round)
            dream = source.controller.dream
            # The run may have been made on another processor.
            asked = "auto" if dream.bf16 else False
            dream = replace(dream, bf16=bf16_of_run(asked, run, "cpu"))
            base = replace(source.controller, dream=dream)
            tracks = tuple(SELECTION_SEEDS[FIRST_TRACK : FIRST_TRACK + args.tracks])
            trials = [
                Trial(
                    kind,
                    budget,
                    number,
                    replace(variant, seed=run.seed_for(kind, budget, number) % 2**31, device="cpu"),
                    source,
                    run.path / "trials" / f"{kind} {budget} {number}".replace(" ", "-"),
                    tracks,
                    args.episode_steps,
                )
                for (kind, budget), variant in STUDIES[args.study](args, base).items()
                for number in range(args.seeds)
            ]
            outcomes = run_jobs(
                train_and_drive, trials, args.workers, 1 + args.tracks, "training and driving"
            )
            rows = summarize(outcomes)
            write_json(
                report,
                {
                    "study": args.study,
                    "run": args.run.name,
                    "round": args.round,
                    "tracks": args.tracks,
                    "rows": rows,
                    "trials": outcomes,
                    "versions": run.versions,
                },
            )
            if args.study == "methods":
                draw(rows, run.path / "comparison.png")
            run.finish({"trials": len(trials)})
        print(table(read_json(report)["rows"]))
        print(f"written to {report}")
        return report


def train_and_drive(trial: Trial, report: Callable[[int], None]) -> dict[str, Any]:
    """Run one trial: starts, search, real tracks. A finished one is only read."""
    import gymnasium
    import numpy as np
    import torch

    import envs  # noqa: F401  registers the environment
    from agents.evaluation import run_episode
    from agents.world_model_agent import WorldModelAgent
    from worldmodels.controller import LinearController
    from worldmodels.memory import load_memory

    file = trial.folder / "result.json"
    if not file.exists():
        trial.folder.mkdir(parents=True, exist_ok=True)
        begun = time.process_time()
        memory = load_memory(trial.args.memory)
        starts = trial.folder / "starts.safetensors"
        clip = write_starts(trial.args, memory, starts)
        agent = WorldModelAgent.from_pretrained(trial.source.agent)
        controller = LinearController(agent.controller.config)
        dream = replace(trial.args.dream, reward_clip=clip)
        search = Search(
            recast(ControllerSettings, trial.args, dream=dream),
            trial.args.memory,
            starts,
            controller.to_vector().numpy(),
            controller.config,
            trial.folder / "search",
            trial.args.seed,
            "cpu",
        )
        found = search_dream(search, lambda steps: report(0))
        seconds = time.process_time() - begun
        agent.world.memory = memory
        agent.controller = controller.load_vector(torch.as_tensor(found.vector))
        agent.controller.save_pretrained(trial.folder / "controller")
        report(1)
        env = gymnasium.make(REAL_ENV, max_episode_steps=trial.episode_steps)
        scores = []
        for track in trial.tracks:
            scores.append(run_episode(agent, env, track, report=report).score)
            report(1)
        env.close()
        write_json(
            file,
            {
                "kind": trial.kind,
                "budget": trial.budget,
                "number": trial.number,
                "seconds": round(seconds, 1),
                "dream_steps": found.dream_steps,
                "dream_return": found.score,
                "real_mean": float(np.mean(scores)),
                "real_std": float(np.std(scores)),
                "scores": [round(score, 1) for score in scores],
            },
        )
    else:
        report(1 + len(trial.tracks))
    return read_json(file)


def summarize(outcomes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per kind and budget; `spread` is the standard deviation of the trials' means."""
    import numpy as np

    rows = []
    for kind, budget in dict.fromkeys((o["kind"], o["budget"]) for o in outcomes):
        group = [o for o in outcomes if (o["kind"], o["budget"]) == (kind, budget)]
        means = np.array([o["real_mean"] for o in group])
        rows.append(
            {
                "kind": kind,
                "budget": budget,
                "seconds": float(np.mean([o["seconds"] for o in group])),
                "dream_steps": group[0]["dream_steps"],
                "dream_return": float(np.mean([o["dream_return"] for o in group])),
                "real_mean": float(means.mean()),
                "spread": float(means.std()),
                "best": float(means.max()),
                "worst": float(means.min()),
            }
        )
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as text, 80 columns wide."""
    lines = [f"{'':24}{'seconds':>9}{'dreamed':>9}{'real':>8}{'spread':>8}{'worst':>8}{'best':>8}"]
    for row in rows:
        lines.append(
            f"{row['kind']:24}{row['seconds']:9.0f}{row['dream_return']:9.1f}"
            f"{row['real_mean']:8.0f}{row['spread']:8.0f}{row['worst']:8.0f}{row['best']:8.0f}"
        )
    return "\n".join(lines)


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw real score against training time, one line per method."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for kind in dict.fromkeys(row["kind"] for row in rows):
        points = [row for row in rows if row["kind"] == kind]
        axes.errorbar(
            [row["seconds"] for row in points],
            [row["real_mean"] for row in points],
            [row["spread"] for row in points],
            marker="o",
            capsize=3,
            label=kind,
        )
    axes.set_xlabel("CPU seconds of training, one core")
    axes.set_ylabel("real score, mean over tracks")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
