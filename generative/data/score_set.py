"""Scores in memory, with a fixed split."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from generative.data.image_set import PARTS
from generative.music.score import Score

__all__ = ["ScoreSet"]


@dataclass(frozen=True, eq=False, repr=False)
class ScoreSet:
    """Scores with the name of each and its part of the split.

    Args:
        scores, names: score and name of each piece.
        split: uint8 (N,), index into `PARTS`: train, val, test.
    """

    scores: tuple[Score, ...]
    names: tuple[str, ...]
    split: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)

    def __repr__(self) -> str:
        counts = np.bincount(self.split, minlength=len(PARTS))
        parts = ", ".join(f"{n} {name}" for name, n in zip(PARTS, counts, strict=True))
        return f"ScoreSet({len(self)} pieces: {parts})"

    def __iter__(self) -> Iterator[Score]:
        return iter(self.scores)

    def part(self, *names: str) -> ScoreSet:
        """The pieces of one part of the split or of several.

        Raises:
            ValueError: no such part, or nothing in it.
        """
        unknown = set(names) - set(PARTS)
        if unknown or not names:
            raise ValueError(f"there is no part {sorted(unknown)}; parts are {', '.join(PARTS)}")
        rows = np.flatnonzero(np.isin(self.split, [PARTS.index(name) for name in names]))
        if not len(rows):
            raise ValueError(f"no piece is in {' or '.join(names)} of these {len(self)}")
        return ScoreSet(
            tuple(self.scores[i] for i in rows),
            tuple(self.names[i] for i in rows),
            self.split[rows],
        )
