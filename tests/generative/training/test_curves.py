"""The picture of a run's metrics: it shows where each value was, and every run has one."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from generative.training.curves import BLUE, MARGINS, PANEL, draw_curves
from generative.training.run import Run


@dataclass(frozen=True)
class Args:
    out: Path = Path("run")


def heights(picture: np.ndarray) -> np.ndarray:
    """For each column of the axes the mean row that is blue, NaN where none is."""
    left, top, right, bottom = MARGINS
    part = picture[top : PANEL[1] - bottom, left + 2 : PANEL[0] - right - 2].astype(float)
    blue = np.abs(part - np.array(BLUE)).sum(2) < 60
    rows = np.arange(len(part))[:, None]
    return (blue * rows).sum(0) / np.where(blue.any(0), blue.sum(0), np.nan)


def test_a_straight_line_is_straight_and_a_power_is_on_a_logarithmic_axis():
    steps = range(0, 1001, 10)
    lines = [{"step": s, "time": 0.0, "up": 3 * s, "power": 10 ** (s / 250)} for s in steps]
    picture = draw_curves(lines)
    assert picture is not None
    assert picture.size == (2 * PANEL[0], PANEL[1])
    pixels = np.asarray(picture)
    for panel in (pixels[:, : PANEL[0]], pixels[:, PANEL[0] :]):
        rows = heights(panel)
        found = np.isfinite(rows)
        assert found.mean() > 0.9
        columns = np.arange(len(rows))
        slope, offset = np.polyfit(columns[found], rows[found], 1)
        assert slope < -0.4  # upwards, from one corner to the other
        assert np.abs(rows - slope * columns - offset)[found].max() < 2


def test_values_that_are_missing_single_or_alike():
    lines = [
        {"step": 5, "time": 0.0, "once": 2.0, "flat": 0.0, "gap": None},
        {"step": 9, "time": 1.0, "flat": 0.0, "gap": None},
    ]
    picture = draw_curves(lines)
    assert picture is not None
    assert picture.size == (2 * PANEL[0], PANEL[1])
    assert np.isfinite(heights(np.asarray(picture)[:, : PANEL[0]])).sum() > 2
    assert draw_curves([]) is None
    assert draw_curves([{"step": 1, "time": 0.0, "gap": None}]) is None


def test_a_finished_run_has_its_curves(tmp_path):
    with Run.open(Args(tmp_path / "run"), kind="test") as run:
        for step in (1, 2, 3):
            run.metrics.log(step, {"loss": 1 / step, "time spent": 2.0})
        assert not (tmp_path / "run" / "curves.png").exists()
        run.finish({"loss": 1 / 3})
    first = (tmp_path / "run" / "curves.png").read_bytes()
    assert Image.open(tmp_path / "run" / "curves.png").size == (2 * PANEL[0], PANEL[1])
    with Run.open(Args(tmp_path / "again"), kind="test") as run:
        for step in (1, 2, 3):
            run.metrics.log(step, {"loss": 1 / step, "time spent": 2.0})
        run.finish({"loss": 1 / 3})
    assert (tmp_path / "again" / "curves.png").read_bytes() == first  # no clock in it
    with Run.open(Args(tmp_path / "silent"), kind="test") as run:
        run.finish({})
    assert not (tmp_path / "silent" / "curves.png").exists()
