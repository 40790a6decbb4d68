"""Drive a real track and its dream side by side on a page in the browser.

python scripts/play.py                 # prints the page's address; Ctrl-C ends it
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from generative.training.cli import Input, start
from generative.training.ranges import Checked, Positive, Range

if TYPE_CHECKING:
    from agents.play import PlayServer


@dataclass(frozen=True)
class Args(Checked):
    """Drive a real track and its dream side by side on a page in the browser.

    You drive by the keyboard, or the agent does; the same actions go to both.
    """

    agent: tyro.conf.Positional[Annotated[Path, Input("train_in_dream.py", hub=True)]] = Path(
        "pretrained/carracing-dream"
    )
    """Folder of the agent, or its owner/name[@revision] on the hub: its V and M dream, its C drives
    when asked to."""
    track: Annotated[int, Range(0, 2**31 - 1)] = 1_000_000
    """Seed of the first track; a new track takes the next seed."""
    seconds: Positive = 60.0
    """Length of an episode; the stock game's is 20 s."""
    temperature: Annotated[float, Range(0, 3)] | None = None
    """Initial temperature of M's draws; None: that of the dream that trained the agent, or 1 if
    its folder has no dream.json."""
    wake_after: Annotated[float, Range(0.1, 60)] | None = 3.0
    """Initial number of seconds until a dream looks at the track again; None for never."""
    host: str = "127.0.0.1"
    """Address to listen on; any but 127.0.0.1 and ::1 lets other machines reach the page."""
    port: Annotated[int, Range(0, 2**16 - 1)] = 8123
    """Port of the page; 0 takes a free one."""
    open: bool = True
    """Open the page in the browser."""
    self_test: bool = False
    """Fetch the page and one view of the game, and end."""


DEFAULT_PRESET = "default"
PRESETS = {
    "default": Args(),
    "smoke": Args(port=0, open=False, self_test=True),
}


def main(args: Args) -> None:
    from agents.configs import find_agent

    path = find_agent(args.agent)  # torch takes seconds to import
    import torch

    from agents.loading import load_car
    from agents.play import PlayServer, Session
    from generative.training.signals import stop_signals
    from scripts.common.pages import show_address

    torch.set_num_threads(1)  # one frame at a time: more threads only wait for each other
    session = Session(
        load_car(path),
        args.track,
        seconds=args.seconds,
        temperature=args.temperature,
        wake_after=args.wake_after,
    )
    with stop_signals() as stop, PlayServer(session, args.host, args.port) as server:
        show_address(server, "play", args.open and not args.self_test)
        if args.self_test:
            return visit(server)
        server.play(stop)
        assert stop.signal is not None  # nothing else ends the game
        raise SystemExit(128 + stop.signal)


def visit(server: PlayServer) -> None:
    """Fetch the page and the first view as a browser would."""
    import json

    from scripts.common.pages import fetch

    size, pictures = len(fetch(server)), json.loads(fetch(server, "view"))["pictures"]
    names = ", ".join(f"{name} {p['width']}x{p['height']}" for name, p in pictures.items())
    print(f"page: {size:,} bytes; pictures: {names}")


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
