"""One self-contained report.html from a run folder."""

import base64
import json
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.storage.durable import write_atomic
from trainers.command.configuration import BadConfig
from trainers.reporting import html
from trainers.reporting.charts import Series, line_chart, short, stacked_bar, thin
from trainers.reporting.published_curves import Curve, published_curves
from trainers.run_folder.read import Run, is_number, read_run

TIME_PARTS = ("env", "plan", "wait", "update", "evaluation", "rest")
FACTS = (
    *("look", "backend", "renderer", "action_repeat", "pixels", "images", "vectors"),
    *("seed", "precision", "accelerator", "devices"),
)
MAX_VIDEO_BYTES = 3_000_000
SHORTEST_AXIS = 50_000  # published curves begin at 25k env_steps: a shorter run is still drawn beside them


def write_report(run_dir: Path | str, *, out: Path | None = None) -> Path:
    """Write a run's page and return its path.

    Args:
        run_dir: the run folder, whatever is in it.
        out: the file or the folder to write; report.html in the run folder by default.

    Raises:
        FileNotFoundError: there is no such folder.
        BadConfig: the page cannot be written there.
    """
    run_dir = Path(run_dir)
    if not run_dir.is_dir():
        raise FileNotFoundError(f"run_dir: expected a run folder, got {run_dir}")
    run = read_run(run_dir)
    parts = (_header(run), _counters(run), _learning(run), held_out(run), _imagination(run), _episodes(run))
    body = "".join((*parts, _promises(run), _losses(run), _uncertainty(run), _time(run), _measured(run)))
    path = (out or run_dir).expanduser()
    path = path if path.suffix == ".html" else path / "report.html"
    text = html.page(title=f"{run.task}: report", body=body)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text.encode())
    except OSError as error:
        raise BadConfig(f"out: expected a place that can be written, got {path} ({error.strerror})") from error
    return path


def _header(run: Run) -> str:
    mean, interval = run.results.get("return_mean"), run.results.get("return_ci95")
    note = "final return"
    if not is_number(mean):
        mean, interval, note = run.last("eval/return_mean"), _last_interval(run), "return at the last evaluation"
    if isinstance(interval, list | tuple) and len(interval) == 2 and all(is_number(edge) for edge in interval):
        note += f", 95% interval {interval[0]:.0f} to {interval[1]:.0f}"
    returns = run.results.get("returns")
    # of the final evaluation, not of what was collected or recorded
    episodes = len(returns) if isinstance(returns, list) else None
    if is_number(run.results.get("return_mean")) and is_number(episodes):
        note += f", {episodes:.0f} episodes"
    state = run.results.get("status") or ("finished" if run.results else "not finished: no results yet")
    what, error = held_out_error(run)
    agent = run.find("agent")
    agent = (agent.get("name") or "") if isinstance(agent, Mapping) else agent or ""
    return html.header(
        eyebrow="World model, learned from states"
        if "state" in run.spec
        else "Latent world model, learned from pixels",
        title=run.task,
        subtitle=" · ".join(str(piece) for piece in (agent, run.run_dir.resolve().name, state) if piece),
        value=f"{mean:.0f}" if is_number(mean) else f"{error:.2f}" if is_number(error) else "",
        note=note if is_number(mean) or error is None else f"{what} error on held-out episodes",
    )


def _counters(run: Run) -> str:
    seconds = _counter(run, "seconds")
    best = run.series("eval/return_mean")[1]
    counts = [(name.replace("_", " "), _counter(run, name)) for name in ("env_steps", "decisions", "updates")]
    params = run.find("params")
    return html.tiles(
        [
            *((name, f"{value:,.0f}" if value is not None else "") for name, value in counts),
            ("wall time", _duration(seconds) if seconds is not None else ""),
            ("best evaluation", f"{best.max():.0f}" if len(best) else ""),
            ("parameters", f"{short(params)}" if is_number(params) else ""),
            ("render", " / ".join(str(piece) for piece in (run.find("look"), run.find("backend")) if piece)),
        ]
    )


def _learning(run: Run) -> str:
    curves = published_curves(run.task) if run.axis == "env_steps" else []
    steps = run.metrics.get(run.axis, np.empty(0))
    x_max = float(np.nanmax(steps)) if np.isfinite(steps).any() else 0.0
    x_max = max(x_max, SHORTEST_AXIS) if curves else x_max or None
    series = [Series(label=c.method, x=c.env_steps, y=c.return_mean, kind="reference") for c in curves]
    series = [one for one in series if x_max is None or one.x[0] <= x_max]
    series += [_training_returns(run), _evaluation_returns(run)]
    if not any(len(one.x) for one in series[-2:]):
        return ""
    chart = line_chart(series, x_max=x_max, x_label=run.axis, y_from_zero=True, title=f"return over {run.axis}")
    text = f"Evaluation return with its 95% interval over {run.axis}; dots are single training episodes."
    if curves:
        text += " Grey: published curves of this task from pixels; point at one to bring it forward."
    return html.section("Learning curve", text, f'<div class="scroll">{chart}</div>', _sources(run, curves, x_max))


def _training_returns(run: Run) -> Series:
    x, y = thin(*run.series("train/return"), points=600)
    return Series(label="", x=x, y=y, kind="train", dots=True)


def _evaluation_returns(run: Run) -> Series:
    names = (run.axis, "eval/return_mean", "eval/return_ci95_low", "eval/return_ci95_high")
    empty = np.full(len(run.metrics.get("eval/return_mean", ())), np.nan)
    x, y, low, high = (run.metrics.get(name, empty) for name in names)
    keep = np.isfinite(y)
    low, high = (np.where(np.isfinite(edge), edge, y)[keep] for edge in (low, high))
    return Series(label="this run", x=x[keep], y=y[keep], kind="run", low=low, high=high)


def _sources(run: Run, curves: list[Curve], x_max: float | None) -> str:
    if not curves:
        return ""
    rows = [
        (
            c.method,
            f"{np.interp(x_max, c.env_steps, c.return_mean):.0f}" if c.env_steps[0] <= x_max else "",
            str(c.seeds),
            c.source,
        )
        for c in curves
    ]
    head = ("method", f"return at {short(x_max or 0)}", "seeds", "source")
    return html.details("Published curves: values and sources", html.table(rows, head=head))


def _imagination(run: Run) -> str:
    legend = (
        '<p>Real above, imagined below, error last. <span class="seen">Green</span>: the model still sees the frames.'
        ' <span class="blind">Red</span>: it imagines alone, from actions only.</p>'
    )
    pictures = _pictures(run, "open_loop")
    text = "Open-loop prediction on recorded episodes: what the model believes will happen."
    return html.section("What the model imagines", text, legend + pictures if pictures else "")


def _episodes(run: Run) -> str:
    text = "The planner in the environment, as the model saw it, in an evaluation episode."
    return html.section("The agent at work", text, _pictures(run, "evaluation"))


def _promises(run: Run) -> str:
    names = (("predicted", "plan/predicted_return", "second"), ("realised", "plan/realised_return", "run"))
    series = [
        Series(label=label, x=x, y=y, kind=kind) for label, name, kind in names for x, y in [thin(*run.series(name))]
    ]
    chart = line_chart(series, height=300, x_label=run.axis, title="predicted and realised return of plans")
    text = "What the planner expected and what it got: where it expects more, it exploits errors of the model."
    return html.section("Plans against reality", text, f'<div class="scroll">{chart}</div>' if chart else "")


def _losses(run: Run) -> str:
    names = sorted(name for name in run.metrics if name.startswith("loss/"))
    charts = "".join(_loss(run, name) for name in names)
    text = f"Every term of the objective over {run.axis}; where a term falls far, its axis is logarithmic."
    return html.section("Losses", text, f'<div class="small">{charts}</div>' if charts else "")


def _uncertainty(run: Run) -> str:
    names = sorted(name for name in run.metrics if name.startswith(("model/", "reward/")))
    charts = "".join(_loss(run, name) for name in names)
    text = (
        "Entropy and aleatoric std are noise, which no data remove; disagreement and epistemic std fall with more data."
    )
    return html.section("What the model does not know", text, f'<div class="small">{charts}</div>' if charts else "")


def _loss(run: Run, name: str) -> str:
    x, y = thin(*run.series(name), points=160)
    log = bool(len(y) and y.min() > 0 and y.max() / y.min() > 10)
    chart = line_chart([Series(label="", x=x, y=y, kind="loss")], width=290, height=150, right=10, log=log, title=name)
    title = name.removeprefix("loss/") + (" (log)" if log else "")
    return f"<div><h3>{escape(title)}</h3>{chart}</div>" if chart else ""


def _time(run: Run) -> str:
    parts = [(name, run.last(f"time/{name}") or 0.0) for name in TIME_PARTS]
    bar, total = stacked_bar(parts), sum(value for _, value in parts)
    if not bar:
        return ""
    items = "".join(
        f'<li><i class="{name}"></i><span>{name}</span><b>{value / total:.1%}</b><em>{_duration(value)}</em></li>'
        for name, value in parts
    )
    # without environments nothing was collected: the counters are those of the recording
    counted = ("env_steps", "decisions", "updates") if run.last("time/env") else ("updates",)
    rates = ((short((_counter(run, name) or 0) / total), name.replace("_", " ")) for name in counted)
    text = (
        "Wall-clock time by what the process was doing. On average per second: "
        + ", ".join(f"{v} {n}" for v, n in rates)
        + "."
    )
    return html.section("Where the time went", text, bar, f'<ul class="legend">{items}</ul>')


def _measured(run: Run) -> str:
    facts = [(name.replace("_", " "), run.find(name)) for name in FACTS]
    facts += [(name.replace("_", " "), _counter(run, name)) for name in ("env_steps", "decisions", "updates")]
    left = html.table((name, _plain(value)) for name, value in facts if value is not None)
    right = html.table((name, _plain(value)) for name, value in _leaves(run.versions))
    config = html.details("Resolved configuration", f"<pre>{escape(run.config_text)}</pre>" if run.config_text else "")
    results = json.dumps(run.results, indent=2, default=str) if run.results else ""
    results = html.details("Results as written", f"<pre>{escape(results)}</pre>" if results else "")
    text = "env_steps counts control steps, action repeat included; decisions counts choices of the agent."
    return html.section("How it was measured", text, f'<div class="pair">{left}{right}</div>', config, results)


def _pictures(run: Run, prefix: str) -> str:
    """The newest still of a kind and the newest film of it, inside the page."""
    folder = run.run_dir / "videos"
    parts = [
        f'<figure><img alt="{escape(path.stem, quote=True)}" src="{_data_url(path, "image/" + path.suffix[1:])}">'
        f"<figcaption>{escape(path.name)}</figcaption></figure>"
        for path in _newest(folder, prefix, (".png", ".gif"))
    ]
    parts += [_film(path) for path in _newest(folder, prefix, (".mp4",))]
    return "".join(parts)


def _film(path: Path) -> str:
    caption = f"<figcaption>{escape(path.name)} ({path.stat().st_size / 1e6:.1f} MB, in videos/)</figcaption>"
    if path.stat().st_size >= MAX_VIDEO_BYTES:
        return f"<figure>{caption}</figure>"
    url = _data_url(path, "video/mp4")
    return f'<figure><video controls autoplay loop muted playsinline src="{url}"></video>{caption}</figure>'


def _newest(folder: Path, prefix: str, suffixes: tuple[str, ...]) -> list[Path]:
    found = [path for path in folder.glob(f"{prefix}*") if path.suffix in suffixes and path.is_file()]
    # Names end with a counter, perhaps without leading zeros, or with "final".
    found.sort(key=lambda path: (path.stem.endswith("final"), len(path.name), path.name))
    return [path for path in found if path.stat().st_size][-1:]


def _data_url(path: Path, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def _last_interval(run: Run) -> list[float | None]:
    return [run.last("eval/return_ci95_low"), run.last("eval/return_ci95_high")]


def _counter(run: Run, name: str) -> float | None:
    value = run.results.get(name)
    return float(value) if is_number(value) else run.last(name)


def _leaves(source: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in source.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " x ".join(_plain(one) for one in value)
    return f"{value:,.10g}" if isinstance(value, float) else str(value)


def _duration(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    if hours >= 1:
        return f"{int(hours)} h {int(minutes) % 60:02d} min"
    return f"{minutes:.1f} min" if minutes >= 1 else f"{seconds:.1f} s"


KINDS = {1: "run", 5: "second", 15: "reference"}


def held_out_error(run: Run) -> tuple[str, float | None]:
    """What was predicted, the image or, of a model without a decoder, the reward; and the last error with all seen."""
    image = run.last("held_out/image")
    return ("image", image) if image is not None else ("reward", run.last("held_out/reward"))


def held_out(run: Run) -> str:
    """Errors over the run, and the last ones beside those of showing the last seen frame; "" where there are none."""
    what, error = held_out_error(run)
    if error is None:
        return ""
    names = [("seen", f"held_out/{what}", "train")]
    names += [(f"{k} ahead", f"held_out/{what}_{k}", KINDS[k]) for k in KINDS]
    series = [
        Series(label=label, x=x, y=y, kind=kind) for label, name, kind in names for x, y in [thin(*run.series(name))]
    ]
    series = [one for one in series if len(one.x)]
    title = f"held-out {what} error"
    chart = line_chart(series, height=300, x_label=run.axis, y_from_zero=True, title=title)
    text = (
        f"Episodes kept apart: error of the {what} while every frame is seen, and decisions after the last one, as a "
        f"share of the {what}s' variance. 0 is perfect, 1 about as good as the mean {what}."
    )
    table = html.table(_rows(run), head=("", "image", "copied last frame", "reward"))
    return html.section("Held-out episodes", text, f'<div class="scroll">{chart}</div>', table)


def _rows(run: Run) -> list[tuple[str, str, str, str]]:
    kinds = [("every frame seen", "image", "", "reward")]
    kinds += [(f"{k} decisions ahead", f"image_{k}", f"still_{k}", f"reward_{k}") for k in KINDS]
    rows = [(label, *(_last(run, name) for name in names)) for label, *names in kinds]
    return [row for row in rows if any(row[1:])]  # type: ignore[misc]


def _last(run: Run, name: str) -> str:
    value = run.last(f"held_out/{name}") if name else None
    return f"{value:.3g}" if is_number(value) else ""
