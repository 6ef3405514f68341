"""One self-contained report.html from a run folder: what report.html.j2 shows, read from the run's files."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from trainers.reporting.charts import Series, duration, in_page, line_chart, short, thin
from trainers.reporting.embedded import embedded
from trainers.reporting.published_curves import Curve, last_mark, published_curves, published_series, return_at
from trainers.reporting.write_page import write_page
from trainers.run_folder.read import Run, is_number, leaves, read_run
from trainers.run_folder.three_digits import low_to_high, three_digits

TIME_PARTS = ("env", "plan", "wait", "update", "evaluation", "rest")
COUNTERS = ("env_steps", "decisions", "updates")
FACTS = ("look", "backend", "renderer", "action_repeat", "seed", "precision", "devices")
HELD_OUT_STEPS = {1: "run", 5: "second", 15: "reference"}


def write_report(run_dir: Path | str, *, out: Path | None = None) -> Path:
    """Write a run's page, whatever is in its folder, and return its path.

    out: the file or the folder to write; report.html in the run folder by default. Raises BadConfig where it cannot.
    """
    run_dir = Path(run_dir)
    if not run_dir.is_dir():
        raise FileNotFoundError(f"run_dir: expected a run folder, got {run_dir}")
    run = read_run(run_dir)
    return write_page(
        "report.html.j2",
        folder=run_dir,
        out=out,
        title=run.task,
        eyebrow="Latent world model, learned from pixels" if _images(run) else "World model, learned from states",
        subtitle=_subtitle(run),
        hero=_hero(run),
        tiles=_tiles(run),
        axis=run.axis,
        learning=_learning(run),
        held_out=_held_out(run),
        imagined=_pictures(run, "open_loop"),
        episodes=_pictures(run, "evaluation"),
        acted=_acted(run),
        return_gap=_return_gap(run),
        distilled=_distilled(run),
        losses=_small_charts(run, "loss/"),
        uncertainty=_small_charts(run, "model/") + _small_charts(run, "reward/"),
        time=_time(run),
        facts=_facts(run),
        versions=_versions(run),
        config=run.config_text,
        results=json.dumps(run.results, indent=2, default=str) if run.results else "",
    )


def _subtitle(run: Run) -> str:
    agent = run.find("agent")
    agent = (agent.get("name") or "") if isinstance(agent, Mapping) else agent or ""
    state = run.results.get("status") or ("finished" if run.results else "not finished: no results yet")
    return " · ".join(str(piece) for piece in (agent, run.run_dir.resolve().name, state) if piece)


def _hero(run: Run) -> dict[str, str]:
    """The one figure that matters, and what it is."""
    mean, interval, note = run.results.get("return_mean"), run.results.get("return_ci95"), "final return"
    returns = run.results.get("returns")
    if not is_number(mean):
        mean, note, returns = run.last("eval/return_mean"), "return at the last evaluation", None
        interval = [run.last("eval/return_ci95_low"), run.last("eval/return_ci95_high")]
    what, error = _held_out_error(run)
    if not is_number(mean):
        shown = {"value": f"{error:.2f}", "note": f"{what} error on held-out episodes"} if error is not None else {}
        return {"value": "", "note": "", **shown}
    if isinstance(interval, list | tuple) and len(interval) == 2 and all(is_number(edge) for edge in interval):
        note += f", 95% interval {low_to_high(interval)}"
    note += f", {len(returns)} episodes" if isinstance(returns, list) else ""
    return {"value": three_digits(mean), "note": note + ", one training seed"}


def _tiles(run: Run) -> list[tuple[str, str]]:
    seconds, best, params = _counter(run, "seconds"), run.series("eval/return_mean")[1], run.find("params")
    counts = [(name.replace("_", " "), _counter(run, name)) for name in COUNTERS]
    tiles = [
        *((name, f"{value:,.0f}" if value is not None else "") for name, value in counts),
        ("wall time", duration(seconds) if seconds is not None else ""),
        ("best evaluation", three_digits(best.max()) if len(best) else ""),
        ("parameters", short(params) if is_number(params) else ""),
        ("render", " / ".join(filter(None, (_plain(run.find(key)) for key in ("look", "backend"))))),
    ]
    return [(name, value) for name, value in tiles if value]


def _learning(run: Run) -> dict[str, Any] | None:
    """The evaluation's curve, the training episodes, and what they can be compared with."""
    curves = published_curves(run.task) if run.axis == "env_steps" else []
    steps = run.metrics.get(run.axis, np.empty(0))
    last = float(np.nanmax(steps)) if np.isfinite(steps).any() else 0.0
    series, x_max = published_series(curves, last, label=lambda curve: curve.method)
    own = [Series("", *thin(*run.series("train/return"), points=600), "train", style="."), _evaluation_returns(run)]
    if not any(len(one.x) for one in own):
        return None
    random, (best_name, best) = run.last("train/random_return"), known_optimum(run)
    if random is not None:
        series.append(_level("random", random, "soft", ":"))
    # where nothing comes near what is possible, a line there would flatten every curve
    if best is not None and best < 4 * max(one.y.max() for one in (*series, *own) if len(one.y)):
        series.append(_level(best_name, best, "third", "--"))
    title = f"return over {run.axis}"
    return {
        "chart": _chart([*series, *own], title=title, x_max=x_max, x_label=run.axis, from_zero=True),
        "random": three_digits(random) if random is not None else "",
        "best": f"{'the optimum' if best_name == 'optimum' else 'the most that is possible'}, {three_digits(best)}"
        if best
        else "",
        "curves": _sources(run, curves, last_mark(x_max or 0)) if curves else [],
        "head": ("method", f"return at {short(last_mark(x_max or 0))}", "seeds", "source"),
    }


def known_optimum(run: Run) -> tuple[str, float | None]:
    """What the best return is called and is; None where nobody knows it.

    A suite task's rewards are at most 1 in each of its control steps. The toy task's optimum has a closed form, here as
    the mean over the final evaluation's episodes.
    """
    task = run.config.get("task")
    source, options = (task.get("source"), task.get("env") or {}) if isinstance(task, Mapping) else (None, {})
    if source == "dmc" and is_number(run.spec.get("episode_steps")):
        return "possible", float(run.spec["episode_steps"])
    if source != "toy":
        return "", None
    from datamodules.envs.seeds import SeedRank, episode_seed
    from datamodules.envs.toy import optimal_return

    facts = {key: options[key] for key in ("episode_steps", "speed", "random_goal") if key in options}
    count = len(run.results.get("returns") or [None] * 10)
    seeds = [episode_seed(int(run.config.get("seed") or 0), SeedRank.EVALUATION, 0, i) for i in range(count)]
    return "optimum", float(np.mean([optimal_return(seed, **facts) for seed in seeds]))


def _level(label: str, value: float, colour: str, style: str) -> Series:
    return Series(label, np.zeros(1), np.array([value]), colour, style=style)


def _evaluation_returns(run: Run) -> Series:
    names = (run.axis, "eval/return_mean", "eval/return_ci95_low", "eval/return_ci95_high")
    empty = np.full(len(run.metrics.get("eval/return_mean", ())), np.nan)
    x, y, low, high = (run.metrics.get(name, empty) for name in names)
    keep = np.isfinite(y)
    low, high = (np.where(np.isfinite(edge), edge, y)[keep] for edge in (low, high))
    return Series("this run", x[keep], y[keep], low=low, high=high)


def _sources(run: Run, curves: Sequence[Curve], mark: int) -> list[tuple[str, str, str, str]]:
    """Returns at a place by one definition, of the run and of published curves, nothing interpolated."""
    reached = (run.last(run.axis) or 0.0) >= mark
    own = return_at(mark, *run.series("eval/return_mean")) if reached else float("nan")
    rows = [("this run", own, 1, "evaluations of the 20,000 env_steps before, as everywhere in this table")]
    rows += [(curve.method, curve.at(mark), curve.seeds, curve.source) for curve in curves]
    return [
        (name, three_digits(value) if np.isfinite(value) else "", str(seeds), source)
        for name, value, seeds, source in rows
    ]


def _held_out_error(run: Run) -> tuple[str, float | None]:
    """What was predicted, the image or, of a model without a decoder, the reward; and the last error with all seen."""
    image = run.last("held_out/image")
    return ("image", image) if image is not None else ("reward", run.last("held_out/reward"))


def _held_out(run: Run) -> dict[str, Any] | None:
    """Errors over the run, and the last ones beside those of showing the last seen frame."""
    what, error = _held_out_error(run)
    if error is None:
        return None
    names = [("seen", f"held_out/{what}", "train")]
    names += [(f"{k} ahead", f"held_out/{what}_{k}", colour) for k, colour in HELD_OUT_STEPS.items()]
    series = [Series(label, *thin(*run.series(name)), colour) for label, name, colour in names]
    chart = _chart(series, title=f"held-out {what} error", height=3.0, x_label=run.axis, from_zero=True)
    kinds = [("every frame seen", "image", "", "reward")]
    kinds += [(f"{k} decisions ahead", f"image_{k}", f"still_{k}", f"reward_{k}") for k in HELD_OUT_STEPS]

    def value(key: str) -> str:
        number = run.last(f"held_out/{key}") if key else None
        return f"{number:.3g}" if is_number(number) else ""

    rows = [(label, *map(value, keys)) for label, *keys in kinds]
    return {"what": what, "chart": chart, "rows": [row for row in rows if any(row[1:])]}


def _acted(run: Run) -> str:
    """Who is in the films and in the returns."""
    agent, planner = (run.config.get(key) for key in ("agent", "planner"))
    agent, planner = (part if isinstance(part, Mapping) else {} for part in (agent, planner))
    if agent.get("name") == "student":
        return "The student"
    name = planner.get("name")
    return "The actor" if agent.get("act_with") == "actor" else f"The planner ({name})" if name else "The planner"


def _return_gap(run: Run) -> Markup:
    if not _acted(run).startswith("The planner"):
        return Markup()  # nothing was planned
    names = (("predicted", "plan/predicted_return", "second"), ("realised", "plan/realised_return", "run"))
    series = [Series(label, *thin(*run.series(name)), colour) for label, name, colour in names]
    return _chart(series, title="predicted and realised return of plans", height=3.0, x_label=run.axis)


def _distilled(run: Run) -> list[tuple[str, ...]]:
    """Of a student's run: each task's teacher and student, as they were measured at its end."""
    path = run.run_dir / "distillation.csv"
    if not path.is_file():
        return []

    def number(text: str, form: str) -> str:
        return format(float(text), form) if text else ""

    def returned(text: str) -> str:
        return three_digits(float(text)) if text else ""

    with path.open(newline="") as file:
        return [
            (
                f"{row['task']}: {row['policy']}",
                row["acts_with"],
                returned(row["return"]),
                " to ".join(filter(None, (returned(row[f"ci95_{edge}"]) for edge in ("low", "high")))),
                number(row["share"], ".0%"),
                number(row["decision_ms"], ".2f"),
                short(float(row["parameters"])),
            )
            for row in csv.DictReader(file)
        ]


def _chart(series: Sequence[Series], *, title: str, height: float = 4.0, **options: Any) -> Markup:
    """For a screen, and for a phone with fewer labels; nothing where nothing is finite."""
    wide = line_chart(series, size=(8.6, height), **options)
    few = [one if one.colour != "reference" else Series("", one.x, one.y, one.colour) for one in series]
    narrow = line_chart(few, size=(4.0, 0.8 * height), **options)
    return in_page(wide, title=title, css="chart wide") + in_page(narrow, title=title, css="chart narrow")


def _small_charts(run: Run, prefix: str) -> list[tuple[str, Markup]]:
    """Every column with this prefix, by its name and as a small chart; on a logarithmic axis where it falls far."""
    charts = []
    for name in sorted(name for name in run.metrics if name.startswith(prefix)):
        x, y = thin(*run.series(name), points=160)
        log = bool(len(y) and y.min() > 0 and y.max() / y.min() > 10)
        figure = line_chart([Series("", x, y)], size=(2.9, 1.6), log_y=log)
        if figure is not None:
            title = name.removeprefix("loss/") + (" (log)" if log else "")
            charts.append((title, in_page(figure, title=name)))
    return charts


def _time(run: Run) -> dict[str, Any] | None:
    seconds = {name: run.last(f"time/{name}") or 0.0 for name in TIME_PARTS}
    total = sum(seconds.values())
    if not total > 0:
        return None
    parts = [{"name": key, "share": value / total, "duration": duration(value)} for key, value in seconds.items()]
    # without environments nothing was collected: the counters are those of the recording
    counted = COUNTERS if run.last("time/env") else ("updates",)
    rates = [f"{short((_counter(run, name) or 0) / total)} {name.replace('_', ' ')}" for name in counted]
    return {"parts": parts, "rates": rates}


def _facts(run: Run) -> list[tuple[str, str]]:
    facts = [(name, run.find(name)) for name in FACTS] + [("observation", _observation(run))]
    facts += [("device", run.versions.get("device"))]
    facts += [(name, _counter(run, name)) for name in COUNTERS]
    return [(name.replace("_", " "), text) for name, value in facts if (text := _plain(value))]


def _versions(run: Run) -> list[tuple[str, str]]:
    versions = [
        (name.replace("_", " "), _plain(value)) for name, value in leaves(run.versions).items() if name != "device"
    ]
    return [(name, value) for name, value in versions if value]


def _images(run: Run) -> dict[str, Any]:
    images = run.spec.get("images")
    return dict(images) if isinstance(images, Mapping) else {}


def _observation(run: Run) -> str:
    """What the agent saw, by name and size."""
    vectors = run.spec.get("vectors")
    parts = {**_images(run), **(vectors if isinstance(vectors, Mapping) else {})}
    return ", ".join(f"{name} {_plain(size)}" for name, size in parts.items() if size)


def _pictures(run: Run, prefix: str) -> list[dict[str, str]]:
    """The newest still of a kind and the newest film of it, inside the page; a large film stays beside it."""
    files = []
    for kinds in ((".png", ".gif"), (".mp4",)):
        paths = [path for path in (run.run_dir / "videos").glob(f"{prefix}*") if path.suffix in kinds]
        # Names end with a counter, perhaps without leading zeros, or with "final".
        paths.sort(key=lambda path: (path.stem.endswith("final"), len(path.name), path.name))
        files += embedded([path for path in paths if path.is_file() and path.stat().st_size][-1:])
    return files


def _counter(run: Run, name: str) -> float | None:
    value = run.results.get(name)
    return float(value) if is_number(value) else run.last(name)


def _plain(value: Any) -> str:
    """A value as a page shows it; "" where it says that there is none."""
    if isinstance(value, list | tuple):
        return " x ".join(_plain(one) for one in value)
    return "" if value in (None, "none") else f"{value:,.10g}" if isinstance(value, float) else str(value)
