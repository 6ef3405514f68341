"""Inline SVG charts for the report: line charts with direct labels, and one stacked bar; colours are CSS classes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np
from numpy.typing import ArrayLike, NDArray

MAX_POINTS = 400


@dataclass(frozen=True)
class Series:
    """One line (or cloud of dots) of a chart: x, y [N], and perhaps a band low..high [N]; kind is its CSS class."""

    label: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    kind: str = "run"
    low: NDArray[np.float64] | None = None
    high: NDArray[np.float64] | None = None
    dots: bool = False


@dataclass(frozen=True)
class Axes:
    """The drawing area in pixels and the data range it shows; with log, y is drawn on a logarithmic scale."""

    width: int
    height: int
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    log: bool = False
    margin: tuple[int, int, int, int] = field(default=(14, 116, 42, 52))  # top, right, bottom, left

    def x(self, values: ArrayLike) -> NDArray[np.float64]:
        """Data x to pixels."""
        low, high = self.x_range
        inside = self.width - self.margin[1] - self.margin[3]
        return self.margin[3] + (np.asarray(values, dtype=np.float64) - low) / (high - low) * inside

    def y(self, values: ArrayLike) -> NDArray[np.float64]:
        """Data y to pixels, downwards."""
        data, limits = np.asarray(values, dtype=np.float64), np.asarray(self.y_range)
        if self.log:
            data, limits = np.log10(np.maximum(data, 1e-300)), np.log10(limits)
        inside = self.height - self.margin[0] - self.margin[2]
        return self.height - self.margin[2] - (data - limits[0]) / (limits[1] - limits[0]) * inside


def line_chart(
    series: Sequence[Series],
    *,
    width: int = 860,
    height: int = 420,
    x_max: float | None = None,
    x_label: str = "",
    right: int = 116,
    log: bool = False,
    y_from_zero: bool = False,
    title: str = "",
) -> str:
    """Series as an SVG element, later ones drawn on top, each labelled at its right end; "" when nothing is finite."""
    series = [cleaned for one in series if len((cleaned := _finite(one, x_max=x_max)).x)]
    if not series:
        return ""
    span = (min(0.0, *(s.x[0] for s in series)), x_max or max(s.x[-1] for s in series) or 1.0)
    small = width < 400
    axes = Axes(
        width=width,
        height=height,
        x_range=span if span[1] > span[0] else (span[0], span[0] + 1),
        y_range=_y_range(series, log=log, from_zero=y_from_zero),
        log=log,
        margin=(10, right, 24 if small else 42, 44 if small else 52),
    )
    labels = _end_labels(series, axes)
    groups = "".join(f"<g>{_draw(one, axes)}{label}</g>" for one, label in zip(series, labels, strict=True))
    return (
        f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title, quote=True)}">'
        f"{_grid(axes, x_label=x_label, ticks=3 if small else 6)}{groups}</svg>"
    )


def stacked_bar(parts: Sequence[tuple[str, float]], *, width: int = 860) -> str:
    """Shares of a whole as one horizontal bar in the given order, gaps between the parts; "" for an empty whole."""
    total = sum(value for _, value in parts)
    if not total > 0:
        return ""
    boxes, left = [], 0.0
    for name, value in parts:
        size = value / total * width
        if size > 0:
            boxes.append(
                f'<rect class="part {escape(name, quote=True)}" x="{left:.1f}" y="0" width="{max(size - 2, 0.6):.1f}" '
                f'height="34" rx="3"><title>{escape(name)}: {value / total:.1%}</title></rect>'
            )
        left += size
    return f'<svg class="bar" viewBox="0 0 {width} 34" preserveAspectRatio="none" role="img">{"".join(boxes)}</svg>'


def short(value: float) -> str:
    """A number as an axis shows it: 1500 -> 1.5k, 0.25 -> 0.25."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{unit}"
    return "0" if value == 0 else f"{value:.3g}"


def thin(x: NDArray[np.float64], y: NDArray[np.float64], points: int = MAX_POINTS) -> tuple[NDArray, NDArray]:
    """x, y [N] as the mean y of each x, then of at most `points` neighbouring groups: thousands of rows stay small."""
    if not len(x):
        return x, y
    x, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    y = np.bincount(inverse, weights=y) / counts
    if len(x) <= points:
        return x, y
    groups = np.array_split(np.arange(len(x)), points)
    return np.array([x[group].mean() for group in groups]), np.array([y[group].mean() for group in groups])


def nice_ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers within low..high."""
    rough = (high - low) / max(count, 1)
    if not (math.isfinite(rough) and rough > 0):
        return [low]
    power = 10.0 ** math.floor(math.log10(rough))
    step = next((factor * power for factor in (1, 2, 2.5, 5) if factor * power >= rough), 10 * power)
    first = math.ceil(low / step - 1e-9)
    return [round(index * step, 12) for index in range(first, math.floor(high / step + 1e-9) + 1)]


def _finite(series: Series, *, x_max: float | None) -> Series:
    """The series in order of x without NaN, and cut at x_max at an interpolated last point."""
    keep = np.isfinite(series.x) & np.isfinite(series.y)
    order = np.argsort(series.x[keep], kind="stable")
    x, y, low, high = (
        None if one is None else one[keep][order] for one in (series.x, series.y, series.low, series.high)
    )
    if x_max is not None and len(x) and x[-1] > x_max:
        inside = x <= x_max
        cut = not series.dots and inside.any() and x[inside][-1] < x_max
        grid = np.append(x[inside], x_max) if cut else x[inside]
        y, low, high = (None if one is None else np.interp(grid, x, one) for one in (y, low, high))
        x = grid
    return Series(label=series.label, x=x, y=y, kind=series.kind, low=low, high=high, dots=series.dots)


def _y_range(series: Sequence[Series], *, log: bool, from_zero: bool) -> tuple[float, float]:
    edges = [edge for one in series for edge in (one.y, one.low, one.high) if edge is not None]
    values = np.concatenate(edges)
    values = values[np.isfinite(values)]
    low, high = float(values.min()), float(values.max())
    if log:
        return low / 1.15, high * 1.15
    low = min(low, 0.0) if from_zero else low
    pad = 0.06 * (high - low) or abs(high) * 0.1 or 1.0
    return (low if from_zero and low >= 0 else low - pad), high + pad


def _grid(axes: Axes, *, x_label: str, ticks: int) -> str:
    left, right = axes.x(axes.x_range)
    bottom = axes.height - axes.margin[2]
    y_ticks = _log_ticks(axes.y_range) if axes.log else nice_ticks(*axes.y_range, count=min(ticks, 5))
    lines = [
        f'<line class="grid" x1="{left:.1f}" x2="{right:.1f}" y1="{axes.y(t):.1f}" y2="{axes.y(t):.1f}"/>'
        for t in y_ticks
    ]
    lines.append(f'<line class="axis" x1="{left:.1f}" x2="{right:.1f}" y1="{bottom}" y2="{bottom}"/>')
    texts = [
        f'<text class="tick" x="{left - 8:.1f}" y="{axes.y(t) + 4:.1f}" text-anchor="end">{short(t)}</text>'
        for t in y_ticks
    ]
    x_ticks = nice_ticks(*axes.x_range, count=ticks)
    texts += [
        f'<text class="tick" x="{axes.x(t):.1f}" y="{bottom + 17}" text-anchor="middle">{short(t)}</text>'
        for t in x_ticks
    ]
    if x_label:
        middle = (left + right) / 2
        texts.append(
            f'<text class="tick" x="{middle:.1f}" y="{axes.height - 6}" text-anchor="middle">{escape(x_label)}</text>'
        )
    return "".join(lines + texts)


def _log_ticks(limits: tuple[float, float]) -> list[float]:
    low, high = (math.log10(limit) for limit in limits)
    decades = range(math.ceil(low), math.floor(high) + 1)
    factors = (1, 2, 5) if high - low < 1.6 else (1,)
    fine = [10.0**power * factor for power in range(math.floor(low), math.ceil(high) + 1) for factor in factors]
    chosen = [tick for tick in fine if limits[0] <= tick <= limits[1]]
    return chosen if len(decades) < 7 else [10.0**power for power in decades[:: len(decades) // 4]]


def _draw(series: Series, axes: Axes) -> str:
    kind = escape(series.kind, quote=True)
    if series.dots:
        dots = zip(axes.x(series.x), axes.y(series.y), strict=True)
        return "".join(f'<circle class="dot {kind}" cx="{x:.1f}" cy="{y:.1f}" r="2.6"/>' for x, y in dots)
    parts = []
    if series.low is not None and series.high is not None:
        edge = _points(axes.x(series.x), axes.y(series.high)), _points(axes.x(series.x[::-1]), axes.y(series.low[::-1]))
        parts.append(f'<polygon class="band {kind}" points="{edge[0]} {edge[1]}"/>')
    line = _points(axes.x(series.x), axes.y(series.y))
    parts.append(f'<polyline class="hit" points="{line}"><title>{escape(series.label)}</title></polyline>')
    parts.append(f'<polyline class="line {kind}" points="{line}"/>')
    if len(series.x) == 1:
        parts.append(
            f'<circle class="dot {kind}" cx="{axes.x(series.x[0]):.1f}" cy="{axes.y(series.y[0]):.1f}" r="2.6"/>'
        )
    if len(series.x) <= 40 and series.kind == "run":
        parts += [_marker(series, index, axes) for index in range(len(series.x))]
    return "".join(parts)


def _marker(series: Series, index: int, axes: Axes) -> str:
    tip = f"{short(series.x[index])}: {series.y[index]:.1f}"
    if series.low is not None and series.high is not None:
        tip += f" [{series.low[index]:.1f}, {series.high[index]:.1f}]"
    x, y = axes.x(series.x[index]), axes.y(series.y[index])
    return f'<circle class="marker" cx="{x:.1f}" cy="{y:.1f}" r="4"><title>{tip}</title></circle>'


def _points(x: NDArray[np.float64], y: NDArray[np.float64]) -> str:
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True) if math.isfinite(b))


def _end_labels(series: Sequence[Series], axes: Axes, *, gap: float = 15.0) -> list[str]:
    """For each series its label beside the right end, pushed apart where two would overlap, tied by a thin leader."""
    named = sorted((i for i, one in enumerate(series) if one.label), key=lambda i: float(axes.y(series[i].y[-1])))
    ends = [float(axes.y(series[i].y[-1])) for i in named]
    floor, spots = axes.height - axes.margin[2], list[float]()
    for end in ends:
        spots.append(max(end, spots[-1] + gap if spots else axes.margin[0] + 4.0))
    for index in reversed(range(len(spots))):
        spots[index] = min(spots[index], spots[index + 1] - gap if index + 1 < len(spots) else floor - 2)
    labels = [""] * len(series)
    for i, end, spot in zip(named, ends, spots, strict=True):
        labels[i] = _end_label(series[i], axes, end=end, spot=spot)
    return labels


def _end_label(series: Series, axes: Axes, *, end: float, spot: float) -> str:
    x, edge = float(axes.x(series.x[-1])), float(axes.x(axes.x_range[1]))
    return (
        f'<path class="leader" d="M{x + 5:.1f},{end:.1f} L{edge + 10:.1f},{spot:.1f} h3"/>'
        f'<text class="label {escape(series.kind, quote=True)}" x="{edge + 17:.1f}" y="{spot + 4:.1f}">'
        f"{escape(series.label)}</text>"
    )
