"""Film an agent on a real track beside what its world model dreams.

python scripts/render_dream.py pretrained/carracing-dream --out drive.mp4
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from generative.training.cli import Input, start
from generative.training.ranges import Checked, Ending, NonNegative, Positive, Range

if TYPE_CHECKING:
    from agents.evaluation import EpisodeScore


@dataclass(frozen=True)
class Args(Checked):
    """Film an agent on a real track beside what its world model dreams."""

    agent: tyro.conf.Positional[Annotated[Path, Input("train_in_dream.py", hub=True)]] = Path(
        "pretrained/carracing-dream"
    )
    """Folder of the agent, or its owner/name[@revision] on the hub."""
    film: Annotated[Path, tyro.conf.arg(name="out"), Ending((".mp4",), folder=True)] = Path(
        "dream.mp4"
    )
    """The film, an mp4; in a folder it is called drive.mp4."""
    gif: Annotated[Path, Ending((".gif", ".webp"))] | None = None
    """Also write an animated GIF, or WebP, smaller and coarser."""
    poster: Annotated[Path, Ending((".png",))] | None = None
    """Also write one picture (PNG): a real moment and what followed, and its dream."""
    track: Annotated[int, Range(0, 2**31 - 1)] = 1_000_000
    """Seed of the track; 1000000 to 1000099 are those of evaluate.py."""
    seconds: Positive = 20.0
    """Length of the film; an episode of the game has at most 20 s."""
    dream_seconds: Positive = 2.5
    """Time that M runs alone before it looks at the game again."""
    actions: Literal["own", "real"] = "own"
    """Actions of a dream: the agent's own on dreamed observations, or those of the real drive."""
    temperature: NonNegative | None = None
    """Temperature of M's draws; None: that of the dream that trained the agent, or 1 if its folder
    has no dream.json."""
    fast: bool = False
    """The agent sees our own drawing instead of the stock game's."""


PRESETS = {"paper": Args(), "smoke": Args(seconds=2.0, dream_seconds=0.5, fast=True)}


def main(args: Args) -> Path:
    """Returns the path of the film."""
    from agents.configs import find_agent

    path = find_agent(args.agent)  # torch takes seconds to import
    import torch

    from agents.loading import load_car
    from agents.video import FPS, drive_and_dream, poster, write_gif, write_video
    from generative.training.progress import progress

    torch.set_num_threads(1)  # frames are small: more threads only wait for each other
    film = args.film if args.film.suffix.lower() == ".mp4" else args.film / "drive.mp4"
    agent = load_car(path)
    env_id = "WorldModels/FastCarRacing-v0" if args.fast else "CarRacing-v3"
    steps = round(args.seconds * 50)
    what = {"env_id": env_id, "max_steps": steps, "temperature": args.temperature}

    scores: list[EpisodeScore] = []

    def frames(doing: str):
        pictures = drive_and_dream(
            agent,
            args.track,
            dream_seconds=args.dream_seconds,
            actions=args.actions,
            told=scores.append,
            **what,
        )
        return progress(pictures, doing, total=round(args.seconds * FPS))

    write_video(film, frames(f"filming {film.name}"))
    if args.gif:
        write_gif(args.gif, frames(f"filming {args.gif.name}"))
    if args.poster:
        args.poster.parent.mkdir(parents=True, exist_ok=True)
        poster(agent, args.track, **what).save(args.poster)
    print(describe(scores[0]))
    for path in filter(None, (film, args.gif, args.poster)):
        print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB")
    return film


def describe(drive: EpisodeScore) -> str:
    """Score and lap of the drive, in a line."""
    lap = "the lap finished" if drive.lap_finished else f"{drive.tiles or 0:.0%} of the lap"
    return f"track {drive.seed}: {drive.score:.0f} points, {lap} in {drive.length / 50:.1f} s"


if __name__ == "__main__":
    start(main, PRESETS)
