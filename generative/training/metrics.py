"""Numbers, pictures and texts over steps: metrics.jsonl, files, and TensorBoard if installed."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from generative.training.files import append_file, write_file

METRICS_NAME = "metrics.jsonl"
IMAGES_NAME = "images"
TEXTS_NAME = "texts"


class Metrics:
    """Appends lines such as {"step": 100, "time": 1764.5, "loss": 0.31} to folder/metrics.jsonl.

    "time" is the wall clock (seconds since 1970); everything else is the same in every repeat of a
    run. A number that is not finite is written as null.

    Args:
        folder: of the run.
        tensorboard: also write event files to folder/tensorboard, if TensorBoard is installed.
    """

    def __init__(self, folder: Path, tensorboard: bool = True):
        self.path = Path(folder) / METRICS_NAME
        self._writer: Any = None
        self._use_tensorboard = tensorboard and importlib.util.find_spec("tensorboard") is not None

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Append one line. Steps never go back; `rewind` first."""
        numbers = {name: float(value) for name, value in values.items()}
        line = {"step": step, "time": round(time.time(), 3)}
        line |= {name: v if math.isfinite(v) else None for name, v in numbers.items()}
        append_file(self.path, (json.dumps(line) + "\n").encode())
        if self._use_tensorboard:
            for name, value in numbers.items():
                self._events(step).add_scalar(name, value, step)

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
        """Write a number to TensorBoard alone: one that differs from repeat to repeat."""
        if self._use_tensorboard:
            self._events(step).add_scalar(name, value, step)

    def rewind(self, step: int) -> None:
        """Drop lines after this step and a last line that is not whole: the run goes on there."""
        if not self.path.exists():
            return
        kept = [line for line in read_metrics(self.path) if line["step"] <= step]
        data = "".join(json.dumps(line) + "\n" for line in kept).encode()
        if data != self.path.read_bytes():
            write_file(self.path, data)

    def last(self) -> dict[str, float | None]:
        """The values logged last; empty if none were."""
        lines = read_metrics(self.path) if self.path.exists() else []
        return {k: v for k, v in lines[-1].items() if k not in ("step", "time")} if lines else {}

    def sync(self) -> None:
        """Bring what was logged to the disk; a checkpoint calls this before it is written."""
        if self.path.exists():
            with open(self.path, "ab") as file:
                os.fsync(file.fileno())
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _events(self, step: int) -> Any:
        """TensorBoard's writer, opened when it is first needed."""
        if self._writer is None:
            self._writer = _event_writer(self.path.parent / "tensorboard", step)
        return self._writer


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Lines of a metrics.jsonl (or of a run's folder), up to the first that is not whole."""
    path = Path(path)
    path = path / METRICS_NAME if path.is_dir() else path
    lines: list[dict[str, Any]] = []
    with contextlib.suppress(ValueError):
        for raw in path.read_bytes().split(b"\n")[:-1]:
            line = json.loads(raw)
            if not isinstance(line, dict) or type(line.get("step")) is not int:
                break
            lines.append(line)
    return lines


def _event_writer(folder: Path, step: int) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    # purge_step hides what an interrupted process logged beyond the step it is resumed from.
    return SummaryWriter(str(folder), purge_step=step)
