"""What the page of one run and the page of many have in common."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from datamodules.storage.durable import write_atomic
from trainers.command.configuration import BadConfig
from trainers.reporting.charts import Series
from trainers.reporting.published_curves import Curve

SHORTEST_AXIS = 50_000  # published curves begin at 25k env_steps: a shorter run is still drawn beside them


def write_page(
    template: str,
    *,
    folder: Path,
    out: Path | None,
    beside: Callable[[Path], None] = lambda folder: None,
    **content: Any,
) -> Path:
    """Fill in a template of this folder; returns the page's path, report.html in `folder` or what `out` says.

    beside: writes what else belongs into the page's folder. Raises BadConfig where that cannot be written.
    """
    path = (out or folder).expanduser()
    path = path if path.suffix == ".html" else path / "report.html"
    loader = FileSystemLoader(Path(__file__).parent)
    templates = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    text = templates.get_template(template).render(**content)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text.encode())
        beside(path.parent)
    except OSError as error:
        raise BadConfig(f"out: expected a place that can be written, got {path} ({error.strerror})") from error
    return path


def published_series(
    curves: Sequence[Curve], last: float, *, label: Callable[[Curve], str]
) -> tuple[list[Series], float | None]:
    """Published curves as grey lines beside runs that come to `last` env_steps, and where the axis ends."""
    x_max = max(last, SHORTEST_AXIS) if curves else last or None
    shown = [curve for curve in curves if x_max is None or curve.env_steps[0] <= x_max]
    return [Series(label(curve), curve.env_steps, curve.return_mean, "reference") for curve in shown], x_max


def duration(seconds: float) -> str:
    """Seconds in the unit that suits them: 2 h 05 min, 3.1 min, 12.0 s."""
    minutes, hours = seconds / 60, seconds / 3600
    if hours >= 1:
        return f"{int(hours)} h {int(minutes) % 60:02d} min"
    return f"{minutes:.1f} min" if minutes >= 1 else f"{seconds:.1f} s"
