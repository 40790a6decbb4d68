"""The record of an evolution: a line for each generation, on the disk before the next begins.

A line holds a digest of itself and of the line before it. Reading the journal finds lines that are
cut, changed, lost or out of place, and sets everything from there on aside; the search continues
from the lines before. Scoring is pure, so the lines that follow are the same.
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from generative.training.files import (
    DamagedFileError,
    append_file,
    parse_json,
    read_file,
    write_file,
)

__all__ = ["Generation", "Journal"]

MAX_BYTES = 2**30
DIGEST = "sha256"


@dataclass(frozen=True)
class Generation:
    """One line of the journal."""

    index: int
    seed: int
    """Seed of the search."""
    candidates_sha256: str
    scores: list[float]
    sigma: float
    mean_score: float | None = None
    """Score of the distribution's mean after this generation, if it was tested."""

    @property
    def best(self) -> float:
        """Highest score of the generation."""
        return max(self.scores)

    @property
    def average(self) -> float:
        """Mean score of the generation."""
        return float(np.mean(self.scores))

    @property
    def deviation(self) -> float:
        """Standard deviation of the scores."""
        return float(np.std(self.scores))


class Journal:
    """The journal in a file, which need not exist yet.

    Args:
        path: a JSON-lines file.
        of: any text that describes the inputs of its scores beside the seed; a journal of another
            text counts as damaged.

    Attributes:
        generations: generations in the journal, read once.
    """

    def __init__(self, path: Path, of: str = ""):
        self.path = Path(path)
        self._digest = of
        self.generations: list[Generation] = []
        if self.path.exists():
            self._read()

    def append(self, generation: Generation) -> None:
        """Add a line; it is on the disk when this returns.

        Raises:
            OSError: the disk is full, or not writable; the journal stays unchanged.
        """
        line, digest = _line(generation, self._digest)
        append_file(self.path, line, sync=True)
        self._digest = digest
        self.generations.append(generation)

    def _read(self) -> None:
        data, at = read_file(self.path, MAX_BYTES), 0
        while at < len(data):
            end = data.find(b"\n", at) + 1
            try:
                if not end:
                    raise DamagedFileError("is cut off")
                self._take(data[at:end])
            except DamagedFileError as error:
                self._put_aside(data[:at], data, str(error), last=not end)
                return
            at = end

    def _take(self, line: bytes) -> None:
        try:
            fields = parse_json(line, self.path)
            generation = Generation(**{k: v for k, v in fields.items() if k != DIGEST})
            whole, digest = _line(generation, self._digest)
            if whole != line and not self.generations:
                whole, digest = _line(generation, "")  # of a version that did not say of what
        except (ValueError, TypeError, AttributeError) as error:
            raise DamagedFileError(f"is no record of a generation ({error})") from error
        if whole != line:
            raise DamagedFileError("has changed since it was written, or follows another one")
        self._digest = digest
        self.generations.append(generation)

    def _put_aside(self, good: bytes, data: bytes, why: str, last: bool) -> None:
        """Keep the good lines and set the others aside; one cut by a crash gives no message."""
        if not last:
            aside = self.path.with_name(f"{self.path.name}.damaged")
            write_file(aside, data)
            print(
                f"{self.path}: line {len(self.generations) + 1} {why}; the search goes on from "
                f"the {len(self.generations)} generations before it; {aside.name} is what it was",
                file=sys.stderr,
            )
        write_file(self.path, good)


def _line(generation: Generation, before: str) -> tuple[bytes, str]:
    """Encode a line after one with the digest `before`; returns (line, its digest)."""
    fields: dict[str, Any] = asdict(generation)
    if fields["mean_score"] is None:
        del fields["mean_score"]
    digest = hashlib.sha256((before + json.dumps(fields, allow_nan=False)).encode()).hexdigest()
    return (json.dumps({**fields, DIGEST: digest}) + "\n").encode(), digest
