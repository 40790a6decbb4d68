"""Checkpoints: whole or absent, verified when read, and unable to run code.

A state, as from `state_dict()`, is nested dicts, lists and tuples of tensors, arrays, numbers,
strings and None. Tensors go to a safetensors file, the rest to JSON, and a manifest holds the
SHA-256 of both.

    save_state(Path("runs/vae/best"), {"model": model.state_dict(), "step": 400})
    state = load_state(Path("runs/vae/best"))
"""

from __future__ import annotations

import math
import shutil
import sys
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from generative.training.files import (
    MAX_LIST_BYTES,
    MAX_STATE_BYTES,
    DamagedFileError,
    json_bytes,
    parse_json,
    read_folder,
    reading,
    remove_leftovers,
    set_aside,
    short,
    write_folder,
)
from generative.training.words import with_article

__all__ = [
    "Checkpoints",
    "DamagedFileError",
    "NonFiniteError",
    "check_finite",
    "load_state",
    "pack_state",
    "read_tensors",
    "save_state",
    "unpack_state",
]

TENSORS_NAME = "state.safetensors"
JSON_NAME = "state.json"
MAX_HEADER_BYTES = 4 * 2**20
ITEM_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "U16": 2, "I16": 2, "F16": 2,
    "BF16": 2, "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8, "C64": 8,
}  # fmt: skip
"""Bytes of a number, by its type in a safetensors file."""


def save_state(folder: Path, state: Any) -> None:
    """Write a nested state into folder, all of it or nothing.

    Raises:
        TypeError: a leaf is neither tensor, array, number, string nor None; names its place.
        OSError: disk full or not writable; the earlier content of folder stays whole.
    """
    tree, tensors = pack_state(state)
    files = {TENSORS_NAME: safetensors.torch.save(tensors), JSON_NAME: json_bytes(tree)}
    write_folder(Path(folder), files)


def load_state(folder: Path) -> Any:
    """Read a state written by `save_state`; tensors are on the CPU, with their old strides.

    Raises:
        DamagedFileError: a file is missing, cut or changed; names it.
    """
    folder = Path(folder)
    files = read_folder(folder, {TENSORS_NAME: MAX_STATE_BYTES, JSON_NAME: MAX_LIST_BYTES})
    tensors = read_tensors(files[TENSORS_NAME], folder / TENSORS_NAME)
    with reading(folder / JSON_NAME, "does not fit its tensors"):
        return unpack_state(parse_json(files[JSON_NAME], folder / JSON_NAME), tensors)


class NonFiniteError(FloatingPointError):
    """A loss, a weight or a buffer became NaN or infinite."""


def check_finite(state: Any, what: str, step: int, seed: int | None) -> None:
    """Raise if a weight, buffer or average in a state is not finite.

    Args:
        what, step, seed: named in the error.
    Raises:
        NonFiniteError: names the first such tensor by its place in the state.
    """
    for name, tensor in _tensors(state, ""):
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise NonFiniteError(
                f"{what}: {name.removeprefix('.')} is not finite after step {step}, seed {seed}, "
                "and was not saved; earlier checkpoints stay. Lower the learning rate, or look "
                "at the batches since then"
            )


def _tensors(state: Any, where: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(state, Tensor):
        yield where, state
    elif isinstance(state, (dict, list, tuple)):
        items = state.items() if isinstance(state, dict) else enumerate(state)
        for key, item in items:
            yield from _tensors(item, f"{where}.{key}")


class Marked(Protocol):
    """Interface that checkpoints need of their run, a `generative.training.run.Run`."""

    @property
    def metrics(self) -> Any:
        """Its `Metrics`, which loading a checkpoint rewinds."""
        ...

    def mark(self) -> dict[str, Any]:
        """Record in a checkpoint that identifies the run."""
        ...

    def foreign(self, mark: Any) -> str:
        """Reason why a checkpoint with this mark is of another run; "" if it is of this one."""
        ...


class Checkpoints:
    """The numbered checkpoints of a run: runs/vae/checkpoints/000400. The newest are kept.

    One process writes at a time (`Run` holds the lock). A checkpoint records its step and its run,
    so that one in the place of another counts as damaged.

    Args:
        folder: holds one folder per checkpoint; made when the first is saved.
        keep: number of checkpoints to keep; at least 2, so that a damaged one has a predecessor.
        run: the run they belong to, for `Run.checkpoints`; without it only the step is checked.
    """

    def __init__(self, folder: Path, keep: int = 2, run: Marked | None = None):
        if keep < 2:
            raise ValueError(f"keep is {keep}; at least 2 checkpoints must be kept")
        self.folder = Path(folder)
        self.keep = keep
        self._run = run

    def steps(self) -> list[int]:
        """Steps with a checkpoint, oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted(int(p.name) for p in self.folder.iterdir() if p.name.isdecimal())

    def path(self, step: int) -> Path:
        """Folder of the checkpoint of a step."""
        return self.folder / f"{step:06d}"

    def save(self, step: int, state: Any) -> Path:
        """Write a checkpoint, then delete those beyond `keep`.

        Raises:
            OSError: disk full or not writable; the earlier checkpoints stay whole.
        """
        mark = None if self._run is None else self._run.mark()
        try:
            save_state(self.path(step), {"step": step, "run": mark, "state": state})
        except OSError as error:
            steps = self.steps()
            kept = f"the one of step {steps[-1]} is whole" if steps else "there is no earlier one"
            reason = f"no checkpoint of step {step} ({error.strerror}); {kept}"
            raise OSError(error.errno, reason, str(self.path(step))) from error
        for old in self.steps()[: -self.keep]:
            shutil.rmtree(self.path(old), ignore_errors=True)
        return self.path(step)

    def load_latest(self) -> tuple[int, Any] | None:
        """(step, state) of the newest whole checkpoint; None if none was ever saved.

        A damaged one is named on stderr, set aside as NAME.damaged, and the one before is used.
        The metrics of the run are restored to that step.

        Raises:
            DamagedFileError: all checkpoints are damaged.
        """
        if self.folder.is_dir():
            remove_leftovers(self.folder)
        problems: list[str] = []
        for step in reversed(self.steps()):
            try:
                state, mark = self._load(step)
            except DamagedFileError as error:
                problems.append(str(error))
                print(f"damaged checkpoint: {error}; trying the one before", file=sys.stderr)
                continue
            for bad in [s for s in self.steps() if s > step]:
                set_aside(self.path(bad))
            if self._run is not None and mark is not None:
                self._run.metrics.restore(mark["metrics"])
            elif self._run is not None:
                self._run.metrics.rewind(step)
            return step, state
        if problems:
            raise DamagedFileError(
                f"no checkpoint in {self.folder} is whole: {'; '.join(problems)}. "
                f"Delete that folder to start from the beginning"
            )
        if self._run is not None:
            self._run.metrics.restore("")
        return None

    def _load(self, step: int) -> tuple[Any, dict[str, Any] | None]:
        """State and mark of a checkpoint; one of an earlier version has no mark."""
        path = self.path(step)
        kept = load_state(path)
        if not isinstance(kept, dict) or kept.keys() != {"step", "run", "state"}:
            return kept, None
        if kept["step"] != step:
            raise DamagedFileError(f"{path}: is the checkpoint of step {kept['step']}")
        mark = kept["run"]
        if self._run is not None and mark is not None and (reason := self._run.foreign(mark)):
            raise DamagedFileError(f"{path}: {reason}")
        return kept["state"], mark


def pack_state(state: Any) -> tuple[Any, dict[str, Tensor]]:
    """Split a nested state into a JSON tree and named contiguous CPU tensors.

    In the tree, {"$tensor": name} stands for a tensor (with "order" if its memory is permuted, as
    in channels_last). Other objects with a "$" key stand for types that JSON lacks.
    """
    tensors: dict[str, Tensor] = {}
    return _pack(state, "state", tensors), tensors


def unpack_state(tree: Any, tensors: dict[str, Tensor]) -> Any:
    """Rebuild a state; the inverse of `pack_state`."""
    if isinstance(tree, list):
        return [unpack_state(item, tensors) for item in tree]
    if not isinstance(tree, dict):
        return tree
    if "$tensor" in tree:
        tensor = tensors[tree["$tensor"]]
        if "order" in tree:
            tensor = tensor.permute(*np.argsort(tree["order"]).tolist())
        return tensor.numpy() if tree.get("array") else tensor
    if "$tuple" in tree:
        return tuple(unpack_state(item, tensors) for item in tree["$tuple"])
    if "$float" in tree:
        return float(tree["$float"])
    if "$items" in tree:
        return {
            unpack_state(key, tensors): unpack_state(item, tensors) for key, item in tree["$items"]
        }
    return {key: unpack_state(item, tensors) for key, item in tree.items()}


def read_tensors(data: bytes, path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file given as bytes; path is named in errors."""
    read_header(data, path)
    with reading(path, "is not a whole safetensors file"):
        return safetensors.torch.load(data)


def read_header(data: bytes, path: Path) -> dict[str, Any]:
    """{"dtype", "shape", "data_offsets"} of each tensor in a safetensors file, and nothing more.

    Types and shapes are checked against the bytes in the file, so that a caller can compare them
    with what it needs before any tensor is allocated.

    Raises:
        DamagedFileError: the header is longer than the file or than 4 MiB, is no JSON, or does not
            fit the data behind it.
    """
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > min(MAX_HEADER_BYTES, len(data) - 8):
        raise DamagedFileError(f"{path}: is not a whole safetensors file (header of {size} bytes)")
    header = parse_json(data[8 : 8 + size], path)
    if not isinstance(header, dict):
        raise DamagedFileError(f"{path}: is not a safetensors file (header is no object)")
    header.pop("__metadata__", None)
    parts = []
    for name, entry in header.items():
        with reading(path, f"is damaged, tensor {short(name)} is not what its header says"):
            shape, (begin, end) = entry["shape"], entry["data_offsets"]
            numbers = [*shape, begin, end]
            if len(shape) > 16 or not all(type(n) is int and 0 <= n < 2**48 for n in numbers):
                raise ValueError(f"shape {short(shape)}, bytes {short([begin, end])}")
            if math.prod(shape) * ITEM_BYTES[entry["dtype"]] != end - begin:
                raise ValueError(f"{short(shape)} {entry['dtype']} in {end - begin} bytes")
            parts.append((begin, end))
    ends = [0, *(end for _, end in sorted(parts))]
    if [begin for begin, _ in sorted(parts)] != ends[:-1] or ends[-1] != len(data) - 8 - size:
        raise DamagedFileError(f"{path}: is damaged, its tensors are not all of its bytes in turn")
    return header


def _pack(value: Any, where: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        return _pack_tensor(value, where, tensors)
    if isinstance(value, np.ndarray):
        if value.dtype == object:
            raise TypeError(f"{where} is an array of Python objects, which is not saved")
        tensor = torch.from_numpy(np.array(value, order="C"))
        return {**_pack_tensor(tensor, where, tensors), "array": True}
    if type(value) in (dict, OrderedDict):
        if all(type(key) is str and not key.startswith("$") for key in value):
            return {key: _pack(item, f"{where}.{key}", tensors) for key, item in value.items()}
        items = [
            [_pack(key, f"{where}, a key,", tensors), _pack(item, f"{where}.{key}", tensors)]
            for key, item in value.items()
        ]
        return {"$items": items}
    if type(value) is list:
        return [_pack(item, f"{where}.{i}", tensors) for i, item in enumerate(value)]
    if type(value) is tuple:
        return {"$tuple": [_pack(item, f"{where}.{i}", tensors) for i, item in enumerate(value)]}
    if isinstance(value, np.generic):
        return _pack(value.item(), where, tensors)
    if type(value) is float and not math.isfinite(value):
        return {"$float": str(value)}
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise TypeError(
        f"{where} is {with_article(type(value).__name__)}; a state holds tensors, arrays, "
        "numbers, strings, None, and dicts, lists and tuples of them"
    )


def _pack_tensor(value: Tensor, where: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    # A copy of every tensor, as safetensors requires that tensors share no memory.
    tensor = value.detach().to("cpu", copy=True, memory_format=torch.preserve_format)
    name = where
    while name in tensors:  # {"a": {"b": x}, "a.b": y} and {1: x, "1": y} give equal names
        name += "'"
    entry: dict[str, Any] = {"$tensor": name}
    order = sorted(range(tensor.dim()), key=lambda i: (-tensor.stride(i), i))
    if not tensor.is_contiguous() and tensor.permute(order).is_contiguous():
        entry["order"] = order
        tensor = tensor.permute(order)
    tensors[entry["$tensor"]] = tensor.contiguous()
    return entry
