"""Ranges of settings: stated once, beside the type, and checked for every source of settings.

    @dataclass(frozen=True)
    class Args(Checked):
        steps: Count = 100_000
        dropout: Share = 0.0
        channels: Widths = (32, 64)

`Args(steps=-5)`, `--steps -5` and a config.json with "steps": -5 then raise the same error.
"""

from __future__ import annotations

import functools
import math
import mimetypes
import re
import types
import typing
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Union

from generative.training.files import short

__all__ = [
    "Checked",
    "Choices",
    "Count",
    "CountOrZero",
    "Depth",
    "DepthOrZero",
    "Device",
    "Ending",
    "Finite",
    "Folder",
    "Length",
    "Limit",
    "NonNegative",
    "Positive",
    "Probability",
    "Quantile",
    "Range",
    "Seed",
    "Share",
    "Size",
    "SizeOrZero",
    "Sizes",
    "Waves",
    "Widths",
    "Workers",
]


FAR = 2**20
"""Ends of a range beyond this are named only to a user who exceeded them."""


class Limit(ABC):
    """Limit on the values of an annotated type: `value in limit`, and `str(limit)` in words."""

    @abstractmethod
    def __contains__(self, value: Any) -> bool: ...

    def asks(self, value: Any) -> str:
        """Limit in words for a message about this value, which lies outside."""
        return str(self)


@dataclass(frozen=True)
class Range(Limit):
    """Numbers from low to high, without NaN.

    Args:
        above: exclude low itself.
        below: exclude high itself.
    """

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    below: bool = False

    def __contains__(self, value: Any) -> bool:
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            return True  # "auto" leaves a number to the program
        low = value > self.low if self.above else value >= self.low
        return low and (value < self.high if self.below else value <= self.high)

    def __str__(self) -> str:
        """Range in words: "at least 1", "above 0 and below 1"."""
        low = f"{'above' if self.above else 'at least'} {self.low:,}"
        high = f"{'below' if self.below else 'at most'} {self.high:,}"
        if math.isinf(self.low) or math.isinf(self.high):
            finite = [
                text for text, end in ((low, self.low), (high, self.high)) if math.isfinite(end)
            ]
            return " ".join([*finite, *["and finite"] * self.below]) if finite else "finite"
        return f"{low} and {high}"

    def asks(self, value: Any) -> str:
        """Range in words, without a far end that the value does not exceed."""
        beyond = isinstance(value, (int, float)) and value > self.high
        if FAR <= self.high < math.inf and not beyond:
            return str(Range(self.low, above=self.above))
        return str(self)


class _DeviceName(Limit):
    def __contains__(self, value: Any) -> bool:
        return re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", value) is not None

    def __str__(self) -> str:
        return "auto, cpu, cuda, cuda:0 (or another number) or mps"


@dataclass(frozen=True)
class Ending(Limit):
    """File names with one of these endings.

    Args:
        endings: such as ".mp4".
        folder: also accept the name of a folder.
    """

    endings: tuple[str, ...]
    folder: bool = False

    def __contains__(self, value: Any) -> bool:
        ending = Path(value).suffix.lower()
        return ending in self.endings or (self.folder and value in FOLDER_NAME)

    def __str__(self) -> str:
        return f"a name that ends in {' or '.join(self.endings)}" + ", or a folder" * self.folder


class _FolderName(Limit):
    def __contains__(self, value: Any) -> bool:
        kind = mimetypes.guess_type(Path(value).name)[0] or ""
        return not kind.startswith(("image/", "video/", "audio/", "text/", "application/json"))

    def __str__(self) -> str:
        return "the name of a folder, without a file's ending"


FOLDER_NAME = _FolderName()


@dataclass(frozen=True)
class Length(Limit):
    """Tuples of low to high values."""

    low: int
    high: int

    def __contains__(self, value: Any) -> bool:
        return not isinstance(value, (tuple, list)) or self.low <= len(value) <= self.high

    def __str__(self) -> str:
        return f"at least {self.low} and at most {self.high} values"


Count = Annotated[int, Range(1, 2**40)]
"""Number of steps, episodes, or examples in a batch."""
CountOrZero = Annotated[int, Range(0, 2**40)]
"""As `Count`, or 0 for none or "choose for me"."""
Size = Annotated[int, Range(1, 2**20)]
"""Width of a layer, an image or a vocabulary."""
Depth = Annotated[int, Range(1, 1024)]
"""Number of layers or blocks in sequence."""
Choices = Annotated[int, Range(2, 2**16)]
"""Number of alternatives: classes, levels of a pixel."""
SizeOrZero = Annotated[int, Range(0, 2**20)]
"""As `Size`, or 0 for none or "choose for me"."""
DepthOrZero = Annotated[int, Range(0, 1024)]
Waves = Annotated[int, Range(0, 64)]
"""Number of sines and cosines, each of half the wavelength of the one before."""
Sizes = Annotated[tuple[Size, ...], Length(0, 64)]
"""Widths of layers; may be empty."""
Widths = Annotated[tuple[Size, ...], Length(1, 64)]
"""Widths of one layer or more; or a shape."""
Finite = Annotated[float, Range(-math.inf, math.inf, above=True, below=True)]
"""Any number except infinities and NaN."""
Positive = Annotated[float, Range(0, math.inf, above=True, below=True)]
NonNegative = Annotated[float, Range(0, math.inf, below=True)]
Share = Annotated[float, Range(0, 1, below=True)]
"""Fraction below 1, such as dropout or the decay of an average."""
Probability = Annotated[float, Range(0, 1)]
Quantile = Annotated[float, Range(0, 1, above=True)]
"""Fraction above 0, such as top_p."""
Workers = Annotated[int, Range(0, 4096)]
"""Number of processes or threads; the setting says what 0 means."""
Seed = Annotated[int, Range(0, 2**63 - 1)]
Folder = Annotated[Path, FOLDER_NAME]
"""Folder to write several files into."""
Device = Annotated[str, _DeviceName()]
"""Name of a device; `generative.training.devices` makes torch's device of it."""


class Checked:
    """Adds a `__post_init__` to a settings dataclass that checks the ranges of its annotations.

    A subclass that has a `__post_init__` of its own calls `super().__post_init__()` first.

    Raises:
        ValueError: names every field outside its range, and the range.
    """

    def __post_init__(self) -> None:
        wrong = [
            f"{field.name} is {short(getattr(self, field.name))}, and must be {limits}"
            for field in fields(self)  # type: ignore[arg-type]  # subclasses are dataclasses
            for limits in _violated(_hints(type(self))[field.name], getattr(self, field.name))
        ]
        if wrong:
            raise ValueError("; ".join(wrong))


def _violated(kind: Any, value: Any) -> Iterator[str]:
    """Limit that a value breaks, if any; for a tuple, the first one of its values."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        limits = [extra for extra in args[1:] if isinstance(extra, Limit)]
        broken = [limit.asks(value) for limit in limits if value not in limit]
        yield from broken[:1] or _violated(args[0], value)
    elif origin in (Union, types.UnionType):
        inner = [list(_violated(part, value)) for part in args if _fits(part, value)]
        yield from (inner[0] if inner and all(inner) else [])
    elif origin is tuple and isinstance(value, (tuple, list)):
        kinds = [args[0]] * len(value) if args[1:] == (Ellipsis,) else args
        if len(kinds) != len(value):
            yield f"{len(kinds)} values"
            return
        for part, item in zip(kinds, value, strict=True):
            for limits in _violated(part, item):
                yield limits
                return


def _fits(kind: Any, value: Any) -> bool:
    """True if a value can belong to this member of a union."""
    if kind is type(None) or value is None:
        return kind is type(None) and value is None
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        return _fits(args[0], value)
    if origin is typing.Literal:
        return value in args
    plain = origin or kind
    if plain is float:
        plain = (int, float)
    return not isinstance(plain, (type, tuple)) or isinstance(value, plain)


@functools.lru_cache(maxsize=512)
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind, include_extras=True)
