"""Every dynamics, learned from one data set: open-loop reward error, and the return of planning with it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datamodules.storage.durable import write_atomic
from trainers.acting.held_out import STEPS
from trainers.benchmarks.models.record_data import collect
from trainers.benchmarks.shared import benchmark_run
from trainers.benchmarks.shared.options import names
from trainers.command.configuration import groups, load_config
from trainers.reporting.charts import COLOURS, new_figure, save
from trainers.reporting.tables import as_text, write_csv

COLUMNS = ("dynamics", "updates", "reward", *(f"reward_{step}" for step in STEPS), "return", "update_ms")
DOTS = ("run", "second", "third")
# plans on rewards alone, so that what differs is the model; a sixth of the episodes are held out
LEARNER = (
    *("data=offline", "task=cartpole_swingup", "policy=none", "planner=cem", "planner.horizon=12"),
    *("planner.candidates=128", "planner.elites=16", "planner.iterations=4"),
    *("data.batch=8", "data.length=20", "data.validation_share=0.1667"),
)
NEVER = ("evaluation.every=1000000000", "data.log_every=50", "data.save_every=100")
# given anew each time that a run goes on; what it came to is in its results
RENEWED = ("data.updates", "data.validate_every", "evaluation.final_episodes")
ERRORS = ("reward", *(f"reward_{step}" for step in STEPS), *(f"image_{step}" for step in STEPS))


def measure(
    overrides: list[str],
    *,
    models: str = "deterministic,gaussian,rssm_gaussian,rssm_categorical,smoothing,ensemble",
    uri: str = "",
    out: str = "runs/models",
    updates: int = 1000,
    episodes: int = 5,
    collected: int = 24,
) -> dict[str, Any]:
    """A row for each of `models`, names of dynamics, from runs in `out` that go on where they were stopped.

    uri: recorded episodes of the task, by default `collected` ones that are played once. episodes: of the evaluation.
    Files: models.txt, models.csv and models.svg in `out`.
    """
    chosen = names("models", models, groups()["dynamics"])
    root = Path(out)
    root.mkdir(parents=True, exist_ok=True)
    arguments = [*LEARNER, *overrides]
    if not uri:
        folder = root / "data"
        collect(load_config(arguments), folder, episodes=collected)
        uri = f"segments:{folder}"
    arguments.append(f"data.uri={uri}")
    for name in chosen:  # all of them, before the first takes hours
        require_same(name, root / name, arguments, updates=updates, episodes=episodes)
    rows = []
    for name in chosen:
        rows.append(learn(name, root / name, arguments, updates=updates, episodes=episodes))
        write(rows, root)  # a table of those that are done, should the next take hours
    return {"uri": uri, "updates": updates, "episodes": episodes, "rows": rows}


def require_same(dynamics: str, folder: Path, arguments: list[str], *, updates: int, episodes: int) -> None:
    """Raise BadConfig where `folder` holds a run that `learn` would not have made, or that is past `updates`."""
    benchmark_run.require_same_words(folder, _settings(dynamics, arguments), free=RENEWED)
    results = benchmark_run.finished(folder)
    if results is not None and results["updates"] >= updates:
        benchmark_run.require_same("updates", results["updates"], updates, folder)
        benchmark_run.require_same("episodes", len(results["returns"]), episodes, folder)


def learn(dynamics: str, folder: Path, arguments: list[str], *, updates: int, episodes: int) -> dict[str, Any]:
    """Learn `updates` in `folder`, go on there or read what is finished; its row of the table."""
    results = benchmark_run.finished(folder)
    if results is None or results["updates"] < updates:
        own = [f"data.updates={updates}", f"data.validate_every={updates}", f"evaluation.final_episodes={episodes}"]
        results = benchmark_run.play(folder, _settings(dynamics, arguments), renewed=own)
    return _row(dynamics, results)


def _settings(dynamics: str, arguments: list[str]) -> list[str]:
    return [f"dynamics={dynamics}", *arguments, *NEVER]


def _row(dynamics: str, results: dict[str, Any]) -> dict[str, Any]:
    errors = {name: results["held_out"].get(name) for name in ERRORS}
    spent = results["time"].get("update", 0.0)
    return {
        "dynamics": dynamics,
        "updates": results["updates"],
        **errors,
        "return": results["return_mean"],
        "returns": results["returns"],
        "update_ms": 1e3 * spent / max(results["updates"], 1),
    }


def write(rows: Sequence[dict[str, Any]], folder: Path) -> None:
    """models.txt, models.csv and models.svg; errors are shares of the rewards' variance."""
    write_atomic(folder / "models.txt", (as_text(rows, COLUMNS) + "\n").encode())
    write_csv(folder / "models.csv", rows, [*rows[0]] if rows else COLUMNS)
    save(drawing(rows), folder / "models.svg")


def drawing(rows: Sequence[dict[str, Any]]) -> Any:
    """Left the reward error by steps ahead, a dot for each; right the mean return with its episodes."""
    size = (9.0, 1.2 + 0.32 * len(rows))
    figure, (errors, returns) = new_figure(size=size, columns=2, sharey=True, width_ratios=(1.1, 1))
    for step, colour in zip(STEPS, DOTS, strict=True):
        shown = [(row[f"reward_{step}"], row["dynamics"]) for row in rows if row[f"reward_{step}"] is not None]
        errors.scatter(*zip(*shown, strict=True) if shown else ((), ()), color=COLOURS[colour], label=f"{step} ahead")
    for row in rows:
        returns.scatter(row["returns"], [row["dynamics"]] * len(row["returns"]), color=COLOURS["reference"], s=16)
        if row["return"] is not None:
            returns.scatter([row["return"]], [row["dynamics"]], color=COLOURS["run"])
    errors.set(title="open-loop reward error, share of variance (1: the mean)", xlim=(0, None))
    returns.set(title="return of planning: episodes and mean", xlim=(0, None))
    errors.invert_yaxis()
    errors.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=len(STEPS))
    return figure
