"""Write the card of a saved agent or model, and give both to the hub if asked.

python scripts/card.py runs/standard
python scripts/card.py runs/vae --limits "Bends are blurred." --push owner/name
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import tyro

from generative.training.cli import Input, start
from generative.training.ranges import Checked

if TYPE_CHECKING:
    from agents.policy_agent import PolicyAgent


@dataclass(frozen=True)
class Args(Checked):
    """Write the card of a saved agent or model, and give both to the hub if asked."""

    folder: tyro.conf.Positional[Annotated[Path, Input("train_in_dream.py")]] = Path(
        "runs/standard"
    )
    """Folder of a run, an agent or a model; the card is its README.md."""
    report: Annotated[Path, Input("evaluate.py")] | None = None
    """Scores of an agent: a file of `evaluate --json`, or a report.json."""
    limits: tuple[str, ...] = ()
    """Sentences on what is known to be wrong with it."""
    commands: tuple[str, ...] = ()
    """Command lines that made it, if no report tells them."""
    push: str = ""
    """Name on the hub, owner/name, to give model and card to; "" gives nothing."""
    private: bool = False
    """Make it visible to its owner only, if it is not on the hub yet."""


DEFAULT_PRESET = "default"
PRESETS = {"default": Args(), "smoke": Args()}


def main(args: Args) -> Path:
    """Returns the path of the card."""
    from agents.cards import write_card

    path = write_card(args.folder, args.report, args.limits, args.commands)
    print(path)
    if args.push:
        from generative.training.hub import push_folder

        with tempfile.TemporaryDirectory() as place:
            folder = whole(args.folder, Path(place) / "saved")
            shutil.copyfile(path, folder / path.name)
            print(push_folder(folder, args.push, private=args.private or None))
    return path


def whole(folder: Path, copy: Path) -> Path:
    """Copy an agent or a model, found sound, to a folder that needs no other; returns the copy."""
    from agents.cards import find_agent_folder

    agent = find_agent_folder(folder)
    if agent is None:
        from generative.loading import model_folder
        from worldmodels.loading import load_model

        load_model(model := model_folder(folder))
        return Path(shutil.copytree(model, copy))
    from agents.loading import load_agent

    loaded = load_agent(agent, trust=True)  # its environment is not made
    shutil.copytree(agent, copy)
    if (agent / "policy").is_dir():
        cast("PolicyAgent", loaded).save_pretrained(
            copy
        )  # with V and M, which may be those of another folder
    return copy


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
