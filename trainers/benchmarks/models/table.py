"""The rows of every dynamics as text, CSV and a drawing."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datamodules.storage.durable import write_atomic
from trainers.acting.held_out import STEPS
from trainers.reporting.charts import COLOURS, new_figure, save
from trainers.reporting.tables import as_text, write_csv

COLUMNS = ("dynamics", "updates", "reward", *(f"reward_{step}" for step in STEPS), "return", "update_ms")
DOTS = ("run", "second", "third")


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
