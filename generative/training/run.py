"""A run: one folder with its settings, seeds, versions, metrics and result.

with Run.open(args, args.out, kind="train_vae") as run:
    if not run.done:
        ...
        run.finish({"loss": 0.31})
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from generative.training.files import (
    DamagedFileError,
    json_bytes,
    read_json,
    remove_leftovers,
    write_json,
)
from generative.training.lock import LOCK_NAME, FolderLock, RunInUseError
from generative.training.metrics import Metrics
from generative.training.settings import differences, from_json, may_change, to_json

if TYPE_CHECKING:
    import torch

__all__ = [
    "Run",
    "RunInUseError",
    "SettingsChangedError",
    "collect_versions",
    "read_config",
    "read_result",
]

CONFIG_NAME = "config.json"
RESULT_NAME = "result.json"
VERSIONS_NAME = "versions.json"
DIGEST_KEY = "sha256"
PACKAGES = (
    "torch", "numpy", "gymnasium", "box2d", "numba", "safetensors", "cma", "stable-baselines3",
    "ray", "imageio-ffmpeg",
)  # fmt: skip


SPEED_ONLY = frozenset({"workers"})
"""Settings that no result depends on: a finished run stays finished when one of them changes."""


class SettingsChangedError(ValueError):
    """A run folder was begun with other settings."""


class Run:
    """A run folder, held by this process until `close` or the end of the `with` block.

    Attributes:
        path: the folder.
        kind: the command that made it, e.g. "train_vae".
        config: the settings (the dataclass given to `open`).
        seed: config.seed, or 0 where it has none.
        metrics: where numbers are logged; to TensorBoard too unless config.tensorboard is False.
        versions: of Python, the packages, and the machine, now.
    """

    def __init__(self, path: Path, config: Any, kind: str, lock: FolderLock):
        self.path = path
        self.config = config
        self.kind = kind
        self.seed: int = getattr(config, "seed", 0)
        self.metrics = Metrics(path, tensorboard=getattr(config, "tensorboard", True))
        self.versions = collect_versions()
        self._lock = lock

    @classmethod
    def open(cls, args: Any, out: Path | None = None, *, kind: str) -> Run:
        """Make the folder, or continue the run that is in it.

        Settings must be those the run was begun with, except the fields named by the class
        attribute `resumable_fields` (budgets and logging) and `out` itself, so that a folder can
        be moved, with other paths that moved along. A finished run whose budget is changed is no
        longer finished.

        Args:
            args: settings, a dataclass.
            out: the folder; `args.out` if not given.
            kind: name of the command.
        Raises:
            SettingsChangedError: lists every setting that differs.
            RunInUseError: another process works in the folder.
            ValueError: the folder holds something that is not a run, or a run of another kind.
        """
        path = Path(args.out if out is None else out)
        settings = to_json(args)
        if from_json(type(args), settings) != args:
            raise TypeError(f"settings {args} do not survive config.json; use simpler types")
        _refuse_strangers(path)
        path.mkdir(parents=True, exist_ok=True)
        lock = FolderLock(path)
        try:
            remove_leftovers(path)
            _write_config(path, settings, kind, getattr(args, "resumable_fields", frozenset()))
            run = cls(path, args, kind, lock)
            _write_versions(path, run.versions)
        except BaseException:
            lock.release()
            raise
        return run

    @functools.cached_property
    def device(self) -> torch.device:
        """config.device, where "auto" (or none) means the GPU if there is one."""
        import torch

        name = getattr(self.config, "device", None) or "auto"
        if name == "auto":
            name = "cuda" if torch.cuda.is_available() else "cpu"
        if name.startswith("cuda") and not torch.cuda.is_available():
            raise ValueError(f"device is {name}, but torch sees no GPU; use --device cpu")
        return torch.device(name)

    def rng(self, name: str, *numbers: int) -> np.random.Generator:
        """A NumPy generator for one purpose, the same in every process that asks for it.

        Args:
            name: the purpose, e.g. "tracks".
            numbers: what tells repeats apart, e.g. round and episode.
        """
        return np.random.default_rng(np.random.SeedSequence(self._entropy(name, numbers)))

    def seed_for(self, name: str, *numbers: int) -> int:
        """A seed in 0 .. 2**63 - 1 for one purpose; see `rng`."""
        return self._entropy(name, numbers) % 2**63

    @property
    def done(self) -> bool:
        """Whether `finish` was called, by this process or an earlier one."""
        return (self.path / RESULT_NAME).exists()

    @property
    def result(self) -> dict[str, Any]:
        """What `finish` wrote.

        Raises:
            DamagedFileError: there is no result, or it is not what `finish` wrote.
        """
        return read_result(self.path)

    def finish(self, summary: dict[str, Any]) -> None:
        """Write result.json, which marks the run as complete; `read_result` reads it.

        Args:
            summary: numbers, strings, lists and dicts.
        Raises:
            ValueError: a number in it is not finite.
        """
        self.metrics.sync()
        try:
            digest = hashlib.sha256(json_bytes(summary)).hexdigest()
            write_json(self.path / RESULT_NAME, {**summary, DIGEST_KEY: digest})
        except ValueError as error:
            raise ValueError(f"the result of {self.path} is not finite: {summary}") from error

    def close(self) -> None:
        """Release the folder."""
        self.metrics.close()
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: object, *_: object) -> None:
        if error is not None:
            self._forget_if_empty()
        self.close()

    def _forget_if_empty(self) -> None:
        """A run that failed before it wrote anything, by a wrong path say, holds no folder."""
        own = [self.path / name for name in (VERSIONS_NAME, CONFIG_NAME, LOCK_NAME)]
        if set(self.path.iterdir()) <= set(own):
            for file in own:
                file.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # it may be the working folder of a shell
                self.path.rmdir()

    def _entropy(self, name: str, numbers: tuple[int, ...]) -> int:
        """256 bits from the seed and the purpose."""
        # Hashed, because SeedSequence([1, 2]) and SeedSequence([1 + 2 * 2**32]) are the same.
        key = json.dumps([self.seed, name, *(int(n) for n in numbers)]).encode()
        return int.from_bytes(hashlib.sha256(key).digest(), "little")


def read_config(path: Path) -> tuple[str, dict[str, Any]]:
    """(kind, settings as JSON) of the run in a folder.

    Raises:
        ValueError: the folder is not a run.
        DamagedFileError: its config.json cannot be read.
    """
    file = Path(path) / CONFIG_NAME
    if not file.exists():
        raise ValueError(f"{path} is not a run: there is no {CONFIG_NAME} in it")
    content = read_json(file)
    if not isinstance(content, dict) or not isinstance(content.get("settings"), dict):
        raise DamagedFileError(f"{file}: is not the config of a run")
    return str(content.get("kind")), content["settings"]


def read_result(path: Path) -> dict[str, Any]:
    """What `Run.finish` was given by the run in a folder.

    Raises:
        DamagedFileError: there is no result, or it has changed since it was written.
    """
    file = Path(path) / RESULT_NAME
    content = read_json(file)
    digest = content.pop(DIGEST_KEY, None) if isinstance(content, dict) else None
    if digest != hashlib.sha256(json_bytes(content)).hexdigest():
        raise DamagedFileError(f"{file}: its content has changed since it was written")
    return content


def collect_versions() -> dict[str, Any]:
    """Python, packages, processor and threads: what a result may depend on."""
    packages = {}
    for name in PACKAGES:
        try:
            packages[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    torch = sys.modules.get("torch")
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "torch_threads": torch.get_num_threads() if torch else None,
        "gpu": torch.cuda.get_device_name() if torch and torch.cuda.is_available() else None,
        "packages": packages,
    }


def _refuse_strangers(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is a file; give the name of a folder")
    known = {CONFIG_NAME, LOCK_NAME}
    names = {entry.name for entry in path.iterdir()} if path.exists() else set()
    names = {name for name in names if not name.endswith(".tmp")}
    if names and CONFIG_NAME not in names and not names <= known:
        raise ValueError(f"{path} holds files but is not a run; give an empty or new folder")


def _write_config(path: Path, settings: dict[str, Any], kind: str, free: frozenset[str]) -> None:
    file = path / CONFIG_NAME
    if file.exists():
        old_kind, old = read_config(path)
        if old_kind != kind:
            raise ValueError(f"{path} is a run of {old_kind}, not of {kind}; choose another folder")
        changed = differences(old, settings)
        moved = changed.pop("out", None)
        if moved:
            changed = {n: pair for n, pair in changed.items() if not _moved_along(pair, moved)}
        fixed = {n: pair for n, pair in changed.items() if not may_change(n, free)}
        if fixed:
            lines = [f"  {n}: it has {a!r}, you ask for {b!r}" for n, (a, b) in fixed.items()]
            raise SettingsChangedError(
                f"{path} was begun with other settings:\n"
                + "\n".join(lines)
                + "\nChoose another folder, or use the run's own settings (--resume)."
            )
        if changed.keys() - SPEED_ONLY:
            (path / RESULT_NAME).unlink(missing_ok=True)
        if not changed and not moved:
            return
    write_json(file, {"format": 1, "kind": kind, "settings": settings})


def _moved_along(pair: tuple[Any, Any], outs: tuple[Any, Any]) -> bool:
    """Whether a setting (old, new) is a path, or paths, seen from the run's folder the same."""
    old, new = (value if isinstance(value, list) else [value] for value in pair)
    if len(old) != len(new) or not all(p and isinstance(p, str) for p in [*old, *new, *outs]):
        return False
    return all(
        a == b or os.path.relpath(a, outs[0]) == os.path.relpath(b, outs[1])
        for a, b in zip(old, new, strict=True)
    )


def _write_versions(path: Path, versions: dict[str, Any]) -> None:
    """Keep one entry per set of versions that worked on the run, the newest last."""
    file = path / VERSIONS_NAME
    entries = read_json(file) if file.exists() else []
    if not entries or entries[-1] != versions:
        if entries:
            names = ", ".join(differences(entries[-1], versions))
            print(
                f"{path} goes on under other versions ({names}); "
                "the result may differ in the last digits",
                file=sys.stderr,
            )
        write_json(file, [*entries, versions])


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [
                line.split(":", 1)[1].strip() for line in file if line.startswith("model name")
            ]
        return names[0]
    except (OSError, IndexError):
        return platform.processor() or "unknown"
