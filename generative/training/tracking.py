"""Trackers beside metrics.jsonl: TensorBoard if it is installed, or W&B or trackio if asked for.

    worldmodels train_vae quick --track wandb       # or trackio, tensorboard, none

The choice is of a command and not of a run's settings, and changes no result. A run's folder keeps
the name under which it is tracked, so that a run that is continued goes on as the same.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from generative.training.extras import how_to_install
from generative.training.files import DamagedFileError, read_json, write_json

__all__ = ["REMOTE", "TRACKERS", "Tracker", "choose_tracker", "find_tracker", "wants_tensorboard"]

REMOTE = ("wandb", "trackio")
TRACKERS = ("tensorboard", *REMOTE, "none")
PROJECT = "worldmodels"
FILE_NAME = "tracked.json"
_chosen: list[str] = []


def choose_tracker(name: str) -> None:
    """Choose the tracker of the runs that this process opens from now on; "" for the default.

    Raises:
        ValueError: there is no such tracker.
        ImportError: it is not installed; says how to install it.
    """
    if name not in ("", *TRACKERS):
        raise ValueError(f"{name!r} is no tracker; choose one of {', '.join(TRACKERS)}")
    if name not in ("", "none") and importlib.util.find_spec(name) is None:
        raise ImportError(how_to_install(name))
    _chosen[:] = [name] if name else []


def wants_tensorboard() -> bool:
    """True if TensorBoard's files are wanted and it is installed."""
    return _chosen in ([], ["tensorboard"]) and importlib.util.find_spec("tensorboard") is not None


def find_tracker(folder: Path, kind: str, settings: Mapping[str, Any]) -> Tracker | None:
    """Tracker of the run in a folder: the chosen one, or without a choice the one it has had.

    Raises:
        DamagedFileError: the folder's record of its tracker is damaged.
        ImportError: the run was tracked by what is not installed here.
    """
    path = folder / FILE_NAME
    before = _read(path) if os.path.lexists(path) else {}
    by = _chosen[0] if _chosen else before.get("by", "")
    if by not in REMOTE:
        return None
    if importlib.util.find_spec(by) is None:
        raise ImportError(
            f"{folder} is tracked by {by}: {how_to_install(by)}, or pass --track none"
        )
    same = before.get("by") == by
    return Tracker(path, by, before["id"] if same else uuid.uuid4().hex[:12], kind, settings)


class Tracker:
    """One run of W&B or trackio, begun or continued at the first number.

    Args:
        path: file that records by what and under which id the run is tracked.
        by: "wandb" or "trackio".
        id: of the tracked run.
        kind, settings: the command and its settings, shown beside the numbers.
    """

    def __init__(self, path: Path, by: str, id: str, kind: str, settings: Mapping[str, Any]):
        self._path, self.by, self.id = path, by, id
        self._config = {"command": kind, **settings}
        self._library: Any = None
        self._run: Any = None

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log numbers. What a continued run repeats has the same values as before."""
        self._open().log(dict(values), step=step)

    def log_image(self, step: int, name: str, image: np.ndarray) -> None:
        """Log a picture, uint8 (H, W, 3)."""
        self._open().log({name: self._library.Image(image)}, step=step)

    def close(self) -> None:
        """End the tracked run, if it was begun; it can be continued."""
        if self._run is not None:
            self._run.finish()
            self._run = None

    def _open(self) -> Any:
        if self._run is None:
            write_json(self._path, {"by": self.by, "id": self.id})
            self._library = importlib.import_module(self.by)
            named: dict[str, Any] = {"name": f"{self._path.parent.name}-{self.id}", "embed": False}
            if self.by == "wandb":  # which has names that need not differ
                folder = str(self._path.parent)
                named = {"id": self.id, "name": self._path.parent.name, "dir": folder}
            self._run = self._library.init(
                project=PROJECT, config=self._config, resume="allow", **named
            )
        return self._run


def _read(path: Path) -> dict[str, str]:
    content = read_json(path)
    good = isinstance(content, dict) and set(content) == {"by", "id"}
    if not good or content["by"] not in REMOTE or not isinstance(content["id"], str):
        raise DamagedFileError(f"{path}: is no record of a tracker; delete it to track anew")
    return content
