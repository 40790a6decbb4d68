"""The learning curves of a run as one picture, from its metrics.

Drawn with Pillow: every run ends with this picture, and Matplotlib takes a second to import and
half a second to draw what takes a few milliseconds here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["CURVES_NAME", "draw_curves"]

CURVES_NAME = "curves.png"
COLUMNS = 3
PANEL = (330, 210)
"""Pixels of a panel, (width, height)."""
MARGINS = (52, 28, 24, 24)
"""Margins of a panel in pixels: left, top, right and bottom of its axes."""
MAX_PANELS = 24
LOG_FROM = 30
"""Ratio of the largest to the smallest positive value from which on an axis is logarithmic."""
INK, GREY, PALE, BLUE = (40, 40, 40), (130, 130, 130), (228, 228, 228), (31, 119, 180)


def draw_curves(lines: Sequence[Mapping[str, Any]]) -> Image | None:
    """Draw a panel for each logged value, over the steps; None if there is none.

    Args:
        lines: as `read_metrics` gives them.
    """
    series: dict[str, list[tuple[int, float]]] = {}
    for line in lines:
        for name, value in line.items():
            if name not in ("step", "time") and value is not None:
                series.setdefault(name, []).append((line["step"], value))
    drawn = list(series.items())[:MAX_PANELS]
    if not drawn:
        return None
    from PIL import Image

    columns = min(COLUMNS, len(drawn))
    rows = -(-len(drawn) // columns)
    picture = Image.new("RGB", (columns * PANEL[0], rows * PANEL[1]), "white")
    for i, (name, points) in enumerate(drawn):
        place = (i % columns * PANEL[0], i // columns * PANEL[1])
        picture.paste(_panel(name, points), place)
    return picture


def _panel(name: str, points: Sequence[tuple[int, float]]) -> Image:
    """One value over the steps, drawn at twice its size and reduced, which smooths the line."""
    from PIL import Image, ImageDraw, ImageFont

    scale = 2
    width, height = (scale * side for side in PANEL)
    left, top, right, bottom = (scale * side for side in MARGINS)
    picture = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(picture)
    title, small = (ImageFont.load_default(scale * size) for size in (13, 10))
    steps, values = zip(*points, strict=True)
    log = min(values) > 0 and max(values) > LOG_FROM * min(values)
    heights = [math.log10(value) for value in values] if log else list(values)
    low, high = _widened(min(heights), max(heights))
    alone = len(steps) == 1  # in the middle then
    first, last = steps[0] - alone, max(steps[-1], steps[0] + 1)

    def x(step: float) -> float:
        return left + (step - first) / (last - first) * (width - left - right)

    def y(value: float) -> float:
        return height - bottom - (value - low) / (high - low) * (height - top - bottom)

    for tick in _ticks(low, high, 5):
        draw.line([(left, y(tick)), (width - right, y(tick))], fill=PALE, width=scale)
        text = _short(10**tick if log else tick)
        draw.text((left - 4 * scale, y(tick)), text, fill=GREY, font=small, anchor="rm")
    for tick in _ticks(first, last, 4):
        draw.line([(x(tick), top), (x(tick), height - bottom)], fill=PALE, width=scale)
        text = f"{round(tick):,}"
        draw.text((x(tick), height - bottom + 4 * scale), text, fill=GREY, font=small, anchor="mt")
    corners = [(left, top), (left, height - bottom), (width - right, height - bottom)]
    draw.line(corners, fill=GREY, width=scale)
    line = [(x(s), y(h)) for s, h in zip(steps, heights, strict=True)]
    draw.line(line, fill=BLUE, width=2 * scale)
    if alone:
        draw.circle(line[0], 3 * scale, fill=BLUE)
    head = f"{name.replace('_', ' ')}   {_short(values[-1])} at the end"
    draw.text((left, 6 * scale), head, fill=INK, font=title, anchor="lt")
    return picture.resize(PANEL, Image.Resampling.LANCZOS)


def _widened(low: float, high: float) -> tuple[float, float]:
    """A range a little larger, and never empty."""
    edge = 0.05 * (high - low) or 0.1 * abs(low) or 1.0
    return low - edge, high + edge


def _ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers in a range, at most `most` + 1 of them."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    begin = math.ceil(low / step)
    return [(begin + i) * step for i in range(most + 1) if (begin + i) * step <= high]


def _short(value: float) -> str:
    """A number in few characters: 0.123, 45.6, 12,300, 1.2e-05."""
    if value and not 1e-3 <= abs(value) < 1e6:
        return f"{value:.1e}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
