"""What a certificate is given and what it returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

__all__ = ["Certificate", "Line", "Settings"]


@dataclass(frozen=True)
class Settings:
    """How a certificate is to be made."""

    work: Path
    """Folder of its own, empty; runs go here."""
    seed: int = 1
    data: Path = Path("data")
    """Folder of the files that a user brings."""
    smoke: bool = False
    """A few steps, to see that everything runs; nothing will hold."""


@dataclass(frozen=True)
class Line:
    """One number that is certified."""

    what: str
    value: float
    """What was reached."""
    reference: float | None
    """The exact optimum, or what a known method reaches; None where there is none."""
    reference_name: str
    measure: float
    """What is held against the bar: as `what` says, the value, its gap, or either as a share."""
    bar: float
    """The measure has to stay below it."""

    @property
    def gap(self) -> float | None:
        """How far the value lies above the reference, in its units; below it if negative."""
        return None if self.reference is None else self.value - self.reference

    @property
    def holds(self) -> bool:
        """Whether the measure is below the bar."""
        return self.measure < self.bar


class Certificate(NamedTuple):
    """A family, and the function that trains it and returns what it measured."""

    family: str
    certify: Callable[[Settings], list[Line]]
    given: bool = False
    """Needs a file that a user brings; while it is missing, the certificate is left out."""
