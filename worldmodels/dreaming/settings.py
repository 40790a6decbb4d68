"""Settings of the dream that trained an agent, in a file beside its starts.

Other dreams of the agent take them as defaults.

    save_settings(folder, DreamConfig(30, 1.15, reward_clip=(-1.0, 6.0)))
    config = dream_config(folder, {"horizon": 100, "temperature": STORED, ...})

Settings that only say how to compute (`bf16`, `truncation`) are left out.
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
    """Settings that `save_settings` wrote; None if the folder has no such file.

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
