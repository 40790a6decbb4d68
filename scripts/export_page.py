"""Write the dream of an agent as one HTML page, which runs in a browser alone.

python scripts/export_page.py pretrained/carracing-dream --into runs/page
# open runs/page/index.html, or put the folder on any web server
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from generative.training.cli import Input, start
from generative.training.ranges import Checked, Count, Folder, Positive, Range


@dataclass(frozen=True)
class Args(Checked):
    """Write the dream of an agent as one HTML page, which runs in a browser alone."""

    agent: tyro.conf.Positional[Annotated[Path, Input("train_in_dream.py")]] = Path(
        "pretrained/carracing-dream"
    )
    """Folder of the agent, with the starts of its dreams."""
    into: Folder = Path("runs/page")
    """Folder of the page: new, or one that this command wrote."""
    runtime: Path = Path("runs/data/onnxruntime-web")
    """Folder of onnxruntime-web; npm fetches it into it, once, if it is not there."""
    temperature: Annotated[float, Range(0, 3)] | None = None
    """Initial temperature of M's draws; None: that of the dream that trained the agent, or 1."""
    starts: Count = 64
    """Moments at which the dreams of the page begin, drawn from those of the agent."""
    horizon: Count = 1000
    """Decisions after which a dream is over: of 3 frames each, 1,000 are a minute."""
    fps: Positive = 50.0
    """Frames of the game in a second: 50 of the car race, 35 of Doom."""


PRESETS = {"default": Args(), "smoke": Args(starts=2)}
DEFAULT_PRESET = "default"


def main(args: Args) -> Path:
    """Returns the path of the page."""
    from agents.configs import find_agent

    folder = find_agent(args.agent)  # torch takes seconds to import
    import torch

    from agents.play.alone import build_page
    from agents.world_model_agent import WorldModelAgent
    from worldmodels.dreaming.starts import STARTS_NAME, DreamStarts

    torch.set_num_threads(1)
    page = build_page(
        WorldModelAgent.from_pretrained(folder),
        DreamStarts.load(folder / STARTS_NAME),
        args.into,
        args.runtime,
        temperature=args.temperature,
        num_starts=args.starts,
        horizon=args.horizon,
        fps=args.fps,
    )
    print(f"{page}: {page.stat().st_size / 2**20:.1f} MiB; open it in a browser")
    return page


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
