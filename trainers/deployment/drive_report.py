"""The decisions of a drive on one page: what chose the actions, how long each took, how good the model's guess was."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from trainers.deployment.status import SOURCES
from trainers.deployment.telemetry import Telemetry
from trainers.reporting.charts import Series, in_page, line_chart, thin
from trainers.reporting.embedded import embedded
from trainers.reporting.write_page import write_page
from trainers.run_folder.three_digits import low_to_high, three_digits

TILES = ("decisions", "late", "missing", "fallbacks", "p50_ms", "p99_ms", "p999_ms", "margin_min_ms")
FACTS = (
    *("hz", "bundle", "sha256", "when", "episodes", "overruns", "faults", "frames_missing", "limited", "alarms"),
    *("prediction_error", "disagreement"),
)
COLOURS = ("run", "third", "second", "fifth", "reference")  # of SOURCES
POINTS = 2000  # of a chart
DIMENSIONS = ("run", "second", "third", "fourth", "fifth", "train")  # their colours


def write_drive_report(
    folder: Path, results: Mapping[str, Any], telemetry: Telemetry, *, episode: Sequence[Path] = ()
) -> Path:
    """Write a self-contained page; returns its path.

    Args:
        folder: where report.html is written.
        results: of the drive, as they are printed.
        telemetry: of its decisions.
        episode: stills and films of what the camera showed.
    """
    mean, interval = results["return_mean"], results["return_ci95"]
    note = f"return, 95% interval {low_to_high(interval)}" if interval else "return"
    decisions = max(1, results["decisions"])
    return write_page(
        "drive.html.j2",
        folder=folder,
        out=None,
        title=results["task"],
        subtitle=f"{results['hz']:g} decisions a second · {Path(results['bundle']).name} · {results['status']}",
        hero={"value": "" if mean is None else three_digits(mean), "note": f"{note}, {results['episodes']} episodes"},
        tiles=[(key.replace("_", " "), _shown(results[key])) for key in TILES if results[key] is not None],
        sources=[
            {"name": name.replace("_", " "), "count": count, "share": f"{count / decisions:.1%}", "colour": colour}
            for (name, count), colour in zip(results["sources"].items(), COLOURS, strict=True)
        ],
        episode=embedded(episode),
        charts=_charts(telemetry, period_ms=1e3 / results["hz"]),
        csv=Path(results["csv"]).name,
        facts=[(key.replace("_", " "), _shown(results[key])) for key in FACTS if results.get(key) is not None],
        versions=[(name.replace("_", " "), str(value)) for name, value in results.get("versions", {}).items()],
        results=json.dumps(results, indent=2, default=str),
    )


def _charts(telemetry: Telemetry, *, period_ms: float) -> list[tuple[str, str, Markup]]:
    rows, actions = telemetry.rows, telemetry.actions[:, : len(DIMENSIONS)]
    number = np.arange(len(rows), dtype=float)
    latency = np.array([row.latency_ms for row in rows])
    group = max(1, -(-len(rows) // POINTS))
    every = "of every decision" if group == 1 else f"the largest of every {group} decisions"

    def of_all(values: Iterable[float], colour: str) -> list[Series]:
        return [Series("", *largest(number, np.array([*values], dtype=float)), colour=colour)]

    sources = [SOURCES.index(row.source) for row in rows]
    legend = ", ".join(f"{i} {name.replace('_', ' ')}" for i, name in enumerate(SOURCES))
    charts: list[tuple[str, str, list[Series], str]] = [
        ("Latency", f"{every}, in milliseconds; the period is grey", [
            Series("period", np.zeros(1), np.array([period_ms]), "reference", style="--"),
            Series("decision", *largest(number, latency), style="."),
        ], "decision"),
        ("Latencies, sorted", "the share of decisions that took at most so many milliseconds", [
            Series("", *thin(np.sort(latency), np.linspace(0, 1, len(latency))))
        ], "ms"),
        # where all are the same the bar has said it
        ("Source", f"{every}: {legend}", of_all(sources, "run") if len(set(sources)) > 1 else [], "decision"),
        ("Action", f"of the first {len(DIMENSIONS)} dimensions at most, in the robot's units", [
            Series(str(dim), number[::group], actions[::group, dim], colour=colour)
            for dim, colour in zip(range(actions.shape[1]), DIMENSIONS, strict=False)
        ], "decision"),
        ("Prediction error", "between predicted and inferred latents, one step ahead",
         of_all((row.prediction_error for row in rows), "second"), "decision"),
        ("Disagreement", "between an ensemble's predictions of those latents",
         of_all((row.disagreement for row in rows), "second"), "decision"),
        ("Predicted return", "of the plans", of_all((row.predicted_return for row in rows), "third"), "decision"),
    ]  # fmt: skip
    return [
        (title, text, in_page(line_chart(series, size=(8.6, 2.6), x_label=label, from_zero=True), title=title))
        for title, text, series, label in charts
    ]


def largest(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """x, y [N] as the largest y of at most POINTS neighbouring groups: one late decision shows."""
    starts = np.arange(0, len(x), max(1, -(-len(x) // POINTS)))
    return x[starts], np.fmax.reduceat(y, starts) if len(y) else y


def _shown(value: Any) -> str:
    return three_digits(value) if isinstance(value, float) else str(value)
