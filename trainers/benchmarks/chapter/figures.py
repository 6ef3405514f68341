"""The chapter's versions as pictures: returns, the shift, predictions, and how often plans are made."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trainers.benchmarks.chapter.final_model import measure_final
from trainers.reporting.charts import COLOURS as HOUSE
from trainers.reporting.charts import new_figure, save
from trainers.run_folder.read import Run

COLOURS = {"0.5": HOUSE["fifth"], "1.0": HOUSE["second"], "1.5": HOUSE["run"]}
STEP_S = 0.01  # of a control step of the cartpole
SHOWN_S = 4.0  # of an episode


def draw(
    folder: Path, runs: Mapping[str, Sequence[Run]], swept: Mapping[str, Mapping[str, Sequence[float]]]
) -> list[Path]:
    """Write the pictures as PNG into `folder`."""
    figures = {"returns": _returns(runs), "shift": _shift(runs), "prediction": _prediction(runs)}
    if swept:
        figures["replanning"] = _replanning(swept)
    return [save(figure, folder / f"chapter_{name}.png") for name, figure in figures.items()]


def _returns(runs: Mapping[str, Sequence[Run]]) -> Any:
    """Every own episode's return over env_steps, and the final evaluation."""
    figure, axes = new_figure(size=(6.4, 3.4))
    for version, seeds in runs.items():
        final = np.mean([run.results["return_mean"] for run in seeds])
        steps, returns = _over_seeds(seeds, "train/return")
        if len(steps):
            axes.plot(steps, returns.mean(0), color=COLOURS[version], label=f"version {version}")
            axes.fill_between(steps, returns.min(0), returns.max(0), color=COLOURS[version], alpha=0.15, lw=0)
            axes.plot(steps[-1] * 1.03, final, "o", color=COLOURS[version])
        else:
            label = f"version {version}: one fit on random data alone"
            axes.axhline(final, color=COLOURS[version], ls="--", label=label)
    axes.set(xlabel="env_steps", ylabel="return of an episode", ylim=(0, 1000))
    axes.set_title("Own episodes: mean and range over seeds; dots: final evaluation", loc="left")
    axes.legend(frameon=False, loc="center right", bbox_to_anchor=(1.0, 0.62))
    return figure


def _shift(runs: Mapping[str, Sequence[Run]]) -> Any:
    """Error by round on data and on own states; and which states these are."""
    figure, (left, right) = new_figure(size=(8.6, 3.6), columns=2, width_ratios=(1.2, 1))
    for version, seeds in runs.items():
        for name, style, label in (("error/own", "-", "on its plans' states"), ("error/data", ":", "on its data")):
            steps, errors = _over_seeds(seeds, name)
            if not len(steps):  # one fit, and no episodes of its own but the evaluation's
                steps, errors = _of_final(seeds, name.replace("/", "_"))
            marker = "o" if len(steps) == 1 else ""
            face = COLOURS[version] if style == "-" else "white"
            left.plot(
                steps,
                np.exp(np.log(errors).mean(0)),
                style,
                marker=marker,
                mfc=face,
                color=COLOURS[version],
                label=f"{version}: {label}",
            )
    left.set(
        yscale="log", ylim=(0.03, 100), xlabel="env_steps in the data", ylabel="one-step error, std of a base change"
    )
    left.set_title("Error of the model", loc="left")
    left.legend(frameon=False, fontsize=7, loc="upper right")
    _visited(right, runs)
    return figure


def _visited(axes: Any, runs: Mapping[str, Sequence[Run]]) -> None:
    for version in ("0.5", "1.5"):
        saved = np.load(runs[version][0].run_dir / "episodes.npz")
        if version == "0.5":
            axes.plot(*_phase(saved["collected_state"]), ".", ms=2, color=HOUSE["faint"], label="base policy", zorder=3)
        label = f"plans of {version}"
        axes.plot(*_phase(saved["evaluated_state"][:3]), ".", ms=2, color=COLOURS[version], label=label, alpha=0.6)
    axes.set(xlabel="angle of the pole (0: up)", ylabel="its speed, rad/s", xticks=(-np.pi, 0, np.pi), ylim=(-15, 20))
    axes.set_xticklabels(("-π", "0", "π"))
    axes.set_title("States visited", loc="left")
    axes.legend(
        frameon=False, fontsize=7, markerscale=4, loc="upper center", ncols=3, columnspacing=0.8, handletextpad=0.1
    )


def _prediction(runs: Mapping[str, Sequence[Run]]) -> Any:
    """The pole's height as it was, and as each final model expects it from the first state and the actions."""
    figure, rows = new_figure(size=(8.6, 2.6), columns=len(runs), sharey=True)
    for axes, (version, seeds) in zip(rows, runs.items(), strict=True):
        saved = np.load(seeds[0].run_dir / "episodes.npz")
        seconds = STEP_S * seeds[0].spec["action_repeat"] * np.arange(len(saved["expected"]))
        shown = seconds <= SHOWN_S
        expected = np.clip(saved["expected"][shown, 1], -1.2, 1.2)
        axes.plot(seconds[shown], saved["evaluated_state"][0, shown, 1], color=COLOURS[version], label="what happened")
        axes.plot(seconds[shown], expected, "--", color="black", lw=1, label="what the model expects")
        axes.set_title(f"version {version}", loc="left")
        axes.set(xlabel="seconds", ylim=(-1.3, 2.2), yticks=(-1, 0, 1))
    rows[0].set_ylabel("height of the pole (1: up)")
    rows[0].legend(frameon=False, fontsize=7, loc="upper left")
    return figure


def _replanning(swept: Mapping[str, Mapping[str, Sequence[float]]]) -> Any:
    """Return by decisions between two plans, for the final model of each version."""
    figure, axes = new_figure(size=(5.0, 3.2))
    for version, returns in swept.items():
        every = [int(number) for number in returns]
        means = [np.mean(values) for values in returns.values()]
        axes.plot(every, means, "o-", color=COLOURS[version], label=f"model of version {version}")
        for number, values in returns.items():
            axes.plot([int(number)] * len(values), values, ".", ms=3, color=COLOURS[version], alpha=0.6)
    axes.set(xscale="log", xticks=every, xlabel="decisions between two plans", ylabel="return", ylim=(0, 1000))
    axes.set_xticklabels([str(number) for number in every])
    axes.minorticks_off()
    axes.legend(frameon=False, fontsize=8)
    return figure


def _over_seeds(runs: Sequence[Run], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Places [n] and values [seeds, n] of a column, of the rows that all seeds have."""
    series = [run.series(name) for run in runs]
    rows = min(len(values) for _, values in series)
    return series[0][0][:rows], np.stack([values[:rows] for _, values in series])


def _of_final(runs: Sequence[Run], name: str) -> tuple[np.ndarray, np.ndarray]:
    return np.array([runs[0].results["env_steps"]]), np.array([[measure_final(run)[name]] for run in runs])


def _phase(states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Angle and its speed of cartpole states [n, T, 5]."""
    flat = states.reshape(-1, states.shape[-1])
    return np.arctan2(flat[:, 2], flat[:, 1]), flat[:, 4]
