"""Settings dataclasses to JSON and back, and differences between two of them."""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from generative.training.files import cut, short
from generative.training.words import with_article

T = TypeVar("T")
ABSENT = "(not there)"


def to_json(value: Any) -> Any:
    """Convert settings to JSON values; `from_json` converts them back to an equal object.

    Dataclasses become objects, tuples lists, paths strings; infinities are written as strings.

    Raises:
        TypeError: a value of a type that settings do not use.
        ValueError: a value is NaN, which does not equal itself.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init
        }
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        if math.isnan(value):
            raise ValueError("a setting is NaN; use None for 'not set'")
        return str(value)
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise TypeError(
        f"a setting is {with_article(type(value).__name__)}, which config.json cannot hold"
    )


def from_json(kind: type[T], data: Any, where: str = "") -> T:
    """Convert the output of `to_json` to an object of type kind.

    Args:
        kind: dataclass, or any annotation of its fields.
        data: parsed JSON.
        where: dotted name, for errors.
    Raises:
        ValueError: a field is unknown, missing or of another type; names it.
    """
    return _read(kind, data, where)


def recast(kind: type[T], source: Any, **changes: Any) -> T:
    """A dataclass of `kind` made of the fields that source has by the same names, and of changes.

    Makes a stage's run of its settings, given where it runs; and takes the settings out of a run.
    """
    shared = {name for name in _names(kind) if hasattr(source, name)} - set(changes)
    return kind(**{name: getattr(source, name) for name in shared}, **changes)


def upgraded(kind: type, data: dict[str, Any]) -> dict[str, Any]:
    """Settings in JSON form that an older version wrote, as this version writes them.

    A dataclass whose fields have changed has a class method `upgrade` for this.

    Raises:
        ValueError: they mean what can no longer be done; says what to do instead.
    """
    upgrade = getattr(kind, "upgrade", None)
    return data if upgrade is None else upgrade(data)


def flatten(data: Any, prefix: str = "") -> dict[str, Any]:
    """Values of nested JSON objects by dotted name: {"model.latent_dim": 32}."""
    if not isinstance(data, dict) or not data:
        return {prefix: data}
    flat: dict[str, Any] = {}
    for key, item in data.items():
        flat.update(flatten(item, f"{prefix}.{key}" if prefix else key))
    return flat


def differences(old: Any, new: Any) -> dict[str, tuple[Any, Any]]:
    """Fields in which two settings in JSON form differ: (old, new) by dotted name."""
    before, after = flatten(old), flatten(new)
    return {
        name: (before.get(name, ABSENT), after.get(name, ABSENT))
        for name in {**before, **after}
        if before.get(name, ABSENT) != after.get(name, ABSENT)
    }


def may_change(name: str, allowed: frozenset[str]) -> bool:
    """True if the field of this dotted name, or a group that holds it, is in allowed."""
    parts = name.split(".")
    return any(".".join(parts[:n]) in allowed for n in range(1, len(parts) + 1))


def _read(kind: Any, data: Any, where: str) -> Any:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return _read(args[0], data, where)
    if origin in (Union, types.UnionType):
        return _read_union(args, data, where)
    if origin is Literal:
        if any(type(data) is type(choice) and data == choice for choice in args):
            return data
    elif kind is Any:
        return data
    elif dataclasses.is_dataclass(kind):
        if isinstance(data, dict):
            return _read_dataclass(kind, data, where)
    elif kind is type(None):
        if data is None:
            return None
    elif kind is float:
        if type(data) in (int, float) or data in ("inf", "-inf"):
            return float(data)
    elif kind is Path:
        if type(data) is str:
            return Path(data)
    elif kind in (bool, int, str):
        if type(data) is kind:
            return data
    elif origin in (tuple, list) or kind in (tuple, list):
        if isinstance(data, list):
            return _read_sequence(origin or kind, args, data, where)
    elif (origin or kind) is dict:
        if isinstance(data, dict):
            value = args[1] if args else Any
            return {key: _read(value, item, f"{where}.{key}") for key, item in data.items()}
    else:
        raise TypeError(f"{where}: settings cannot have the type {kind}")
    raise ValueError(f"{where}: is {short(data)}, which is not a {getattr(kind, '__name__', kind)}")


def _read_union(kinds: tuple[Any, ...], data: Any, where: str) -> Any:
    for kind in kinds:  # of several dataclasses, the one with these fields explains the error
        if dataclasses.is_dataclass(kind) and isinstance(data, dict) and _names(kind) == set(data):
            return _read(kind, data, where)
    for kind in kinds:
        try:
            return _read(kind, data, where)
        except ValueError:
            continue
    raise ValueError(f"{where}: is {short(data)}, which fits none of {kinds}")


def _read_sequence(origin: type, args: tuple[Any, ...], data: list[Any], where: str) -> Any:
    if origin is list or (len(args) == 2 and args[1] is Ellipsis):
        kinds = [args[0] if args else Any] * len(data)
    else:
        kinds = list(args) if args and args != ((),) else [Any] * len(data)
    if len(kinds) != len(data):
        raise ValueError(f"{where}: has {len(data)} values, {len(kinds)} are needed")
    return origin(
        _read(k, item, f"{where}[{i}]") for i, (k, item) in enumerate(zip(kinds, data, strict=True))
    )


def _read_dataclass(kind: Any, data: dict[str, Any], where: str) -> Any:
    names, data = _names(kind), upgraded(kind, data)
    unknown, missing = sorted(set(data) - names), sorted(names - set(data))
    if unknown or missing:
        text = [f"unknown: {cut(', '.join(unknown), 60)}"] * bool(unknown)
        text += [f"missing: {', '.join(missing)}"] * bool(missing)
        raise ValueError(f"{where or kind.__name__}: fields do not fit, {'; '.join(text)}")
    hints = _hints(kind)
    values = {
        name: _read(hints[name], data[name], f"{where}.{name}" if where else name) for name in names
    }
    return kind(**values)


def _names(kind: Any) -> set[str]:
    return {f.name for f in dataclasses.fields(kind) if f.init}


@functools.lru_cache(maxsize=256)
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind, include_extras=True)
