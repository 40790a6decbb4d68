"""Record episodes of CarRacing: driven at random, or by an agent with noise on its actions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from generative.training.cli import start
from generative.training.run import Run


@dataclass(frozen=True)
class Args:
    """Record episodes of CarRacing: driven at random, or by an agent with noise on its actions."""

    resumable_fields: ClassVar[frozenset[str]] = frozenset({"workers"})

    out: Path = Path("runs/rollouts")
    """Run folder; the episodes are in its `episodes` folder."""
    agent: Path | None = None
    """Folder of the agent that drives; random drivers if not given."""
    noise: float = 0.3
    """Strength of the noise on an agent's actions; each episode draws its own from 0 to this."""
    episodes: int = 10_000
    """Episodes to record."""
    decisions: int = 1000
    """An episode is cut after this many."""
    max_idle: int | None = None
    """An episode is cut after this many decisions without a positive reward."""
    action_repeat: int = 1
    """Environment steps for which an action is held."""
    anywhere: float = 0.0
    """Share of episodes that start anywhere on the track, without the opening zoom."""
    workers: int = 2
    """Processes; the recording does not depend on their number."""
    seed: int = 1


PRESETS = {
    "paper": Args(),
    "book": Args(episodes=1000, decisions=300, workers=8),
    "quick": Args(episodes=250, decisions=70, max_idle=20, action_repeat=3, anywhere=0.8),
    "smoke": Args(episodes=4, decisions=12, action_repeat=3, anywhere=0.5, workers=0),
}


def track_seed(number: int) -> int:
    """A track's seed out of any number, never one that is kept for choosing or for the score."""
    from agents.evaluation import EVALUATION_SEEDS, SELECTION_SEEDS

    seed = number % 2**31
    reserved = seed in EVALUATION_SEEDS or seed in SELECTION_SEEDS
    return seed + 2**30 if reserved else seed


def main(args: Args) -> Path:
    """Returns the folder of the recorded episodes."""
    import hashlib

    from agents.explorers import RandomWalkDriver, noisy_agent
    from generative.training.signals import stop_signals
    from worldmodels.collect import DriverSpec, EpisodeSpec, collect
    from worldmodels.rollouts import RolloutStore

    with Run.open(args, kind="collect_rollouts") as run, stop_signals() as stop:
        folder = run.path / "episodes"
        if run.done:
            return folder
        if args.agent is None:
            driver = DriverSpec(RandomWalkDriver, {"action_repeat": args.action_repeat})
        else:
            weights = args.agent / "controller" / "model.safetensors"
            if not weights.exists():
                raise FileNotFoundError(
                    f"{args.agent} holds no agent; pass the `agent` folder of a train_in_dream run"
                )
            driver = DriverSpec(
                noisy_agent,
                {
                    "folder": str(args.agent),
                    "noise": args.noise,
                    "action_repeat": args.action_repeat,
                },
                key=f"{hashlib.sha256(weights.read_bytes()).hexdigest()[:16]}, noise {args.noise}",
            )
        anywhere = {"start_tile": "random", "zoom": False}
        specs = [
            EpisodeSpec(
                index=i,
                seed=track_seed(run.seed_for("episode", i)),
                env_id="WorldModels/CarRacing64-v0",
                driver=driver,
                action_repeat=args.action_repeat,
                reset_options=anywhere if run.rng("start", i).random() < args.anywhere else {},
                max_decisions=args.decisions,
                max_idle=args.max_idle,
            )
            for i in range(args.episodes)
        ]
        store = RolloutStore(folder)
        collect(specs, store, workers=args.workers, stop=lambda: stop.requested)
        if len(store) < args.episodes:
            stop.exit(f"{len(store)} of {args.episodes} episodes recorded")
        run.finish(
            {
                "episodes": len(store),
                "frames": store.num_frames,
                "return_mean": float(store.returns.mean()),
            }
        )
        return folder


if __name__ == "__main__":
    start(main, PRESETS)
