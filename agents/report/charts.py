"""Small charts as SVG text: they follow the page's light or dark colours and need no library.

Colours are classes ("real", "dream", "vision", "plain") that the page's style sheet defines.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Line", "histogram", "line_chart", "scatter", "ticks"]

WIDTH, HEIGHT = 560, 280
LEFT, RIGHT, TOP, BOTTOM = 66, 20, 14, 40


@dataclass(frozen=True)
class Line:
    """A curve with its name in the legend."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    """None leaves a gap."""
    color: str = "plain"
    dashed: bool = False
    dots: Sequence[tuple[float, float]] = ()
    """Single values behind the curve, (x, y)."""


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers from at or below low to at or above high: steps of 1, 2 or 5 times 10^n."""
    if high <= low:
        low, high = low - 0.5, high + 0.5
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if raw <= m * power * (1 + 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


class _Axes:
    """Maps values to the picture, and draws the axes of a chart."""

    def __init__(
        self, x: tuple[float, float], y_values: Sequence[float], x_label: str, y_label: str,
        x_ticks: Sequence[float],
    ):  # fmt: skip
        self.y_ticks = ticks(min(y_values), max(y_values))
        self.x_low, self.x_high = x
        self.parts: list[str] = []
        for value in self.y_ticks:
            y = self.y(value)
            zero = " zero" if value == 0 else ""
            self.parts.append(
                f'<line class="grid{zero}" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>'
                f'<text class="tick" x="{LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">'
                f"{_number(value)}</text>"
            )
        for value in x_ticks:
            self.parts.append(
                f'<text class="tick" x="{self.x(value)}" y="{HEIGHT - BOTTOM + 17}" '
                f'text-anchor="middle">{_number(value)}</text>'
            )
        middle = (TOP + HEIGHT - BOTTOM) / 2
        self.parts.append(
            f'<text class="label" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 5}" '
            f'text-anchor="middle">{escape(x_label)}</text>'
            f'<text class="label" transform="translate(12 {middle}) rotate(-90)" '
            f'text-anchor="middle">{escape(y_label)}</text>'
        )

    def x(self, value: float) -> float:
        share = (value - self.x_low) / ((self.x_high - self.x_low) or 1)
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        low, high = self.y_ticks[0], self.y_ticks[-1]
        share = (value - low) / (high - low)
        return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)

    def dot(self, x: float, y: float, color: str, radius: float, text: str) -> None:
        self.parts.append(
            f'<circle class="dot {color}" cx="{self.x(x)}" cy="{self.y(y)}" r="{radius}">'
            f"<title>{escape(text)}</title></circle>"
        )

    def svg(self, description: str) -> str:
        return (
            f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
            f'aria-label="{escape(description)}">{"".join(self.parts)}</svg>'
        )


def line_chart(
    lines: Sequence[Line], x_label: str, y_label: str, *, from_zero: bool = False
) -> str:
    """Draw curves over numbers, with a legend if there are several.

    Args:
        lines: at least one with at least one value.
        from_zero: the y axis begins at 0.
    """
    xs = [x for line in lines for x in line.x]
    ys = [y for line in lines for y in line.y if y is not None]
    ys += [y for line in lines for _, y in line.dots] + [0.0] * from_zero
    low, high = min(xs), max(xs)
    # The x axis counts whole numbers, so it has no ticks between them.
    x_ticks = [t for t in ticks(low, high, 8) if low <= t <= high and t == int(t)]
    pad = 0.04 * ((high - low) or 1)
    axes = _Axes((low - pad, high + pad), ys, x_label, y_label, x_ticks)
    for line in lines:
        for x, y in line.dots:
            axes.dot(x, y, line.color + " faint", 2.5, f"{line.name}: {y:.4g} at {x:g}")
    for line in lines:
        points = [(x, y) for x, y in zip(line.x, line.y, strict=True) if y is not None]
        path = " ".join(f"{axes.x(x)},{axes.y(y)}" for x, y in points)
        dashed = " dashed" if line.dashed else ""
        axes.parts.append(f'<polyline class="curve {line.color}{dashed}" points="{path}"/>')
        # Many dots would hide the curve: they then appear only under the pointer.
        shown = "" if len(points) <= 15 else " hidden"
        for x, y in points:
            axes.dot(x, y, line.color + shown, 3, f"{line.name}: {y:.4g} at {x:g}")
    names = ", ".join(line.name for line in lines)
    chart = axes.svg(f"{y_label} over {x_label}: {names}")
    return chart + (_legend(lines) if len(lines) > 1 else "")


def histogram(values: Sequence[float], x_label: str, y_label: str, *, width: float = 100) -> str:
    """Draw the counts of values in bins [n * width, (n + 1) * width).

    The mean is marked, and every value has a stroke on the axis.
    """
    bins = [math.floor(value / width) for value in values]
    first, last = min(bins), max(bins) + 1
    counts = {b: bins.count(b) for b in range(first, last)}
    edges = [b * width for b in range(first, last + 1)]
    x_ticks = edges[:: max(1, len(edges) // 7)]
    span = (edges[0], edges[-1])
    axes = _Axes(span, [0, max(counts.values())], x_label, y_label, x_ticks)
    for b, count in counts.items():
        left, right, top = axes.x(b * width), axes.x((b + 1) * width), axes.y(count)
        axes.parts.append(
            f'<rect class="bar real" x="{left + 1}" y="{top}" width="{right - left - 2:.1f}" '
            f'height="{axes.y(0) - top:.1f}"><title>{count} from {b * width:g} to '
            f"{(b + 1) * width:g}</title></rect>"
        )
    foot = HEIGHT - BOTTOM
    for value in values:
        x = axes.x(value)
        axes.parts.append(f'<line class="rug" x1="{x}" x2="{x}" y1="{foot - 7}" y2="{foot}"/>')
    mean = sum(values) / len(values)
    x = axes.x(mean)
    end = x > WIDTH / 2
    axes.parts.append(
        f'<line class="mark" x1="{x}" x2="{x}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
        f'<text class="tick" x="{x + (-6 if end else 6)}" y="{TOP + 9}" '
        f'text-anchor="{"end" if end else "start"}">mean {mean:.0f}</text>'
    )
    return axes.svg(f"{y_label} over {x_label}")


def scatter(points: Sequence[tuple[float, float, str, str]], x_label: str, y_label: str) -> str:
    """Draw points (x, y, colour class, text under the pointer), with the line where x equals y."""
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    x_ticks = ticks(min(xs), max(xs))
    axes = _Axes((x_ticks[0], x_ticks[-1]), ys, x_label, y_label, x_ticks)
    low = max(x_ticks[0], axes.y_ticks[0])
    high = min(x_ticks[-1], axes.y_ticks[-1])
    if low < high:
        axes.parts.append(
            f'<line class="curve plain dashed" x1="{axes.x(low)}" y1="{axes.y(low)}" '
            f'x2="{axes.x(high)}" y2="{axes.y(high)}"><title>as good as it dreams</title></line>'
        )
    for x, y, color, text in points:
        axes.dot(x, y, color, 5, text)
    return axes.svg(f"{y_label} against {x_label}")


def _legend(lines: Sequence[Line]) -> str:
    items = "".join(
        f'<span><i class="key {line.color}{" dashed" if line.dashed else ""}"></i>'
        f"{escape(line.name)}</span>"
        for line in lines
    )
    return f'<p class="legend">{items}</p>'


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:g}"
