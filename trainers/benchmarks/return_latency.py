"""Return against the time of a decision: an agent's planner with smaller and smaller budgets, its policy, a student."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainers.command.arguments import BadArguments
from trainers.evaluate import main as evaluate
from trainers.reporting.charts import COLOURS, new_figure, save
from trainers.reporting.tables import as_text
from trainers.run_folder.find import read_spec

COLUMNS = ("acts", "return_mean", "p50_ms", "p99_ms")
BUDGETS = ((3, 64), (3, 32), (3, 16), (1, 64), (1, 16))  # iterations and candidates of the planner


def measure(
    *, run: str = "", student: str = "", episodes: int = 5, out: str = "runs/return_latency/return_against_latency.svg"
) -> dict[str, Any]:
    """A row for each: the mean return of the same episodes, and the milliseconds of a decision, one environment.

    Args:
        run: folder of an agent that plans by CEM, with a policy.
        student: folder of one that `trainers.distill` taught; none where empty.
        episodes: of each.
        out: the picture's path; the evaluations are written beside it.
    """
    if not run:
        raise BadArguments("run: expected a run folder, got nothing")
    planned = {
        f"{iterations} x {candidates}": [f"planner.iterations={iterations}", f"planner.candidates={candidates}"]
        for iterations, candidates in BUDGETS
    }
    acting = {name: (run, options) for name, options in planned.items()} | {"policy": (run, ["agent.act_with=actor"])}
    acting |= {"student": (student, [])} if student else {}
    folder = Path(out).parent
    rows = [_row(name, path, options, episodes, folder) for name, (path, options) in acting.items()]
    picture = _draw(Path(out), rows, read_spec(Path(run).expanduser(), key="run").task)
    print(as_text(rows, COLUMNS))
    return {"rows": rows, "episodes": episodes, "picture": str(picture)}


def _row(name: str, path: str, options: Sequence[str], episodes: int, folder: Path) -> dict[str, Any]:
    out = folder / name.replace(" ", "")
    found = evaluate([path, f"episodes={episodes}", "envs=1", f"out={out}", *options])
    times = found["decision_ms"]
    return {
        "acts": name,
        "return_mean": found["return_mean"],
        "returns": found["returns"],
        "p50_ms": times["p50"],
        "p99_ms": times["p99"],
    }


def _draw(path: Path, rows: Sequence[Mapping[str, Any]], task: str) -> Path:
    figure, axes = new_figure(size=(7.2, 3.6))
    for row in rows:
        colour = COLOURS[{"policy": "second", "student": "third"}.get(row["acts"], "run")]
        middle, high = row["return_mean"], row["p99_ms"]
        axes.plot([row["p50_ms"], high], [middle, middle], "-", color=colour, linewidth=1.5, alpha=0.4)
        axes.plot(row["p50_ms"], middle, "o", color=colour, markersize=6)
        axes.annotate(
            row["acts"],
            (row["p50_ms"], middle),
            xytext=(-7, -3),
            textcoords="offset points",
            ha="right",
            color=colour,
            fontsize=8.5,
        )
    axes.set(xscale="log", xlabel="ms of a decision: p50, and to p99", ylabel="return")
    axes.set_title(
        f"{task}: CEM of iterations x candidates, its policy, a student", fontsize=9.5, color=COLOURS["soft"]
    )
    axes.margins(x=0.08, y=0.15)
    ticks = [tick for tick in (0.5, 1, 2, 5, 10, 20, 50, 100) if axes.get_xlim()[0] <= tick <= axes.get_xlim()[1]]
    axes.set_xticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    return save(figure, path)
