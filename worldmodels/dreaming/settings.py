"""How an agent was dreamed, in a file beside its starts, so that others dream it alike.

    save_settings(folder, DreamConfig(30, 1.15, reward_clip=(-1.0, 6.0)))
    config = dream_config(folder, {"horizon": 100, "temperature": STORED, ...})

What only says how the computation is done (`bf16`, `truncation`) stays out of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from generative.training.files import DamagedFileError, read_json, short, write_json
from generative.training.settings import from_json, to_json
from worldmodels.configs import DreamConfig

__all__ = ["SETTINGS_NAME", "STORED", "Stored", "dream_config", "load_settings", "save_settings"]

SETTINGS_NAME = "dream.json"
"""The file of a model folder that holds the settings of the dream its agent learned in."""

FIELDS = ("horizon", "temperature", "dropout", "reward_clip", "pace_cap", "pace_window")

Stored = Literal["stored"]
STORED: Stored = "stored"
"""In place of a setting: the one of the model folder."""


def save_settings(folder: Path | str, config: DreamConfig) -> None:
    """Write `folder`/dream.json."""
    settings = to_json(config)
    write_json(Path(folder) / SETTINGS_NAME, {name: settings[name] for name in FIELDS})


def load_settings(folder: Path | str) -> DreamConfig | None:
    """What `save_settings` wrote, or None where a folder has no such file.

    Raises:
        DamagedFileError: the file is damaged, or holds other settings or impossible ones.
    """
    path = Path(folder) / SETTINGS_NAME
    if not path.exists():
        return None
    data = read_json(path)
    if not isinstance(data, dict) or set(data) != set(FIELDS):
        held = sorted(data) if isinstance(data, dict) else data
        raise DamagedFileError(f"{path}: holds {short(held)}, needed are {', '.join(FIELDS)}")
    try:
        return from_json(DreamConfig, {**to_json(DreamConfig()), **data})
    except ValueError as error:
        raise DamagedFileError(f"{path}: {error}") from error


def dream_config(folder: Path | str | None, given: Mapping[str, Any]) -> DreamConfig:
    """The settings of a dream: those given, for each `STORED` that of the folder, or else the
    default of `DreamConfig`.

    Args:
        folder: of a model; None if there is none.
    Raises:
        DamagedFileError: see `load_settings`.
        ValueError: a setting is out of its range.
    """
    stored = None if folder is None else load_settings(folder)
    chosen = {name: value for name, value in given.items() if value != STORED}
    return replace(stored or DreamConfig(), **chosen)
