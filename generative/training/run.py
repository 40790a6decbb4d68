"""A run: one folder with its settings, seeds, versions, metrics and result.

with Run.open(args, args.out, kind="train_vae") as run:
    if not run.done:
        ...
        run.finish({"loss": 0.31})
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import io
import json
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from generative.training.curves import CURVES_NAME, draw_curves
from generative.training.devices import find_device
from generative.training.files import (
    MANIFEST_NAME,
    MAX_STATE_BYTES,
    DamagedFileError,
    json_bytes,
    read_file,
    read_json,
    read_listed,
    read_manifest,
    remove_leftovers,
    set_aside,
    write_file,
    write_json,
)
from generative.training.lock import LOCK_NAME, FolderLock, RunInUseError
from generative.training.metrics import Metrics
from generative.training.platforms import count_cores
from generative.training.settings import (
    differences,
    from_json,
    may_change,
    to_json,
    upgraded,
)
from generative.training.tracking import find_tracker

if TYPE_CHECKING:
    import torch

    from generative.training.checkpoint import Checkpoints

__all__ = [
    "Run",
    "RunInUseError",
    "SettingsChangedError",
    "check_made",
    "collect_versions",
    "read_config",
    "read_result",
]

CONFIG_NAME = "config.json"
RESULT_NAME = "result.json"
VERSIONS_NAME = "versions.json"
CHECKPOINTS_NAME = "checkpoints"
INDEX_NAME = "index.jsonl"
DIGEST_KEY, MADE_KEY = "sha256", "made"
MAX_BYTES = 2**34
"""Largest manifest, index or array file beside them, in bytes."""
PACKAGES = (
    "torch", "numpy", "gymnasium", "box2d", "numba", "safetensors", "cma", "stable-baselines3",
    "ray", "imageio-ffmpeg",
)  # fmt: skip


SPEED_ONLY = frozenset({"workers"})
"""Settings without influence on results: a finished run stays finished if one of them changes."""


class SettingsChangedError(ValueError):
    """The run in a folder was begun with other settings."""


class Run:
    """A run folder, held by this process until `close` or the end of the `with` block.

    Attributes:
        path: the folder.
        kind: the command that made it, e.g. "train_vae".
        config: the settings (the dataclass given to `open`).
        seed: config.seed, or 0 if it has none.
        metrics: log of numbers, also in a tracker (`generative.training.tracking`); not in
            TensorBoard if config.tensorboard is False.
        versions: present versions of Python and the packages, and the machine.
    """

    def __init__(self, path: Path, config: Any, kind: str, lock: FolderLock):
        self.path = path
        self.config = config
        self.kind = kind
        self.seed: int = getattr(config, "seed", 0)
        tracker = find_tracker(path, kind, to_json(config))
        self.metrics = Metrics(path, getattr(config, "tensorboard", True), tracker)
        self.versions = collect_versions()
        self._lock = lock
        self._folder = os.stat(path)

    @classmethod
    def open(cls, args: Any, out: Path | None = None, *, kind: str) -> Run:
        """Make the folder, or continue the run in it.

        Settings must be those the run was begun with. Exceptions are the fields named by the class
        attribute `resumable_fields` (budgets and logging), and `out` with the paths below it, so
        that a folder can be moved. A finished run whose budget is changed is no longer finished.
        Models and recordings that settings name must be the same files as at the beginning.

        Args:
            args: settings, a dataclass.
            out: the folder; by default `args.out`.
            kind: name of the command.
        Raises:
            SettingsChangedError: lists every setting that differs, or names the model or recording
                that has changed.
            RunInUseError: another process is working in the folder.
            ValueError: the folder holds something other than a run, a run of another kind, or one
                with more steps than asked for, or this machine has no device `args.device`.
        """
        path = Path(args.out if out is None else out)
        if getattr(args, "device", "auto") not in ("auto", "cpu"):
            find_device(args.device)
        settings = to_json(args)
        if from_json(type(args), settings) != args:
            raise TypeError(f"settings {args} do not survive config.json; use simpler types")
        _refuse_strangers(path)
        path.mkdir(parents=True, exist_ok=True)
        lock = FolderLock(path)
        try:
            remove_leftovers(path)
            _write_config(path, args, kind)
            run = cls(path, args, kind, lock)
            _write_versions(path, run.versions)
        except BaseException:
            lock.release()
            raise
        return run

    @functools.cached_property
    def device(self) -> torch.device:
        """Device of config.device, or of "auto" without such a setting; see `find_device`."""
        return find_device(getattr(self.config, "device", "auto"))

    def rng(self, name: str, *numbers: int) -> np.random.Generator:
        """NumPy generator for one purpose, the same in every process that asks for it.

        Args:
            name: the purpose, e.g. "tracks".
            numbers: distinguish repeats, e.g. round and episode.
        """
        return np.random.default_rng(np.random.SeedSequence(self._entropy(name, numbers)))

    def seed_for(self, name: str, *numbers: int) -> int:
        """Seed in 0 .. 2**63 - 1 for one purpose; see `rng`."""
        return self._entropy(name, numbers) % 2**63

    @functools.cached_property
    def checkpoints(self) -> Checkpoints:
        """Checkpoints of this run; loading one restores the metrics logged up to it."""
        from generative.training.checkpoint import Checkpoints

        return Checkpoints(self.path / CHECKPOINTS_NAME, run=self)

    def mark(self) -> dict[str, Any]:
        """Record in a checkpoint that identifies it: the run it belongs to, and its metrics."""
        self.check_folder()
        self.metrics.sync()
        settings = to_json(self.config)
        return {"kind": self.kind, "settings": settings, "metrics": self.metrics.text}

    def foreign(self, mark: Any) -> str:
        """Reason why a checkpoint with this mark is of another run; "" if it is of this one."""
        types = {"kind": str, "settings": dict, "metrics": str}
        if not isinstance(mark, dict) or {k: type(v) for k, v in mark.items()} != types:
            return "belongs to nothing that is known"
        if mark["kind"] != self.kind:
            return f"belongs to a run of {mark['kind']}"
        fixed = _changes(mark["settings"], self.config)[1]
        pairs = [f"{name} {old!r}, not {new!r}" for name, (old, new) in fixed.items()]
        return f"belongs to another run ({'; '.join(pairs)})" if pairs else ""

    def check_folder(self) -> None:
        """Raise FileNotFoundError if the folder is no longer where it was opened."""
        try:
            same = os.path.samestat(os.stat(self.path), self._folder)
        except OSError:
            same = False
        if not same:
            raise FileNotFoundError(
                f"{self.path} was moved or deleted while this run worked in it; the same command "
                "continues what is left, with --out where it is now"
            ) from None

    @property
    def done(self) -> bool:
        """True if `finish` was called, by this process or an earlier one.

        Raises:
            DamagedFileError: it was, but a file that the run made, such as a model, has changed.
        """
        if not (self.path / RESULT_NAME).exists():
            return False
        check_made(self.path)
        return True

    @property
    def result(self) -> dict[str, Any]:
        """Summary that `finish` wrote.

        Raises:
            DamagedFileError: there is no result, or it has changed.
        """
        return read_result(self.path)

    def finish(self, summary: dict[str, Any]) -> None:
        """Write curves.png, and result.json, which marks the run as complete.

        `read_result` reads it.

        Args:
            summary: numbers, strings, lists and dicts.
        Raises:
            ValueError: a number in summary is not finite.
        """
        self.check_folder()
        self.metrics.sync()
        self._write_curves()
        made = _made(self.path)
        content = {**summary, MADE_KEY: made} if made else summary
        try:
            digest = hashlib.sha256(json_bytes(content)).hexdigest()
            write_json(self.path / RESULT_NAME, {**content, DIGEST_KEY: digest})
        except ValueError as error:
            raise ValueError(f"the result of {self.path} is not finite: {summary}") from error

    def close(self) -> None:
        """Release the folder."""
        self.metrics.close()
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, error: BaseException | None, *__: object) -> None:
        try:
            if isinstance(error, OSError | DamagedFileError):
                self.check_folder()  # a missing folder explains an error about any file in it
            if error is not None:
                self._forget_if_empty()
        finally:
            self.close()

    def _write_curves(self) -> None:
        """Draw the logged curves, if there are any."""
        picture = draw_curves([json.loads(line) for line in self.metrics.text.splitlines()])
        if picture is not None:
            buffer = io.BytesIO()
            picture.save(buffer, format="png")
            write_file(self.path / CURVES_NAME, buffer.getvalue())

    def _forget_if_empty(self) -> None:
        """Remove the folder of a run that failed before it wrote anything, e.g. by a wrong path."""
        own = [self.path / name for name in (VERSIONS_NAME, CONFIG_NAME, LOCK_NAME)]
        with contextlib.suppress(OSError):  # it may be the working folder of a shell, or gone
            if set(self.path.iterdir()) <= set(own):
                for file in own:
                    file.unlink(missing_ok=True)
                self.path.rmdir()

    def _entropy(self, name: str, numbers: tuple[int, ...]) -> int:
        """Derive 256 bits from the seed and the purpose."""
        # Hashed, because SeedSequence([1, 2]) and SeedSequence([1 + 2 * 2**32]) are the same.
        key = json.dumps([self.seed, name, *(int(n) for n in numbers)]).encode()
        return int.from_bytes(hashlib.sha256(key).digest(), "little")


def read_config(path: Path) -> tuple[str, dict[str, Any]]:
    """Read (kind, settings as JSON) of the run in a folder.

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
    """Read the summary given to `Run.finish` by the run in a folder.

    Raises:
        DamagedFileError: there is no result, or it has changed since it was written.
    """
    content = _read_result(Path(path))
    content.pop(MADE_KEY, None)
    return content


def check_made(path: Path, name: str | None = None) -> None:
    """Check that the models and recordings of a finished run are unchanged since it ended.

    Args:
        path: the run's folder; nothing is checked if it is no finished run.
        name: name of one folder in it; by default all are checked.
    Raises:
        DamagedFileError: names the file that has changed, and says what to do.
    """
    if not (path / RESULT_NAME).exists():
        return
    try:
        made, now = _read_result(path).get(MADE_KEY, {}), _made(path)
        for place, digest in made.items() if isinstance(made, dict) else ():
            if name not in (None, Path(place).parts[0]):
                continue
            if now.get(place) != digest:
                what = "has changed since the run made it" if place in now else "is missing"
                raise DamagedFileError(f"{path / place}: {what}")
            if Path(place).name == MANIFEST_NAME:
                _check_manifest((path / place).parent)
    except DamagedFileError as error:
        raise DamagedFileError(
            f"{error}; delete {path / RESULT_NAME}, and the same command makes it again"
        ) from error


def _check_manifest(folder: Path) -> None:
    """Compare all files that a manifest lists with their hashes."""
    listed = read_json(folder / MANIFEST_NAME)
    files = listed.get("files") if isinstance(listed, dict) else None
    entries = read_manifest(folder, set(files) if isinstance(files, dict) else set())
    for file, entry in entries.items():
        read_listed(folder / Path(file).name, entry, MAX_STATE_BYTES)


def _read_result(path: Path) -> dict[str, Any]:
    """Content of result.json without its digest."""
    file = path / RESULT_NAME
    content = read_json(file)
    digest = content.pop(DIGEST_KEY, None) if isinstance(content, dict) else None
    if digest != hashlib.sha256(json_bytes(content)).hexdigest():
        raise DamagedFileError(f"{file}: its content has changed since it was written")
    return content


def collect_versions() -> dict[str, Any]:
    """Versions of Python and packages, processor and threads, which a result may depend on."""
    torch = sys.modules.get("torch")
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_name(),
        "cores": count_cores(),
        "torch_threads": torch.get_num_threads() if torch else None,
        "gpu": torch.cuda.get_device_name() if torch and torch.cuda.is_available() else None,
        "packages": dict(_package_versions()),
    }


@functools.cache  # a program with many runs would read the same files for each
def _package_versions() -> dict[str, str]:
    packages = {}
    for name in PACKAGES:
        try:
            packages[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return packages


def _refuse_strangers(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is a file; give the name of a folder")
    known = {CONFIG_NAME, LOCK_NAME}
    names = {entry.name for entry in path.iterdir()} if path.exists() else set()
    names = {name for name in names if not name.endswith(".tmp")}
    if names and CONFIG_NAME not in names and not names <= known:
        raise ValueError(f"{path} holds files but is not a run; give an empty or new folder")


def _write_config(path: Path, args: Any, kind: str) -> None:
    file, settings = path / CONFIG_NAME, to_json(args)
    if not file.exists():
        begun = {name: _listings(folder, depth=1) for name, folder in _inputs(args)}
    else:
        old_kind, old = read_config(path)
        if old_kind != kind:
            raise ValueError(f"{path} is a run of {old_kind}, not of {kind}; choose another folder")
        changed, fixed = _changes(old, args)
        if fixed:
            lines = [f"  {n}: it has {a!r}, you ask for {b!r}" for n, (a, b) in fixed.items()]
            raise SettingsChangedError(
                f"{path} was begun with other settings:\n"
                + "\n".join(lines)
                + "\nChoose another folder, or use the run's own settings (--resume)."
            )
        begun = _check_inputs(path, args)
        made = [int(p.name) for p in path.glob(f"{CHECKPOINTS_NAME}/*") if p.name.isdecimal()]
        if "steps" in changed and settings["steps"] < max(made, default=0):
            raise ValueError(
                f"{path} has had {max(made)} steps, more than the {settings['steps']} asked for"
            )
        if changed.keys() - SPEED_ONLY - {"out"}:
            (path / RESULT_NAME).unlink(missing_ok=True)
        if not differences(old, settings):
            return
    write_json(file, {"format": 1, "kind": kind, "settings": settings, "inputs": begun})


def _changes(old: dict[str, Any], args: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Differences from old settings in JSON form to args, and those of them that are refused.

    `out`, and paths that moved along with it, may differ and are left out.
    """
    changed = differences(_as_now(type(args), old), to_json(args))
    moved = changed.get("out")
    if moved:
        changed = {n: pair for n, pair in changed.items() if not _moved_along(pair, moved)}
        changed["out"] = moved
    free = getattr(args, "resumable_fields", frozenset()) | {"out"}
    return changed, {n: pair for n, pair in changed.items() if not may_change(n, free)}


def _as_now(kind: type, settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of an older run as this version would write them, at every depth."""
    try:
        return to_json(from_json(kind, settings))
    except ValueError:  # of another command, or damaged: they are compared as they stand
        return upgraded(kind, settings)


def _inputs(args: Any) -> Iterator[tuple[str, Path]]:
    """Input folders of the settings, which may not change during a run, by name of the setting."""
    free = getattr(args, "resumable_fields", frozenset()) | {"out"}
    for field in dataclasses.fields(args):
        value = getattr(args, field.name)
        for i, path in enumerate(value if isinstance(value, tuple) else (value,)):
            if isinstance(path, Path) and field.name not in free:
                yield f"{field.name}.{i}", path


def _check_inputs(path: Path, args: Any) -> dict[str, Any]:
    """Check that the inputs of a run have not changed; returns those it began with, or {}."""
    begun = read_json(path / CONFIG_NAME).get("inputs", {})
    if not isinstance(begun, dict):
        raise DamagedFileError(f"{path / CONFIG_NAME}: is not the config of a run")
    for name, folder in _inputs(args):
        before, now = begun.get(name), _listings(folder, depth=1)
        if before and now and before != now:  # missing ones raise an error where they are read
            raise SettingsChangedError(
                f"{path} was begun with another {folder} than there is now: put that one back, or "
                f"choose another folder (or delete {path}, to begin again with this one)"
            )
    return begun


def _made(path: Path) -> dict[str, str]:
    """SHA-256 of the models and recordings that a run has made, by their place in its folder."""
    loose = {file.name: _sha256(file) for file in sorted(path.glob("*.safetensors"))}
    return _listings(path, depth=2) | loose


def _sha256(file: Path) -> str:
    return hashlib.sha256(read_file(file, MAX_BYTES)).hexdigest()


def _listings(folder: Path, depth: int) -> dict[str, str]:
    """SHA-256 of every manifest and index of episodes in a folder and below it, by its place.

    They hold hashes themselves, and so stand for whole models and recordings. Runs inside a run,
    and checkpoints, are left out: they have their own hashes.
    """
    found = {}
    for level in range(depth + 1):
        for name in (MANIFEST_NAME, INDEX_NAME):
            for file in folder.glob("*/" * level + name):
                between = list(file.parents)[:level]
                own = any((path / VERSIONS_NAME).exists() for path in between)
                if own or file.is_symlink() or CHECKPOINTS_NAME in file.parts[-level - 1 :]:
                    continue
                place = file.relative_to(folder).as_posix()
                found[place] = _sha256(file)
    return dict(sorted(found.items()))


def _moved_along(pair: tuple[Any, Any], outs: tuple[Any, Any]) -> bool:
    """True if a setting (old, new) is a path, or paths, unchanged relative to the run's folder."""
    old, new = (value if isinstance(value, list) else [value] for value in pair)
    if len(old) != len(new) or not all(p and isinstance(p, str) for p in [*old, *new, *outs]):
        return False
    return all(
        a == b or os.path.relpath(a, outs[0]) == os.path.relpath(b, outs[1])
        for a, b in zip(old, new, strict=True)
    )


def _write_versions(path: Path, versions: dict[str, Any]) -> None:
    """Write one entry per set of versions that worked on the run, the newest last."""
    file = path / VERSIONS_NAME
    entries: Any = []
    if os.path.lexists(file):
        try:
            entries = read_json(file)
            if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
                raise DamagedFileError(f"{file}: is no list of versions")
        except DamagedFileError as error:
            aside, entries = set_aside(file), []
            print(f"{error}; it is begun anew, {aside.name} is what it was", file=sys.stderr)
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
