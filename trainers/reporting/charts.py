"""The one place that draws: lines, dots and bands by matplotlib, as SVG that takes a page's colours, or into a file."""

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

# in a page each is the variable of the style sheet with its name, so that it changes with dark mode
COLOURS = {
    "ink": "#14181f",
    "soft": "#5b6472",
    "faint": "#98a1ae",
    "rule": "#e6e9ee",
    "run": "#2563eb",
    "second": "#d9730d",
    "third": "#12805c",
    "fourth": "#8b5cf6",
    "fifth": "#d64545",
    "train": "#8fb0f2",
    "reference": "#b6bdc8",
}
MAX_POINTS = 400
LEADER = {"arrowstyle": "-", "linewidth": 0.7, "shrinkA": 1, "shrinkB": 3, "relpos": (0.0, 0.5)}
LABEL_SIZE = 9.0
LINES = {"reference": 1.2, "run": 2.2, "second": 2.0}  # widths in points


@dataclass(frozen=True)
class Series:
    """One line (or cloud of dots) of a chart."""

    label: str  # at the line's right end, in its colour; none where empty
    x: NDArray[np.float64]  # [N]; a single one draws a level over the whole width
    y: NDArray[np.float64]  # [N]
    colour: str = "run"  # a name of COLOURS
    low: NDArray[np.float64] | None = None  # [N], as `high` an edge of a band
    high: NDArray[np.float64] | None = None
    style: str = "-"  # of the line, as matplotlib writes it; "." for dots


def line_chart(
    series: Sequence[Series],
    *,
    size: tuple[float, float] = (8.6, 4.0),
    x_max: float | None = None,
    x_label: str = "",
    y_label: str = "",
    log_y: bool = False,
    from_zero: bool = False,
) -> Any:
    """Series as a Figure of `size` inches, later ones on top; None when nothing is finite.

    Args:
        x_max: where the axis ends: lines are cut there, at an interpolated point.
        from_zero: the y axis shows zero.
    """
    shown = [one for one in (_finite(one, x_max=x_max) for one in series) if len(one.x)]
    if not shown:
        return None
    figure, axes = new_figure(size=size)
    for one in shown:
        _draw(axes, one)
    axes.set(yscale="log" if log_y else "linear", xlabel=x_label, ylabel=y_label)
    ends = [one.x[-1] for one in shown if len(one.x) > 1 or one.style == "."]
    if ends:
        axes.set_xlim(min(0.0, *(one.x[0] for one in shown)), x_max or (max(ends) or 1.0))
    if from_zero:
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]) if min(one.y.min() for one in shown) < 0 else 0.0)
    _short_ticks(axes)
    _end_labels(axes, shown)
    return figure


def interval_chart(
    rows: Sequence[tuple[str, float, tuple[float, float] | None, str]],
    *,
    x_label: str,
    limits: tuple[float, float] | None = None,
    level: float | None = None,
) -> Any:
    """Values as dots with their intervals, a row each from the top, as a Figure; None where there is no row.

    Args:
        rows: label, value, (low, high) or None, and a name of COLOURS.
        limits: of the axis.
        level: where a dotted line stands.
    """
    if not rows:
        return None
    figure, axes = new_figure(size=(8.6, 0.55 + 0.27 * len(rows)))
    axes.grid(visible=False, axis="y")
    axes.grid(axis="x", color=COLOURS["rule"], linewidth=0.8)
    if level is not None:
        axes.axvline(level, color=COLOURS["faint"], linestyle=":", linewidth=1.2)
    for place, (_, value, interval, colour) in enumerate(rows):
        if interval is not None:
            axes.plot(
                interval, (place, place), "-", color=COLOURS[colour], linewidth=5, alpha=0.3, solid_capstyle="butt"
            )
        axes.plot([value], [place], "o", color=COLOURS[colour], markersize=5.5)
    axes.set(yticks=range(len(rows)), yticklabels=[row[0] for row in rows], xlabel=x_label)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(limits or (min(0.0, axes.get_xlim()[0]), axes.get_xlim()[1]))
    for label in axes.get_yticklabels():
        label.set_parse_math(False)
    return figure


def new_figure(*, size: tuple[float, float], columns: int = 1, **grid: Any) -> tuple[Any, Any]:
    """A Figure of `size` inches and its Axes (an array of them for several columns), in this project's looks."""
    from matplotlib.figure import Figure  # takes a second to load

    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(1, columns, **grid)
    for one in np.atleast_1d(axes):
        one.spines[["top", "right", "left"]].set_visible(False)
        one.spines["bottom"].set_color(COLOURS["faint"])
        one.tick_params(which="both", length=0, labelcolor=COLOURS["soft"], labelsize=9)
        one.grid(axis="y", color=COLOURS["rule"], linewidth=0.8)
        one.set_axisbelow(True)
        for label in (one.xaxis.label, one.yaxis.label, one.title):
            label.set(color=COLOURS["soft"], size=9.5)
    return figure, axes


def save(figure: Any, path: Path) -> Path:
    """Write a figure as its file's ending says; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120, facecolor="white")
    return path


def to_svg(figure: Any, *, title: str, css: str = "chart") -> str:
    """A figure as an SVG element for a page, whose variables colour it; `title` is plain text and names it."""
    import matplotlib

    file = io.StringIO()
    # ids made from the title: several elements of a page must not share any
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": f"{title}{css}{figure.get_size_inches()}"}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    text = re.sub(
        r"<metadata>.*?</metadata>|<!--.*?-->|<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.DOTALL
    )
    view = re.search(r'viewBox="[^"]+"', text)
    assert view is not None
    body = text[text.index(">", text.index("<svg")) + 1 :].replace("xlink:href", "href")
    used = set(re.findall(r"#([\w-]+)", body))
    body = re.sub(r' id="([^"]*)"', lambda match: match[0] if match[1] in used else "", body)
    body = re.sub(r"font(-family)?: [^;\"]*'[^;\"]*", _font_size, body)
    for name, colour in COLOURS.items():
        body = body.replace(colour, f"var(--{name})")
    head = f'<svg class="{css}" {view[0]} role="img" aria-label="{escape(title)}">'
    return head + re.sub(r"\n\s*", "\n", body)


def in_page(figure: Any, *, title: str, css: str = "chart") -> Markup:
    """`to_svg` as a page takes it; nothing where there is no figure."""
    return Markup() if figure is None else Markup(to_svg(figure, title=title, css=css))


def short(value: float, _: object = None) -> str:
    """A number as an axis shows it: 1500 -> 1.5k, 0.25 -> 0.25."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{unit}"
    return "0" if value == 0 else f"{value:.3g}"


def duration(seconds: float) -> str:
    """Seconds in the unit that suits them: 2 h 05 min, 3.1 min, 12.0 s."""
    minutes, hours = seconds / 60, seconds / 3600
    if hours >= 1:
        return f"{int(hours)} h {int(minutes) % 60:02d} min"
    return f"{minutes:.1f} min" if minutes >= 1 else f"{seconds:.1f} s"


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


def spread_apart(spots: Sequence[float], gap: float) -> list[float]:
    """Ascending places within 0..1, moved as little as needed to be `gap` apart, and back from above 1."""
    placed = list[float]()
    for spot in spots:
        placed.append(max(spot, placed[-1] + gap if placed else 0.0))
    for index in reversed(range(len(placed))):
        placed[index] = min(placed[index], placed[index + 1] - gap if index + 1 < len(placed) else 1.0)
    return placed


def _draw(axes: Any, one: Series) -> None:
    colour = COLOURS[one.colour]
    if len(one.x) == 1 and one.style in ("--", ":"):
        axes.axhline(one.y[0], color=colour, linestyle=one.style, linewidth=1.1)
    elif one.style == ".":
        axes.plot(one.x, one.y, "o", color=colour, markersize=3.2, markeredgewidth=0, alpha=0.75)
    else:
        few = one.low is not None and len(one.x) <= 40
        marker = {"marker": "o", "markersize": 5, "markerfacecolor": colour} if few or len(one.x) == 1 else {}
        # the last dot stands on the edge of the axes
        axes.plot(one.x, one.y, one.style, color=colour, linewidth=LINES.get(one.colour, 1.5), clip_on=False, **marker)
    if one.low is not None and one.high is not None:
        axes.fill_between(one.x, one.low, one.high, color=colour, alpha=0.15, linewidth=0)


def _end_labels(axes: Any, series: Sequence[Series]) -> None:
    """Each label beside its line's right end, pushed apart where two would overlap, tied by a thin line."""
    limits = np.asarray(axes.get_ylim())
    scale = np.log10 if axes.get_yscale() == "log" else np.asarray
    low, high = scale(limits)

    def place(one: Series) -> float:
        return float((scale(one.y[-1]) - low) / (high - low))

    named = sorted((one for one in series if one.label), key=place)
    gap = LABEL_SIZE * 1.35 / 72 / (axes.figure.get_size_inches()[1] * 0.82)
    right = axes.get_xlim()[1]
    for one, spot in zip(named, spread_apart([place(one) for one in named], gap), strict=True):
        level = len(one.x) == 1 and one.style != "-"
        x = right if level else one.x[-1]
        inside = x < 0.8 * right  # a short line has room beside its end
        axes.annotate(
            one.label,
            xy=(x, one.y[-1]),
            xytext=(8, 0) if inside else (1.03, spot),
            textcoords="offset points" if inside else axes.transAxes,
            va="center",
            fontsize=LABEL_SIZE + (one.colour == "run"),
            fontweight="bold" if one.colour == "run" else "normal",
            color=COLOURS["soft" if one.colour in ("reference", "train") else one.colour],
            arrowprops=None if inside else {**LEADER, "color": COLOURS["reference"]},
            annotation_clip=False,
            parse_math=False,
        )


def _short_ticks(axes: Any) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    if axes.get_yscale() == "log":
        interval = axes.yaxis.get_view_interval()
        span = math.log10(max(interval) / min(interval))
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if span < 1.6 else (1,), numticks=8))
        axes.yaxis.set_minor_formatter(NullFormatter())
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(short))


def _finite(series: Series, *, x_max: float | None) -> Series:
    """The series in order of x without NaN, and cut at x_max at an interpolated last point."""
    keep = np.isfinite(series.x) & np.isfinite(series.y)
    order = np.argsort(series.x[keep], kind="stable")
    x = grid = series.x[keep][order]
    if x_max is not None and len(x) and x[-1] > x_max:
        grid = x[x <= x_max]
        if series.style != "." and len(grid) and grid[-1] < x_max:
            grid = np.append(grid, x_max)

    def on_grid(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return values[keep][order] if grid is x else np.interp(grid, x, values[keep][order])

    low, high = (None if one is None else on_grid(one) for one in (series.low, series.high))
    return Series(series.label, grid, on_grid(series.y), series.colour, low, high, series.style)


def _font_size(match: re.Match[str]) -> str:
    size = re.search(r"[\d.]+px", match[0])
    weight = "font-weight: 650; " if "bold" in match[0] or "700" in match[0] else ""
    return f"{weight}font-size: {size[0]}" if size else ""
