"""Type words and watch the picture being made, on a page in the browser.

python scripts/play_pictures.py        # prints the page's address; Ctrl-C ends it
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from generative.training.cli import Input, start
from generative.training.ranges import Checked, Device, Range, Workers

if TYPE_CHECKING:
    import torch
    from torch import nn

    from generative.pages.pictures import Asker, PictureServer
    from generative.training.signals import Stop


@dataclass(frozen=True)
class Args(Checked):
    """Type words and watch the picture being made, on a page in the browser.

    The page draws what the words say, draws over a picture, fills in a part of one and walks from
    one prompt to another, step by step, while you drag guidance, steps, seed and strength.

    Next: a model of your own by `train_latent_diffusion.py`, which this command then takes, and
    `train_flamingo.py` for one that answers questions about the pictures (--flamingo).
    """

    model: tyro.conf.Positional[
        Annotated[Path | None, Input("train_latent_diffusion.py emoji", hub=True)]
    ] = Path("pretrained/emoji")
    """Folder of a run or a model of train_latent_diffusion or train_text_to_image, or its
    owner/name[@revision] on the hub; None: a tiny one of the micro-world whose weights are random,
    to see the page."""
    flamingo: Annotated[Path, Input("train_flamingo.py", hub=True)] | None = None
    """Folder of a run of train_flamingo, which answers questions about the pictures."""
    host: str = "127.0.0.1"
    """Address to listen on; any but 127.0.0.1 and ::1 lets other machines reach the page."""
    port: Annotated[int, Range(0, 2**16 - 1)] = 8124
    """Port of the page; 0 takes a free one."""
    open: bool = True
    """Open the page in the browser."""
    self_test: bool = False
    """Fetch the page and one drawing, and end."""
    threads: Workers = 1
    """CPU threads; 0 takes all."""
    device: Device = "auto"


DEFAULT_PRESET = "default"
PRESETS = {
    "default": Args(),
    "smoke": Args(model=None, port=0, open=False, self_test=True, device="cpu"),
}


def main(args: Args) -> None:
    import torch

    from generative.loading import load_model
    from generative.pages.pictures import Painter, PictureServer
    from generative.training.devices import find_device
    from generative.training.signals import stop_signals
    from scripts.common.pages import show_address

    if args.threads:
        torch.set_num_threads(args.threads)
    device = find_device(args.device)
    model = untrained() if args.model is None else load_model(args.model, device)
    painter = Painter(model.to(device))
    asker = None if args.flamingo is None else find_asker(args.flamingo, device)
    name = "random weights" if args.model is None else str(args.model)
    with (
        stop_signals() as stop,
        PictureServer(painter, asker, name, args.host, args.port) as server,
    ):
        show_address(server, "draw", args.open and not args.self_test)
        if args.self_test:
            return visit(server, stop)
        server.serve(stop)
        assert stop.signal is not None  # nothing else ends it
        raise SystemExit(128 + stop.signal)


def untrained() -> nn.Module:
    """A tiny model of the micro-world with random weights."""
    import torch

    from generative.known.captions import WORDS
    from generative.text_to_image.config import (
        ConditionalUNetConfig,
        GLIDEConfig,
        TextEncoderConfig,
    )

    torch.manual_seed(0)
    return GLIDEConfig(
        (3, 24, 24),
        WORDS,
        TextEncoderConfig(64, 24, 1, causal=False),
        ConditionalUNetConfig(8, (1, 1), head_dim=8, vector_dim=64, patch=4),
        steps=10,
    ).build()


def find_asker(folder: Path, device: torch.device) -> Asker:
    """A Flamingo with its words.

    Raises:
        FileNotFoundError: there is no such model, or no vocabulary beside it.
        ValueError: it is another model.
    """
    from generative.loading import load_model, model_folder
    from generative.pages.pictures import Asker
    from scripts.common.text import vocabulary_of

    place = model_folder(folder)
    return Asker(load_model(place, device), vocabulary_of(place))


def visit(server: PictureServer, stop: Stop) -> None:
    """Fetch the page and ask for a drawing as a browser would."""
    import json

    from scripts.common.pages import fetch

    size, about = len(fetch(server)), json.loads(fetch(server, "about"))
    prompt, steps = about["examples"][0], min(2, about["most"]["steps"])
    request = {"mode": "draw", "prompt": prompt, "pictures": 2, "steps": steps}
    fetch(server, "draw", {**request, "scale": about["scale"], "seed": 0})
    server.make_next(stop)
    view = json.loads(fetch(server, "view"))
    _, height, width = about["image_shape"]
    print(
        f"page: {size:,} bytes; {len(about['words'])} words; {prompt!r}: {len(view['pictures'])} "
        f"pictures of {width}x{height} in {view['steps']} steps, {view['status']}"
    )


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
