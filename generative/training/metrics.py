"""Numbers, pictures and texts over steps: metrics.jsonl, files, and a tracker (`tracking`)."""

from __future__ import annotations

import io
import json
import math
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from generative.training.files import (
    DamagedFileError,
    append_file,
    read_file,
    set_aside,
    write_file,
)
from generative.training.tracking import Tracker, wants_tensorboard

METRICS_NAME = "metrics.jsonl"
IMAGES_NAME = "images"
TEXTS_NAME = "texts"
MAX_BYTES = 2**30


class Metrics:
    """Appends lines such as {"step": 100, "time": 1764.5, "loss": 0.31} to folder/metrics.jsonl.

    "time" is the wall clock (seconds since 1970); everything else is the same in every repeat of a
    run. A number that is not finite is written as null.

    Logged lines are kept in memory too: a checkpoint holds them, and restores the file from them.

    Args:
        folder: folder of the run.
        tensorboard: also write event files to folder/tensorboard, if TensorBoard is installed and
            no other tracker is chosen.
        tracker: also gets numbers and pictures.
    """

    def __init__(self, folder: Path, tensorboard: bool = True, tracker: Tracker | None = None):
        self.path = Path(folder) / METRICS_NAME
        self._text: str | None = None
        self._writer: Any = None
        self._use_tensorboard = tensorboard and wants_tensorboard()
        self._tracker = tracker

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Append one line. Steps never decrease; call `rewind` first."""
        numbers = {name: float(value) for name, value in values.items()}
        line = {"step": step, "time": round(time.time(), 3)}
        line |= {name: v if math.isfinite(v) else None for name, v in numbers.items()}
        before, added = self.text, json.dumps(line) + "\n"
        append_file(self.path, added.encode())
        self._text = before + added
        if self._use_tensorboard:
            for name, value in numbers.items():
                self._events(step).add_scalar(name, value, step)
        if self._tracker is not None:
            self._tracker.log(step, numbers)

    def log_image(self, step: int, name: str, image: np.ndarray) -> Path:
        """Write a picture, uint8 (H, W, 3), to images/NAME-STEP.png; returns its path.

        A run that was killed and continued writes the same names again.
        """
        from PIL import Image

        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"picture {name} is {image.dtype} {image.shape}; pass uint8 (H, W, 3)")
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, format="png")
        path = self.path.parent / IMAGES_NAME / f"{name}-{step:06d}.png"
        path.parent.mkdir(exist_ok=True)
        write_file(path, buffer.getvalue())
        if self._use_tensorboard:
            self._events(step).add_image(name, image, step, dataformats="HWC")
        if self._tracker is not None:
            self._tracker.log_image(step, name, image)
        return path

    def log_text(self, step: int, name: str, text: str) -> Path:
        """Write a text to texts/NAME-STEP.txt; returns its path."""
        path = self.path.parent / TEXTS_NAME / f"{name}-{step:06d}.txt"
        path.parent.mkdir(exist_ok=True)
        write_file(path, (text.rstrip("\n") + "\n").encode())
        if self._use_tensorboard:
            self._events(step).add_text(name, text, step)
        return path

    def log_event(self, step: int, name: str, value: float) -> None:
        """Write a number that differs between repeats of a run, to the tracker alone."""
        if self._use_tensorboard:
            self._events(step).add_scalar(name, value, step)
        if self._tracker is not None:
            self._tracker.log(step, {name: value})

    @property
    def text(self) -> str:
        """All lines up to now.

        Raises:
            DamagedFileError: the file was read, and one of its lines is damaged.
        """
        if self._text is None:
            self._text = "".join(_lines(self.path)) if os.path.lexists(self.path) else ""
        return self._text

    def rewind(self, step: int) -> None:
        """Drop the lines after this step, where the run continues, and an incomplete last line.

        Raises:
            DamagedFileError: a line is damaged.
        """
        self._text = None
        lines = self.text.splitlines(keepends=True)
        self.restore("".join(line for line in lines if json.loads(line)["step"] <= step))

    def restore(self, text: str) -> None:
        """Restore the state in which `text` was all that was logged.

        A file that does not begin with it is damaged: it is named on stderr and set aside.
        """
        self._text, wanted = text, text.encode()
        if not wanted and not os.path.lexists(self.path):
            return
        try:
            found = read_file(self.path, MAX_BYTES)
            if not found.startswith(wanted):
                raise DamagedFileError(f"{self.path}: is not what the run has logged")
        except DamagedFileError as error:
            aside = ""
            if os.path.lexists(self.path):
                aside = f", {set_aside(self.path).name} is what it was"
            print(f"{error}; it is written anew{aside}", file=sys.stderr)
            found = None
        if found != wanted:
            write_file(self.path, wanted)

    def last(self) -> dict[str, float | None]:
        """Values that were logged at the last step, in one line or several; empty if none were."""
        values: dict[str, float | None] = {}
        lines = self.text.splitlines()
        last = json.loads(lines[-1])["step"] if lines else None
        for text in reversed(lines):
            line = json.loads(text)
            if line["step"] != last:
                break
            values = {k: v for k, v in line.items() if k not in ("step", "time")} | values
        return values

    def sync(self) -> None:
        """Flush logged lines to the disk; a checkpoint calls this before it is written."""
        self.restore(self.text)
        if self.path.exists():
            with open(self.path, "ab") as file:
                os.fsync(file.fileno())
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """Close the event file and the tracker."""
        if self._tracker is not None:
            self._tracker.close()
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _events(self, step: int) -> Any:
        """TensorBoard's writer, opened at the first use."""
        if self._writer is None:
            self._writer = _event_writer(self.path.parent / "tensorboard", step)
        return self._writer


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read the lines of a metrics.jsonl (or of a run's folder), without an incomplete last one.

    Raises:
        DamagedFileError: the file is missing, or a line is not one of `Metrics`; says which.
    """
    path = Path(path)
    return [json.loads(line) for line in _lines(path / METRICS_NAME if path.is_dir() else path)]


def _lines(path: Path) -> list[str]:
    """Complete lines of a file with their ends, each checked."""
    lines: list[str] = []
    before = 0
    for number, raw in enumerate(read_file(path, MAX_BYTES).split(b"\n")[:-1], 1):
        try:
            line = json.loads(raw, parse_constant=_refuse)
            if not isinstance(line, dict) or type(line.get("step")) is not int:
                raise ValueError("it has no step")
            if line["step"] < before:
                raise ValueError(f"step {line['step']} follows step {before}")
        except (ValueError, RecursionError) as error:
            raise DamagedFileError(
                f"{path}: line {number} is damaged ({error}); delete it, with those that follow, "
                "or the file, if the run is to go on without these numbers"
            ) from error
        lines.append(raw.decode() + "\n")
        before = line["step"]
    return lines


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")


def _event_writer(folder: Path, step: int) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    # purge_step hides lines of an interrupted process beyond the step it is resumed from.
    return SummaryWriter(str(folder), purge_step=step)
