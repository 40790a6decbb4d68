"""Log of an evolution: a line of progress, metrics.jsonl and TensorBoard."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from generative.training.files import read_file
from generative.training.metrics import MAX_BYTES, Metrics
from generative.training.progress import Progress
from worldmodels.evolution import Generation, Restarts
from worldmodels.journal import Journal

__all__ = ["EvolutionLog"]


class EvolutionLog:
    """`on_generation` of `evolve`, for a search with a journal.

    Values that are equal in every repeat go to metrics.jsonl, speeds to TensorBoard alone. Journal
    lines that the metrics lack, or have with other values, are logged again.

    Args:
        folder: folder of the journal and of the metrics.
        bar: advanced with every generation.
        speed: numbers to show beside the bar, such as `Scoring.speed`.
        of: see `Journal`.
    """

    def __init__(
        self,
        folder: Path,
        bar: Progress | None = None,
        speed: Callable[[], dict[str, float]] = dict,
        tensorboard: bool = True,
        of: str = "",
    ):
        self._metrics, self._bar, self._speed = Metrics(folder, tensorboard), bar, speed
        known = Journal(self.journal(folder), of).generations
        kept = _kept(self._metrics.path, known) if self._metrics.path.exists() else []
        self._metrics.restore("".join(kept))
        for generation in known[len(kept) :]:
            self._log(generation)
        if bar is not None:
            bar.advance(len(known))

    @staticmethod
    def journal(folder: Path) -> Path:
        """Path of the journal in a folder."""
        return folder / "journal.jsonl"

    def __call__(self, generation: Generation, strategy: Restarts) -> None:
        self._log(generation)
        speed = self._speed()
        for name, value in speed.items():
            self._metrics.log_event(generation.index + 1, name, value)
        if self._bar is not None:
            self._bar.advance(1, note=_note(generation, speed))

    def close(self) -> None:
        """Close TensorBoard's file."""
        self._metrics.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _log(self, generation: Generation) -> None:
        self._metrics.log(generation.index + 1, _values(generation))


def _values(generation: Generation) -> dict[str, float]:
    values = {
        "best": generation.best,
        "average": generation.average,
        "deviation": generation.deviation,
        "sigma": generation.sigma,
        "popsize": len(generation.scores),
    }
    if generation.mean_score is not None:
        values["mean_score"] = generation.mean_score
    return values


def _kept(path: Path, known: list[Generation]) -> list[str]:
    """Lines of a metrics.jsonl that agree with the journal, up to the first that does not."""
    lines = read_file(path, MAX_BYTES).split(b"\n")[:-1]
    kept = []
    for raw, generation in zip(lines, known, strict=False):
        wanted: dict[str, Any] = {"step": generation.index + 1, **_values(generation)}
        try:
            if {**json.loads(raw), "time": 0} != {**wanted, "time": 0}:
                raise ValueError
        except (ValueError, TypeError):
            print(
                f"{path}: line {len(kept) + 1} is not what the journal says; the file is written "
                "anew from there on",
                file=sys.stderr,
            )
            break
        kept.append(raw.decode() + "\n")
    return kept


def _note(generation: Generation, speed: dict[str, float]) -> str:
    """Short text about a generation, to stand beside a bar."""
    parts = [
        f"best {generation.best:.4g}",
        f"mean {generation.average:.4g}±{generation.deviation:.2g}",
        f"σ {generation.sigma:.2g}",
    ]
    if generation.mean_score is not None:
        parts.append(f"test {generation.mean_score:.4g}")
    if speed.get("steps_per_second"):
        parts.append(f"{speed['steps_per_second']:,.0f} steps/s")
    if "workers" in speed:
        parts.append(f"{speed['workers']:.0f} workers")
    return " ".join(parts)
