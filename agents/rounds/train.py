"""An agent trained in its own dream, from the first recording to its score."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from agents.rounds.settings import RoundsSettings
from generative.training.files import DamagedFileError, remove_leftovers, write_json
from generative.training.run import Run, read_result

if TYPE_CHECKING:
    from agents.rounds.rounds import Rounds

__all__ = ["describe", "train_in_dream"]


def train_in_dream(args: RoundsSettings) -> Path:
    """All rounds, the choice between them, the score and the report.

    Killed at any moment, the same call continues, to the same result.

    Returns:
        The folder of the agent.
    Raises:
        ValueError: settings that do not fit each other or this machine, before anything is done.
        DamagedFileError: names the file, and what to delete so that it is made again.
    """
    from generative.training.signals import exit_on_signals

    with exit_on_signals(), Run.open(args, kind="train_in_dream") as run:
        agent = run.path / "agent"
        if not run.done:
            try:
                _train(args, run, agent)
            except DamagedFileError as error:
                error.add_note(
                    "Delete the folder of the stage that it belongs to (of the agent: final), and "
                    "the same command makes it again, to the same result."
                )
                raise
        print(describe(run, agent))
        return agent


def _train(args: RoundsSettings, run: Run, agent: Path) -> None:
    import torch

    from agents.rounds.rounds import Rounds

    if args.threads:
        torch.set_num_threads(args.threads)  # not by the stages alone: some may be skipped
    for folder in [path for path in run.path.rglob("*") if path.is_dir()]:
        remove_leftovers(folder)
    rounds = Rounds(args, run)
    rounds.forget_other_end()
    for index in range(args.rounds):
        rounds.play(index)
    rounds.finish()
    score(args, run, rounds, agent)


def score(args: RoundsSettings, run: Run, rounds: Rounds, agent: Path) -> None:
    """Play the published seeds; write facts, report and, of the car, a film."""
    from agents.evaluation import EVALUATION_SEEDS, TrainingFacts, evaluate, random_scores
    from agents.report import RANDOM_NAME, write_report
    from agents.video import drive_and_dream, write_video
    from agents.world_model_agent import WorldModelAgent
    from generative.training.progress import progress

    last = rounds.records[-1]
    TrainingFacts(
        real_frames=last.real_frames_total,
        selection_episodes=rounds.selection_episodes,
        dream_steps=last.dream_steps_total,
        wall_seconds=rounds.seconds,
        seed=args.seed,
        dream_mean=read_result(run.path / "final")["dream_mean"],
    ).save(agent)
    seeds = EVALUATION_SEEDS[: args.test_episodes]
    env_id = rounds.task.env_id if rounds.task else "CarRacing-v3"
    file = run.path / "evaluation.json"
    if not file.exists():
        evaluation = evaluate(
            agent, seeds, workers=args.workers, env_id=env_id, env_kwargs=rounds.env_kwargs
        )
        write_json(file, evaluation.to_json())
    if rounds.task is not None:
        yardstick = run.path / RANDOM_NAME
        if not yardstick.exists():
            write_json(yardstick, random_scores(env_id, rounds.env_kwargs, seeds))
        content = write_report(run.path, agent, check_drives=0)
        run.finish({name: content[name] for name in (*RESULTS, "random_mean", "random_std")})
        return
    film = run.path / "videos" / "drive-and-dream.mp4"
    if not film.exists():
        shutil.rmtree(film.parent, ignore_errors=True)  # half a film, if anything
        driver = WorldModelAgent.from_pretrained(agent)
        frames = drive_and_dream(driver, EVALUATION_SEEDS[0], max_steps=args.film_steps)
        write_video(film, progress(frames, "filming a drive beside its dream"))
    content = write_report(run.path, agent, check_steps=args.episode_steps or 1000)
    run.finish({name: content[name] for name in RESULTS})


RESULTS = ("game", "episodes", "real_mean", "real_std", "real_interval_95", "wall_seconds")
"""Fields of the report that the run's result has too."""


SOLVED = 900
"""Gymnasium's reward threshold of CarRacing: from there on it counts as solved."""


def describe(run: Run, agent: Path) -> str:
    """Scores of a finished run, its files, and the next commands to try."""
    result = run.result
    low, high = result["real_interval_95"]
    game = result.get("game", "")  # older results do not say
    car = "random_mean" not in result
    if car:
        what = "tracks of the stock game" + game.removeprefix("CarRacing-v3")
        beside = f"the game counts as solved at {SOLVED}"
    else:
        what = f"episodes of {game or run.config.env}"
        beside = f"random actions score {result['random_mean']:.0f}"
    made = {"report": "report.html", "film": "videos/*.mp4", "curves": "round-*/*/curves.png"}
    found = {name: sorted(run.path.glob(what)) for name, what in made.items()}
    places = {
        name: paths[0] if len(paths) == 1 else run.path / made[name]
        for name, paths in found.items()
        if paths
    }
    after = f"worldmodels {'play' if car else 'evaluate'} {agent}"
    rows = {"agent": agent, **places, "next": after}.items()
    lines = [f"{name + ':':<8}{text}" for name, text in rows]
    return (
        f"\n{result['episodes']} {what}: {result['real_mean']:.0f} +/- "
        f"{result['real_std']:.0f} (95 % interval of the mean {low:.0f} to {high:.0f}), trained "
        f"in {result['wall_seconds'] / 60:.1f} minutes; {beside}\n" + "\n".join(lines)
    )
