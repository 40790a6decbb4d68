"""Make an agent from the weights of another program: the original JSON, or ctallec's checkpoints.

python scripts/import_weights.py WorldModelsExperiments/carracing --into runs/ha
python scripts/import_weights.py world-models/exp_dir --into runs/ctallec
python scripts/evaluate.py runs/ha
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from generative.training.cli import start
from generative.training.ranges import Checked, Folder

if TYPE_CHECKING:
    from worldmodels.importers import Imported

AGENT_FILES = {"agent.json", "task.json", "vision", "memory", "controller"}
"""Files that this command may replace in its output folder."""


@dataclass(frozen=True)
class Args(Checked):
    """Make an agent from the weights of another program."""

    source: tyro.conf.Positional[Path]
    """A folder of hardmaru/WorldModelsExperiments (`carracing` or `doomrnn`, or one with vae.json
    and rnn.json), or an experiment of ctallec/world-models (with vae/best.tar, mdrnn/best.tar)."""
    into: Folder = Path("runs/imported")
    """Folder for the agent: new, or one that this command wrote. Without a controller in `source`,
    it holds vision and memory only."""
    format: Literal["auto", "json", "checkpoints"] = "auto"
    """Format of `source`; auto looks for vae/best.tar."""
    controller: Path | None = None
    """A controller's JSON file, if it is not where the repository keeps the best one."""


PRESETS = {"default": Args(Path("weights")), "smoke": Args(Path("weights"))}
DEFAULT_PRESET = "default"


def main(args: Args) -> Path:
    """Returns the folder of the agent."""
    if not args.source.is_dir():
        raise FileNotFoundError(
            f"{args.source}: no such folder; pass a clone of hardmaru/WorldModelsExperiments or an "
            "experiment of ctallec/world-models"
        )
    from worldmodels.importers import read_checkpoints, read_json_weights

    form = args.format
    if form == "auto":
        form = "checkpoints" if (args.source / "vae" / "best.tar").exists() else "json"
    if form == "checkpoints" and args.controller is not None:
        raise ValueError("controller is for JSON weights; checkpoints have it in ctrl/best.tar")
    imported = (
        read_checkpoints(args.source)
        if form == "checkpoints"
        else read_json_weights(args.source, controller=args.controller)
    )
    write(imported, args.into)
    print("\n".join(f"read {file}" for file in imported.files))
    kind = "the world model, without a controller," if imported.controller is None else "the agent"
    print(f"{kind} is in {args.into}")
    return args.into


def write(imported: Imported, folder: Path) -> None:
    """Write an agent beside its place and rename it.

    Raises:
        ValueError: the folder holds other files than an agent's.
    """
    from agents.world_model_agent import WorldModelAgent
    from envs.task import Preprocess, Task

    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise ValueError(f"{folder} is a link or a file; give the name of a folder")
    present = {entry.name for entry in folder.iterdir()} if folder.exists() else set()
    if present - AGENT_FILES:
        raise ValueError(
            f"{folder} holds other files ({', '.join(sorted(present - AGENT_FILES)[:3])}); give an "
            "empty or new folder"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent))
    try:
        made = beside / "agent"
        if imported.controller is None:
            imported.world.save_pretrained(made)
        else:
            action = imported.controller.config.action
            task = Task("CarRacing-v3", action=action)
            if action.kind == "box":
                frames = Preprocess("image", (64, 64, 3))
                task = Task("WorldModels/TakeCover64-v0", preprocess=frames, action=action)
            WorldModelAgent(imported.world, imported.controller, task=task).save_pretrained(made)
        if folder.exists():
            folder.rename(beside / "old")
        made.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
