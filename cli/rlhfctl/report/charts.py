"""Charts as inline SVG, drawn by hand: no library, no script. Colours are CSS variables, so that they follow light and dark.

Every chart has a text alternative, and the page has each figure in a table as well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from rlhfctl.figures import number

WIDTH, HEIGHT = 340, 190
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 12, 26


@dataclass(frozen=True)
class Point:
    """One iterate's figure, with its interval where it has one."""

    label: str
    value: float
    lower: float | None = None
    upper: float | None = None
    emphasised: bool = False


@dataclass(frozen=True)
class Scale:
    """A linear map from data to pixels."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def iterates_chart(title: str, points: Sequence[Point], baseline: float | None = None) -> str:
    """A line over the iterates, each with a whisker for its 95 % interval; `baseline` is a dashed line."""
    bounds = [bound for point in points for bound in (point.value, point.lower, point.upper) if bound is not None]
    low, high, ticks = nice_range([*bounds, *([baseline] if baseline is not None else [])])
    # One point alone stands in the middle.
    x = Scale(0, len(points) - 1, LEFT + 18, WIDTH - RIGHT - 18) if len(points) > 1 else Scale(-1, 1, LEFT, WIDTH - RIGHT)
    y = Scale(low, high, HEIGHT - BOTTOM, TOP)
    parts = [_grid(ticks, y)]
    if baseline is not None:
        parts.append(f'<line class="baseline" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(baseline):.1f}" y2="{y(baseline):.1f}"/>')
    path = " ".join(f"{x(i):.1f},{y(point.value):.1f}" for i, point in enumerate(points))
    parts.append(f'<polyline class="line" points="{path}"/>')
    parts += [_mark(point, x(i), y) for i, point in enumerate(points)]
    parts += [_text(point.label, x(i), HEIGHT - 8, "middle") for i, point in enumerate(points)]
    said = "; ".join(f"{point.label}: {number(point.value)}" for point in points)
    return _svg(f"{title}. {said}", parts)


def steps_chart(title: str, curves: Sequence[tuple[str, Sequence[tuple[int, float]]]]) -> str:
    """One curve a training, side by side on one step axis; a hairline parts the iterations."""
    curves = [(label, thin(points)) for label, points in curves if points]
    values = [value for _, points in curves for _, value in points]
    if not values:
        return ""
    low, high, ticks = nice_range(values)
    total = sum(max(step for step, _ in points) for _, points in curves)
    x = Scale(0, max(total, 1), LEFT, WIDTH - RIGHT)
    y = Scale(low, high, HEIGHT - BOTTOM, TOP)
    parts, offset = [_grid(ticks, y)], 0
    for index, (label, points) in enumerate(curves):
        length = max(step for step, _ in points)
        if index:
            parts.append(f'<line class="divider" x1="{x(offset):.1f}" x2="{x(offset):.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        path = " ".join(f"{x(offset + step):.1f},{y(value):.1f}" for step, value in points)
        last = points[-1][1]
        hover = f"<title>{escape(label)}: ends at {number(last)} after {length} steps</title>"
        parts.append(f'<polyline class="line thin" points="{path}">{hover}</polyline>')
        if len(points) == 1:
            parts.append(f'<circle class="dot" cx="{x(offset + length):.1f}" cy="{y(last):.1f}" r="4"/>')
        parts.append(_text(label, x(offset + length / 2), HEIGHT - 8, "middle"))
        offset += length
    said = "; ".join(f"{label}: from {number(points[0][1])} to {number(points[-1][1])}" for label, points in curves)
    return _svg(f"{title}. {said}", parts)


def nice_range(values: Sequence[float], ticks: int = 4) -> tuple[float, float, list[float]]:
    """A range with round ends that holds all values, and its ticks."""
    low, high = min(values), max(values)
    if math.isclose(low, high):
        pad = abs(low) * 0.1 or 1.0
        low, high = low - pad, high + pad
    raw = (high - low) / ticks
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    marks = [round(index * step, 12) for index in range(first, last + 1)]
    return marks[0], marks[-1], marks


def thin(points: Sequence[tuple[int, float]], most: int = 200) -> list[tuple[int, float]]:
    """At most `most` points, each the mean of its neighbours, so that a long training stays a small file."""
    if len(points) <= most:
        return list(points)
    size = math.ceil(len(points) / most)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(group[-1][0], sum(value for _, value in group) / len(group)) for group in groups]


def _grid(ticks: Sequence[float], y: Scale) -> str:
    lines = []
    for tick in ticks:
        lines.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        lines.append(_text(f"{tick:,.10g}", LEFT - 6, y(tick) + 3.5, "end"))
    return "".join(lines)


def _mark(point: Point, x: float, y: Scale) -> str:
    parts, interval = [], ""
    if point.lower is not None and point.upper is not None:
        interval = f" (95 % interval {number(point.lower)} to {number(point.upper)})"
        top, bottom = y(point.upper), y(point.lower)
        parts.append(
            f'<path class="whisker" d="M{x:.1f} {top:.1f}V{bottom:.1f}M{x - 4:.1f} {top:.1f}h8M{x - 4:.1f} {bottom:.1f}h8"/>'
        )
    css = "dot best" if point.emphasised else "dot"
    parts.append(f'<circle class="{css}" cx="{x:.1f}" cy="{y(point.value):.1f}" r="{5 if point.emphasised else 4}"/>')
    title = f"<title>{escape(point.label)}: {number(point.value)}{interval}</title>"
    return (
        f'<g>{title}{"".join(parts)}<rect class="hit" x="{x - 16:.1f}" y="{TOP}" width="32" height="{HEIGHT - TOP - BOTTOM}"/></g>'
    )


def _text(text: str, x: float, y: float, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(alternative: str, parts: Sequence[str]) -> str:
    label = escape(alternative, quote=True)
    return f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
