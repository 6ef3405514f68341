"""Curves and dots over one linear axis, as a PNG."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

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
