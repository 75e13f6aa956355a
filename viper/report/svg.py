"""Line charts as inline SVG: no script, colours by CSS class so that one file serves light and dark.

Charts are small multiples of one size; text keeps its size because a panel is shown at about its own width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from xml.sax.saxutils import escape, quoteattr

Point = tuple[float, float]
#: A line never has more points than this; longer ones are averaged in equal runs.
MAX_POINTS = 160
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 10, 10, 30


@dataclass(frozen=True)
class Mark:
    """A point drawn with a shape (`dot`, `ring`, `cross`), its interval and a tooltip."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    shape: str = "dot"
    tooltip: str = ""


@dataclass(frozen=True)
class Series:
    """A line through `points`, and `marks` on top of it. `css` is the class that gives its colour."""

    css: str
    points: Sequence[Point] = ()
    marks: Sequence[Mark] = ()
    dashed: bool = False


@dataclass(frozen=True)
class Axes:
    """Labels and limits; limits are found from the data when None, at least `min_span` apart, so that noise does not
    fill a panel. `x_ticks` are (position, label)."""

    x_label: str = ""
    y_range: tuple[float, float] | None = None
    x_range: tuple[float, float] | None = None
    x_ticks: Sequence[tuple[float, str]] = field(default=())
    y_format: Callable[[float], str] = "{:g}".format
    min_span: float = 0.0
    width: int = 330
    height: int = 200


def line_chart(title: str, description: str, series: Sequence[Series], axes: Axes) -> str:
    """An `<svg>` element; `title` and `description` are what a screen reader says. Empty series draw empty axes."""
    xs = [p[0] for s in series for p in s.points] + [m.x for s in series for m in s.marks]
    ys = [p[1] for s in series for p in s.points]
    ys += [v for s in series for m in s.marks for v in (m.y, m.low, m.high) if v is not None]
    x0, x1 = axes.x_range or _limits(xs, 0.0, 0.0)
    y_ticks = ticks(*(axes.y_range or _limits(ys, 0.06, axes.min_span)))
    y0, y1 = axes.y_range or (y_ticks[0], y_ticks[-1])
    right, bottom = axes.width - _RIGHT, axes.height - _BOTTOM

    def x(value: float) -> float:
        return _LEFT + (value - x0) / (x1 - x0 or 1) * (right - _LEFT)

    def y(value: float) -> float:
        return bottom - (value - y0) / (y1 - y0 or 1) * (bottom - _TOP)

    body = []
    for tick in (t for t in y_ticks if y0 - 1e-9 <= t <= y1 + 1e-9):
        at = _n(y(tick))
        body.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{at}" y2="{at}"/>')
        label = escape(axes.y_format(tick))
        body.append(f'<text class="tick" x="{_LEFT - 6}" y="{at}" dy="0.32em" text-anchor="end">{label}</text>')
    # Steps are whole: on a short axis the ticks between them are left out.
    x_ticks = axes.x_ticks or [(t, f"{t:g}") for t in ticks(x0, x1) if x0 <= t <= x1 and t == int(t)]
    for position, label in x_ticks:
        body.append(
            f'<text class="tick" x="{_n(x(position))}" y="{bottom + 14}" text-anchor="middle">{escape(label)}</text>'
        )
    body.append(f'<text class="tick" x="{right}" y="{axes.height - 2}" text-anchor="end">{escape(axes.x_label)}</text>')
    for s in series:
        body += _series(s, x, y)
    return (
        f'<svg viewBox="0 0 {axes.width} {axes.height}" role="img" aria-label={quoteattr(title)}>'
        f"<desc>{escape(description)}</desc>{''.join(body)}</svg>"
    )


def forest(interval: tuple[float, float, float], limit: float, css: str, tooltip: str) -> str:
    """One row of a forest plot: `interval` is (low, difference, high), zero is in the middle of ±`limit`."""
    width, height = 180, 20
    low, value, high = interval

    def x(v: float) -> str:
        return _n(width / 2 + max(-1.0, min(1.0, v / limit)) * (width / 2 - 5))

    return (
        f'<svg class="forest" viewBox="0 0 {width} {height}" role="img" aria-label={quoteattr(tooltip)}>'
        f'<line class="zero" x1="{width / 2:g}" x2="{width / 2:g}" y1="0" y2="{height}"/>'
        f'<line class="whisker {css}" x1="{x(low)}" x2="{x(high)}" y1="10" y2="10"/>'
        f'<circle class="dot {css}" cx="{x(value)}" cy="10" r="4"/></svg>'
    )


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round values that cover `low` to `high`."""
    span = high - low
    if span <= 0:
        return [low, low + 1]
    raw = span / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next((m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999), 10 * power)
    first = math.floor(low / step + 1e-9)
    values = [round(i * step, 12) for i in range(first, first + count + 4)]
    last = next((i for i, v in enumerate(values) if v >= high - step * 1e-6), len(values) - 1)
    return values[: last + 1]


def thinned(points: Sequence[Point], most: int = MAX_POINTS) -> list[Point]:
    """At most `most` points, each the mean of a run of equal length; short lines stay as they are."""
    if len(points) <= most:
        return list(points)
    run = -(-len(points) // most)
    chunks = [points[i : i + run] for i in range(0, len(points), run)]
    return [(sum(p[0] for p in c) / len(c), sum(p[1] for p in c) / len(c)) for c in chunks]


def _series(s: Series, x: Callable[[float], float], y: Callable[[float], float]) -> list[str]:
    out = []
    points = thinned(s.points)
    if len(points) > 1:
        path = " ".join(f"{_n(x(a))},{_n(y(b))}" for a, b in points)
        out.append(f'<polyline class="line {s.css}{" dashed" if s.dashed else ""}" points="{path}"/>')
    elif points:
        out.append(_shape(Mark(*points[0]), s.css, x, y))
    for m in s.marks:
        if m.low is not None and m.high is not None:
            at = _n(x(m.x))
            out.append(f'<line class="whisker {s.css}" x1="{at}" x2="{at}" y1="{_n(y(m.low))}" y2="{_n(y(m.high))}"/>')
        out.append(_shape(m, s.css, x, y))
    return out


def _shape(m: Mark, css: str, x: Callable[[float], float], y: Callable[[float], float]) -> str:
    a, b, r = x(m.x), y(m.y), 3.6
    tip = f"<title>{escape(m.tooltip)}</title>" if m.tooltip else ""
    if m.shape == "cross":
        path = f"M{_n(a - r)},{_n(b - r)}L{_n(a + r)},{_n(b + r)}M{_n(a - r)},{_n(b + r)}L{_n(a + r)},{_n(b - r)}"
        return f'<path class="cross {css}" d="{path}">{tip}</path>'
    if m.shape == "small":
        r = 2.2
    kind = "ring" if m.shape == "ring" else "dot"
    return f'<circle class="{kind} {css}" cx="{_n(a)}" cy="{_n(b)}" r="{r}">{tip}</circle>'


def _limits(values: Sequence[float], pad: float, min_span: float) -> tuple[float, float]:
    """Around the values with a margin of `pad` times their span; never below zero for values that are not."""
    if not values:
        return 0.0, max(1.0, min_span)
    low, high = min(values), max(values)
    span = high - low
    missing = max(0.0, min_span - span, 0.1 if span == 0 else 0.0)
    bottom = low - span * pad - missing / 2
    if low >= 0 > bottom:
        return 0.0, max(high + span * pad, min_span)
    return bottom, high + span * pad + missing / 2


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
