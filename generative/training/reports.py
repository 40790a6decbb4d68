"""Results of several runs in one JSON file, from which a page takes its numbers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from generative.training.run import Run

__all__ = ["add_to_report"]


def add_to_report(file: Path, run: Run) -> None:
    """Write the run's result beside those of other runs, with its settings and versions."""
    from generative.training.files import MAX_LIST_BYTES, read_json, write_json
    from generative.training.settings import to_json

    records = read_json(file, MAX_LIST_BYTES) if file.exists() else {}
    settings = {
        name: value
        for name, value in to_json(run.config).items()
        if name not in ("out", "data_dir", "report")
    }
    versions = {name: run.versions[name] for name in ("python", "cpu", "packages")}
    records[run.path.name] = {"result": run.result, "settings": settings, "versions": versions}
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, dict(sorted(records.items())))
