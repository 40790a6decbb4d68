"""Input and output of a certificate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

__all__ = ["Certificate", "Line", "Settings"]


@dataclass(frozen=True)
class Settings:
    """Settings of a certificate."""

    work: Path
    """Empty folder of this certificate for runs."""
    seed: int = 1
    data: Path = Path("data")
    """Folder of the files that a user provides."""
    smoke: bool = False
    """Take a few steps, to see that everything runs; the bars will be missed."""


@dataclass(frozen=True)
class Line:
    """One number that is certified."""

    what: str
    value: float
    """Value that was reached."""
    reference: float | None
    """Exact optimum, or the value of a known method; None if there is none."""
    reference_name: str
    measure: float
    """Number compared with the bar: as `what` says, the value, its gap, or either as a share."""
    bar: float
    """The most that the measure may be."""

    @property
    def gap(self) -> float | None:
        """Value minus reference, in its units; negative if the value is lower."""
        return None if self.reference is None else self.value - self.reference

    @property
    def holds(self) -> bool:
        """True if the measure is not above the bar."""
        return self.measure <= self.bar


class Certificate(NamedTuple):
    """A family, and the function that trains it and returns the measured lines."""

    family: str
    certify: Callable[[Settings], list[Line]]
    chapter: int
    """Chapter of docs/book.md."""
    given: bool = False
    """True if it needs a file that a user provides; without it, the certificate is left out."""
