"""The decisions of a drive on one page: what chose the actions, how long each took, how good the model's guess was."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.storage.durable import write_atomic
from trainers.deployment.status import SOURCES
from trainers.deployment.telemetry import Telemetry
from trainers.reporting.charts import COLOURS, Series, line_chart, thin, to_svg

FACTS = (
    *("return_mean", "return_ci95", "episodes", "decisions", "late", "missing", "fallbacks", "frames_missing"),
    *("overruns", "p50_ms", "p99_ms", "p999_ms", "margin_min_ms", "prediction_error", "disagreement"),
    *("hz", "bundle", "sha256"),
)
POINTS = 2000  # of a chart
DIMENSIONS = ("run", "second", "third", "fourth", "fifth", "train")  # their colours
STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:960px;margin:40px auto;padding:0 20px;color:var(--ink)}"
    "h1{font-size:28px}h2{font-size:17px;margin:32px 0 4px}p{color:var(--soft);margin:0 0 8px}"
    "th{text-align:left;font-weight:500;color:var(--soft);padding:2px 18px 2px 0}svg{width:100%;height:auto}"
)


def write_drive_report(path: Path, results: Mapping[str, Any], telemetry: Telemetry) -> Path:
    """Write a self-contained page; returns its path."""
    rows, actions = telemetry.rows, telemetry.actions[:, : len(DIMENSIONS)]
    number = np.arange(len(rows), dtype=float)
    latency = np.array([row.latency_ms for row in rows])

    def of_all(values: Iterable[float], colour: str) -> list[Series]:
        return [Series("", *largest(number, np.array([*values], dtype=float)), colour=colour)]

    group = max(1, -(-len(rows) // POINTS))
    every = "of every decision" if group == 1 else f"the largest of every {group} decisions"
    charts = [
        _section("Latency", f"{every}, in milliseconds; the period is grey", [
            Series("period", np.zeros(1), np.array([1e3 / results["hz"]]), "reference", style="--"),
            Series("decision", *largest(number, latency), style="."),
        ]),
        _section("Latencies, sorted", "the share of decisions that took at most so many milliseconds", [
            Series("", *thin(np.sort(latency), np.linspace(0, 1, len(latency))))
        ], x_label="ms"),
        _section("Source", f"{every}: " + ", ".join(f"{i} {name}" for i, name in enumerate(SOURCES)),
                 of_all((SOURCES.index(row.source) for row in rows), "run")),
        _section("Action", f"of the first {len(DIMENSIONS)} dimensions at most, in the robot's units", [
            Series(str(dim), number[::group], actions[::group, dim], colour=colour)
            for dim, colour in zip(range(actions.shape[1]), DIMENSIONS, strict=False)
        ]),
        _section("Prediction error", "between predicted and inferred latents, one step ahead",
                 of_all((row.prediction_error for row in rows), "second")),
        _section("Disagreement", "between an ensemble's predictions of those latents",
                 of_all((row.disagreement for row in rows), "second")),
        _section("Predicted return", "of the plans", of_all((row.predicted_return for row in rows), "third")),
    ]  # fmt: skip
    sources = {f"by {name}": count for name, count in results["sources"].items()}
    facts = {key: results[key] for key in FACTS if results.get(key) is not None} | sources
    table = "".join(f"<tr><th>{escape(str(k))}</th><td>{escape(_shown(v))}</td></tr>" for k, v in facts.items())
    colours = ";".join(f"--{name}:{colour}" for name, colour in COLOURS.items())
    title = escape(f"{results['task']} at {results['hz']:g} Hz")
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f"<style>:root{{{colours}}}{STYLE}</style><h1>{title}</h1><table>{table}</table>{''.join(charts)}</html>"
    )
    write_atomic(path, page.encode())
    return path


def largest(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """x, y [N] as the largest y of at most POINTS neighbouring groups: one late decision shows."""
    starts = np.arange(0, len(x), max(1, -(-len(x) // POINTS)))
    return x[starts], np.fmax.reduceat(y, starts) if len(y) else y


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " to ".join(map(_shown, value))
    if isinstance(value, float):
        return f"{value:,.1f}" if abs(value) >= 100 else f"{value:.3g}"
    return "" if value is None else str(value)


def _section(title: str, text: str, series: Sequence[Series], x_label: str = "decision") -> str:
    figure = line_chart(series, size=(8.6, 2.6), x_label=x_label, from_zero=True)
    chart = "" if figure is None else to_svg(figure, title=title)
    return f"<h2>{escape(title)}</h2><p>{escape(text)}</p>{chart}" if chart else ""
