"""One self-contained page on many runs, and tables beside it: what sweep.html.j2 shows."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from trainers.reporting import aggregates
from trainers.reporting.charts import Series, duration, in_page, interval_chart, line_chart, short
from trainers.reporting.published_curves import (
    ACTION_REPEAT,
    SHORTEST_AXIS,
    best_published,
    last_mark,
    published_curves,
    published_series,
    return_at,
)
from trainers.reporting.run_curves import Band, exploitation, mean_over_seeds, over_tasks
from trainers.reporting.run_set import RunResult, RunSet, final_returns
from trainers.reporting.set_summary import comparisons, marks, return_at_mark, returns_at_mark, summary
from trainers.reporting.tables import write_csv
from trainers.reporting.write_page import write_page
from trainers.run_folder.three_digits import low_to_high, three_digits

LINES = ("run", "second", "third", "fourth", "fifth")  # colours of variants, in their order
MOST_THIN_LINES = 10  # of single runs: more would hide their mean
THRESHOLDS = 101
RUNS_CSV, CURVES_CSV = "report_runs.csv", "report_curves.csv"


def write_sweep_report(runs: RunSet, *, against: RunSet | None = None, out: Path | None = None) -> Path:
    """Write the page and its tables; returns the page's path.

    out: the file or the folder to write; report.html in the runs' folder by default. Raises BadConfig where it cannot.
    """
    known = summary(runs, against=against)
    return write_page(
        "sweep.html.j2",
        folder=runs.root,
        out=out,
        beside=partial(_write_tables, runs),
        title=runs.root.name,
        subtitle=_subtitle(runs),
        hero=_hero(known),
        tiles=_tiles(runs, known),
        legend=_legend(runs),
        thin=_has_thin_lines(runs),
        task_charts=[(task, _task_chart(runs, task)) for task in runs.tasks],
        sources=_sources(runs),
        overall=_over_tasks(runs, "env_steps"),
        wall_clock=_over_tasks(runs, "seconds"),
        intervals=_intervals(runs),
        profile=_profile(runs),
        against=_against(runs, against),
        exploitation=[(task, chart) for task in runs.tasks if (chart := _exploitation(runs, task))],
        results=_result_rows(runs),
        results_head=_result_head(runs),
        runs=_run_rows(runs),
        runs_head=("run", "state", "seed", "return", "env_steps", "decisions", "updates", "minutes", "commit"),
        failures=[(run.name, run.error, "\n".join(run.last_lines)) for run in runs.runs if run.state == "failed"],
        tables=(RUNS_CSV, CURVES_CSV),
        resamples=aggregates.RESAMPLES,
    )


def _subtitle(runs: RunSet) -> str:
    seeds = sorted({len({run.seed for run in runs.of(task=task)}) for task in runs.tasks})
    counts = [(len(runs.tasks), "task"), (len(runs.variants), "variant")]
    parts = [f"{count} {name}{'s' if count > 1 else ''}" for count, name in counts if count > 1 or name == "task"]
    span = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    return " · ".join([*parts, f"{span} seed{'s' if seeds[-1] > 1 else ''} each"])


def _hero(known: dict[str, Any]) -> dict[str, str]:
    if known["iqm"] is None:
        return {"value": "", "note": ""}
    interval = known["iqm_ci95"]
    note = f"IQM of final returns, {known['finished']} runs"
    note += f", 95% interval {low_to_high(interval)}" if interval else ", one seed: no interval"
    return {"value": three_digits(known["iqm"]), "note": note}


def _tiles(runs: RunSet, known: dict[str, Any]) -> list[tuple[str, str]]:
    seconds = sum(run.last("seconds") or 0.0 for run in runs.runs)
    tiles = [(name, str(known[name])) for name in ("runs", "finished", "failed")]
    mean = known["return_mean"]
    tiles += [("mean return", three_digits(mean) if mean is not None else ""), ("time of all runs", duration(seconds))]
    tiles += [("action repeat", _joined(run.action_repeat for run in runs.runs))]
    tiles += [("render look", _joined(run.look for run in runs.runs))]
    return [(name, value) for name, value in tiles if value]


def _joined(values: Any) -> str:
    return ", ".join(dict.fromkeys(str(value) for value in values if value not in (None, "", "none")))


def _legend(runs: RunSet) -> list[tuple[str, str]]:
    """Colour and name of each variant, nothing where there is one."""
    names = runs.variants
    return [(LINES[i % len(LINES)], name or "default") for i, name in enumerate(names)] if len(names) > 1 else []


def _has_thin_lines(runs: RunSet) -> bool:
    return len(runs.variants) == 1 and any(len(runs.of(task=task)) <= MOST_THIN_LINES for task in runs.tasks)


def _variants(runs: RunSet) -> list[tuple[str, str, str]]:
    """Each variant, the label of its lines (the legend's where there are several) and its colour."""
    several = len(runs.variants) > 1
    return [(name, "" if several else "this sweep", LINES[i % len(LINES)]) for i, name in enumerate(runs.variants)]


def _series(label: str, band: Band, colour: str) -> Series:
    return Series(label, band.x, band.y, colour, low=band.low, high=band.high)


def _task_chart(runs: RunSet, task: str) -> Markup:
    """Every run thin, the mean over seeds with its interval, published curves grey."""
    own = runs.of(task=task)
    last = max((float(x[-1]) for run in own if len(x := run.column()[0])), default=0.0)
    repeat = _action_repeat(own)
    curves = [curve for curve in published_curves(task) if curve.action_repeat in (ACTION_REPEAT, repeat)]
    best = best_published(task, last_mark(max(last, SHORTEST_AXIS)), action_repeat=repeat) or ("", 0.0)
    # one is named: all names would cover a small chart
    series, x_max = published_series(curves, last, label=lambda curve: curve.method if curve.method == best[0] else "")
    if len(runs.variants) == 1 and len(own) <= MOST_THIN_LINES:
        series += [Series("", *run.column(), "train") for run in own]
    for variant, label, colour in _variants(runs):
        if band := mean_over_seeds(runs.of(task=task, variant=variant)):
            series.append(_series(label, band, colour))
    return _chart(series, f"return on {task}", (4.3, 2.7), x_max=x_max, x_label="env_steps", from_zero=True)


def _action_repeat(runs: Sequence[RunResult]) -> int:
    return next((run.action_repeat for run in runs if run.action_repeat), ACTION_REPEAT)


def _over_tasks(runs: RunSet, axis: str) -> Markup:
    series = []
    for variant, label, colour in _variants(runs):
        if band := over_tasks(runs, variant, axis):
            series.append(_series(label, replace(band, x=band.x / 60) if axis == "seconds" else band, colour))
    x_label = "minutes" if axis == "seconds" else axis
    return _chart(series, f"IQM over {x_label}", (8.6, 3.2), x_label=x_label, y_label="IQM of returns", from_zero=True)


def _intervals(runs: RunSet) -> Markup:
    """Mean return of each task, then mean and IQM over all, with their intervals, a row each for every variant."""
    rows = []
    for task in runs.tasks:
        rows += _interval_rows(runs, task, {task}, aggregates.mean)
    if len(runs.tasks) > 1:
        rows += _interval_rows(runs, "mean", set(runs.tasks), aggregates.mean)
    rows += _interval_rows(runs, "IQM", set(runs.tasks), aggregates.iqm)
    return in_page(interval_chart(rows, x_label="final return"), title="final returns with intervals")


def _interval_rows(runs: RunSet, label: str, tasks: set[str], statistic: Any) -> list[tuple[Any, ...]]:
    rows = []
    for variant, _, colour in _variants(runs):
        scores = {task: values for task, values in runs.scores(variant).items() if task in tasks}
        if scores:
            value, interval = aggregates.estimate(scores, statistic)
            seeds = max(map(len, scores.values()))
            rows.append((f"{label} ({seeds} seed{'s' if seeds > 1 else ''})", value, interval, colour))
    return rows


def _profile(runs: RunSet) -> Markup:
    highest = max((float(values.max()) for values in runs.scores().values()), default=0.0)
    lowest = min((float(values.min()) for values in runs.scores().values()), default=0.0)
    thresholds = np.linspace(min(0.0, lowest), max(highest, 1.0), THRESHOLDS)
    series = []
    for variant, label, colour in _variants(runs):
        if scores := runs.scores(variant):
            share, low, high = aggregates.bootstrap(scores, aggregates.performance_profile(thresholds))
            series.append(Series(label, thresholds, share, colour, low=low, high=high))
    return _chart(
        series, "performance profile", (8.6, 3.0), x_label="return", y_label="share of runs above", from_zero=True
    )


def _exploitation(runs: RunSet, task: str) -> Markup:
    bands = [(exploitation(runs.of(task=task, variant=name)), colour) for name, _, colour in _variants(runs)]
    series = [_series("", band, colour) for band, colour in bands if band is not None]
    if not series:
        return Markup()
    zero = Series("", np.zeros(1), np.zeros(1), "soft", style=":")
    return _chart([zero, *series], f"planner exploitation on {task}", (4.3, 2.2), x_label="env_steps")


def _against(runs: RunSet, against: RunSet | None) -> dict[str, Any] | None:
    """The probability of improvement over another set, task by task and over all, of every variant by itself."""
    if against is None:
        return None
    rows, table = [], []
    for name, (scores, others) in comparisons(runs, against).items():
        parts = [({task: scores[task]}, {task: others[task]}, task) for task in scores]
        for own, other, task in (*parts, (scores, others, "all tasks")):
            value, interval = aggregates.probability_of_improvement(own, other)
            label = f"{task}: {name}" if name else task
            rows.append((label, value, interval, "run" if task in scores else "second"))
            seeds = [sum(map(len, group.values())) for group in (own, other)]
            table.append((label, _with_interval(value, interval, "{:.2f}".format), *seeds))
    figure = interval_chart(rows, x_label="probability of improvement", limits=(0.0, 1.0), level=0.5)
    chart = in_page(figure, title="probability of improvement")
    return {"name": against.root.name, "chart": chart, "rows": table}


def _chart(series: Sequence[Series], title: str, size: tuple[float, float], **options: Any) -> Markup:
    return in_page(line_chart(series, size=size, **options), title=title)


# --- tables -----------------------------------------------------------------------------------------------------------


def _result_head(runs: RunSet) -> tuple[str, ...]:
    at = [name for mark in marks(runs) for name in (f"at {short(mark)}", "best published there")]
    variant = ("variant",) if len(runs.variants) > 1 else ()
    return ("task", *variant, "seeds", "final return", *at, "action repeat", "look", "exploitation", "minutes")


def _result_rows(runs: RunSet) -> list[tuple[str, ...]]:
    pairs = [(task, variant) for task in runs.tasks for variant in runs.variants]
    groups = [(task, variant, runs.of(task=task, variant=variant)) for task, variant in pairs]
    return [_result_row(runs, task, variant, group) for task, variant, group in groups if group]


def _result_row(runs: RunSet, task: str, variant: str, group: list[RunResult]) -> tuple[str, ...]:
    finals = final_returns(group)
    repeat = _action_repeat(group)
    at = []
    for mark in marks(runs):
        values = returns_at_mark(group, mark)
        best = best_published(task, mark, action_repeat=repeat)
        at += [
            three_digits(float(np.mean(values))) if values else "",
            f"{three_digits(best[1])} ({best[0]})" if best else "",
        ]
    gap = exploitation(group)
    minutes = [seconds / 60 for run in group if run.is_finished and (seconds := run.last("seconds"))]
    return (
        task,
        *((variant or "default",) if len(runs.variants) > 1 else ()),
        str(len(finals)),
        _with_interval(*aggregates.estimate({"": finals}, aggregates.mean), three_digits) if len(finals) else "",
        *at,
        _joined(run.action_repeat for run in group),
        _joined(run.look for run in group),
        f"{return_at(float(gap.x[-1]), gap.x, gap.y):+.3g}" if gap is not None else "",
        f"{np.mean(minutes):.3g}" if minutes else "",
    )


def _with_interval(value: float, interval: tuple[float, float] | None, text: Callable[[float], str]) -> str:
    between = f" ({text(interval[0])} to {text(interval[1])})" if interval else ""
    return f"{text(value)}{between}"


def _run_rows(runs: RunSet) -> list[tuple[str, ...]]:
    rows = []
    for run in runs.runs:
        counts = [run.last(name) for name in ("env_steps", "decisions", "updates")]
        seconds = run.last("seconds")
        mean = three_digits(run.return_mean) if run.return_mean is not None else ""
        texts = [f"{count:,.0f}" if count is not None else "" for count in counts]
        minutes = f"{seconds / 60:.1f}" if seconds is not None else ""
        rows.append((run.name, run.state, str(run.seed), mean, *texts, minutes, run.commit[:7]))
    return rows


def _sources(runs: RunSet) -> list[tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for task in runs.tasks:
        for curve in published_curves(task):
            found.setdefault(curve.method, (curve.method, str(curve.seeds), curve.source))
    return list(found.values())


def _write_tables(runs: RunSet, folder: Path) -> None:
    columns = ["name", "task", "variant", "seed", "state", "return_mean"]
    columns += ["action_repeat", "look", "commit", "device", "error"]
    counters = ["env_steps", "decisions", "updates", "seconds"]
    at = {mark: f"return_at_{mark}" for mark in marks(runs)}
    rows = [
        {name: getattr(run, name) for name in columns}
        | {name: run.last(name) for name in counters}
        | {name: return_at_mark(run, mark) for mark, name in at.items()}
        for run in runs.runs
    ]
    write_csv(folder / RUNS_CSV, rows, [*columns, *counters, *at.values()])
    curves = []
    for task in runs.tasks:
        for variant in runs.variants:
            if (band := mean_over_seeds(runs.of(task=task, variant=variant))) is None:
                continue
            low, high = (edge if edge is not None else np.full(len(band.x), np.nan) for edge in (band.low, band.high))
            facts = {"task": task, "variant": variant, "seeds": band.seeds}
            keys = ("env_steps", "return_mean", "return_ci95_low", "return_ci95_high")
            points = zip(band.x.tolist(), band.y.tolist(), low.tolist(), high.tolist(), strict=True)
            curves += [facts | dict(zip(keys, point, strict=True)) for point in points]
    names = ["task", "variant", "env_steps", "return_mean", "return_ci95_low", "return_ci95_high", "seeds"]
    write_csv(folder / CURVES_CSV, curves, names)
