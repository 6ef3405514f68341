"""Milliseconds against distance to the optimum, both logarithmic, as a PNG."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

WIDTH, HEIGHT, MARGIN = 900, 620, 70
INK, GRID = (40, 40, 40), (225, 225, 225)
COLOURS = [(31, 90, 180), (200, 60, 40), (40, 140, 70), (140, 80, 170), (200, 130, 20), (90, 90, 90)]


@dataclass(frozen=True, slots=True)
class Dot:
    """A point with a label; points of one group have one colour."""

    x: float
    y: float
    label: str
    group: str


def scatter(path: Path, dots: Sequence[Dot], *, x_label: str, y_label: str, floor: float = 1e-6) -> None:
    """Draw the points with x, y > 0; what lies below `floor` is drawn there."""
    dots = [Dot(d.x, max(d.y, floor), d.label, d.group) for d in dots if d.x > 0 and math.isfinite(d.y)]
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw = ImageDraw.Draw(image)
    if dots:
        x_range, y_range = _decades([d.x for d in dots]), _decades([d.y for d in dots])
        _grid(draw, x_range, y_range)
        groups = list(dict.fromkeys(d.group for d in dots))
        for dot in dots:
            _point(draw, dot, _across(dot.x, x_range), _up(dot.y, y_range), COLOURS[groups.index(dot.group) % 6])
        for k, group in enumerate(groups):
            draw.text((WIDTH - 3 * MARGIN, 12 + 14 * k), group, fill=COLOURS[k % 6])
    draw.text((WIDTH // 2 - 40, HEIGHT - 24), x_label, fill=INK)
    draw.text((8, 12), y_label, fill=INK)
    image.save(path)


def _point(draw: ImageDraw.ImageDraw, dot: Dot, x: float, y: float, colour: tuple[int, int, int]) -> None:
    draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=colour)
    draw.text((x + 7, y - 6), dot.label, fill=colour)


def _grid(draw: ImageDraw.ImageDraw, x_range: tuple[int, int], y_range: tuple[int, int]) -> None:
    for power in range(x_range[0], x_range[1] + 1):
        x = _across(10.0**power, x_range)
        draw.line((x, MARGIN, x, HEIGHT - MARGIN), fill=GRID)
        draw.text((x - 10, HEIGHT - MARGIN + 6), f"{10.0**power:g}", fill=INK)
    for power in range(y_range[0], y_range[1] + 1):
        y = _up(10.0**power, y_range)
        draw.line((MARGIN, y, WIDTH - MARGIN, y), fill=GRID)
        draw.text((12, y - 6), f"{10.0**power:g}", fill=INK)


def _decades(values: Sequence[float]) -> tuple[int, int]:
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)


def _across(value: float, powers: tuple[int, int]) -> float:
    return MARGIN + (math.log10(value) - powers[0]) / (powers[1] - powers[0]) * (WIDTH - 3 * MARGIN)


def _up(value: float, powers: tuple[int, int]) -> float:
    return HEIGHT - MARGIN - (math.log10(value) - powers[0]) / (powers[1] - powers[0]) * (HEIGHT - 2 * MARGIN)


WIDTH, HEIGHT, MARGIN, LEGEND = 900, 520, 50, 220
INK, GRID = (40, 40, 40), (225, 225, 225)
Colour = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Curve:
    """Points [N]; a line of `width` pixels, or dots where that is 0. Curves without a label are not in the legend."""

    x: Sequence[float]
    y: Sequence[float]
    colour: Colour
    label: str = ""
    width: int = 2


def curves(path: Path, drawn: Sequence[Curve], *, x_label: str, y_label: str) -> None:
    """Draw all curves, later ones on top."""
    xs, ys = [x for c in drawn for x in c.x], [y for c in drawn for y in c.y]
    ranges = (min(xs), max(xs)), (min(ys), max(ys))
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw = ImageDraw.Draw(image)
    _grid(draw, *ranges)
    for curve in drawn:
        points = [(_across(x, ranges[0]), _up(y, ranges[1])) for x, y in zip(curve.x, curve.y, strict=True)]
        if curve.width:
            draw.line(points, fill=curve.colour, width=curve.width, joint="curve")
        else:
            for x, y in points:
                draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=curve.colour)
    for k, curve in enumerate([c for c in drawn if c.label]):
        draw.text((WIDTH - LEGEND + 10, MARGIN + 18 * k), curve.label, fill=curve.colour)
    draw.text(((WIDTH - LEGEND) // 2, HEIGHT - 20), x_label, fill=INK)
    draw.text((MARGIN, 16), y_label, fill=INK)
    image.save(path)


def _grid(draw: ImageDraw.ImageDraw, x_range: tuple[float, float], y_range: tuple[float, float]) -> None:
    for k in range(5):
        x = x_range[0] + k / 4 * (x_range[1] - x_range[0])
        y = y_range[0] + k / 4 * (y_range[1] - y_range[0])
        draw.line((_across(x, x_range), MARGIN, _across(x, x_range), HEIGHT - MARGIN), fill=GRID)
        draw.line((MARGIN, _up(y, y_range), WIDTH - LEGEND, _up(y, y_range)), fill=GRID)
        draw.text((_across(x, x_range) - 10, HEIGHT - MARGIN + 6), f"{x:.2g}", fill=INK)
        draw.text((8, _up(y, y_range) - 6), f"{y:.2g}", fill=INK)


def _across(value: float, limits: tuple[float, float]) -> float:
    return MARGIN + (value - limits[0]) / (limits[1] - limits[0]) * (WIDTH - MARGIN - LEGEND)


def _up(value: float, limits: tuple[float, float]) -> float:
    return HEIGHT - MARGIN - (value - limits[0]) / (limits[1] - limits[0]) * (HEIGHT - 2 * MARGIN)
