"""Dyna on mazes (Algorithm 28): what planning in a learned table saves of real steps, and of backups."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from trainers.reporting.charts import COLOURS, new_figure, save
from trainers.reporting.tables import as_text
from worldmodel.tabular.dyna_q import DynaQ
from worldmodel.tabular.dyna_q_plus import DynaQPlus
from worldmodel.tabular.episodes import cumulative_reward, episode_lengths, steps_to_shortest
from worldmodel.tabular.maze import BOTH_GAPS, DYNA_MAZE, LEFT_GAP, Maze, path_length, shortest_path
from worldmodel.tabular.prioritised_sweeping import PrioritisedSweeping

COLUMNS = ("method", "real_steps", "real_steps_most", "backups", "path")
MOST = 50_000  # real steps of a run

Make = Callable[..., DynaQ]
# planning steps a real step; values begin above every return, so that every method must end at the shortest way
METHODS: dict[str, tuple[Make, int]] = {
    "Q-learning": (DynaQ, 0),
    "Dyna-Q, K=5": (DynaQ, 5),
    "Dyna-Q, K=50": (DynaQ, 50),
    "prioritised sweeping, K<=50": (PrioritisedSweeping, 50),
}
LINES = {"Q-learning": ("reference", 0), "Dyna-Q, K=5": ("second", 5), "Dyna-Q, K=50": ("run", 50)}


def measure(
    *, seeds: int = 10, step_size: float = 0.5, episodes: int = 50, steps: int = 6000, out: str = "runs/dyna/dyna.svg"
) -> dict[str, Any]:
    """A row for each method: real steps until the greedy policy takes the shortest way.

    Args:
        seeds: runs of every method.
        step_size: α.
        episodes: whose lengths are drawn.
        steps: real steps in the maze in which a shortcut opens after half of them.
        out: the picture's path.
    """
    maze = Maze(DYNA_MAZE)
    rows = [_row(name, maze, seeds=seeds, step_size=step_size) for name in METHODS]
    lengths = {name: _lengths(maze, planning, seeds, step_size, episodes) for name, (_, planning) in LINES.items()}
    shortcut = {kind.__name__: _shortcut(kind, seeds, steps) for kind in (DynaQ, DynaQPlus)}
    picture = _draw(Path(out), rows, lengths, {name: rewards for name, (rewards, _) in shortcut.items()})
    print(as_text(rows, COLUMNS))
    return {
        "rows": rows,
        "shortest_path": shortest_path(maze),
        "real_steps_ratio": rows[0]["real_steps"] / rows[2]["real_steps"],
        "backups_ratio": rows[2]["backups"] / rows[3]["backups"],
        "found_shortcut": {name: found for name, (_, found) in shortcut.items()},
        "seeds": seeds,
        "picture": str(picture),
    }


def _row(name: str, maze: Maze, *, seeds: int, step_size: float) -> dict[str, Any]:
    make, planning = METHODS[name]
    learners = [
        make(states=maze.states, actions=4, planning=planning, step_size=step_size, initial=1.0, seed=seed)
        for seed in range(seeds)
    ]
    steps = [steps_to_shortest(maze, learner, most=MOST) for learner in learners]
    return {
        "method": name,
        "real_steps": float(np.mean(steps)),
        "real_steps_most": max(steps),
        "backups": float(np.mean([learner.backups for learner in learners])),
        "path": float(np.mean([path_length(maze, learner.values) for learner in learners])),
    }


def _lengths(maze: Maze, planning: int, seeds: int, step_size: float, episodes: int) -> list[float]:
    """Mean length of each of the first episodes, values from 0 as in the book's figure 8.2."""
    learners = [
        DynaQ(states=maze.states, actions=4, planning=planning, step_size=step_size, seed=seed) for seed in range(seeds)
    ]
    lengths = [episode_lengths(maze, learner, episodes=episodes) for learner in learners]
    return [float(length) for length in np.mean(lengths, 0)]


def _shortcut(kind: Make, seeds: int, steps: int) -> tuple[list[float], int]:
    """Mean summed reward after every real step, and in how many seeds the shortcut was found."""
    before, after = Maze(LEFT_GAP), Maze(BOTH_GAPS)
    learners = [kind(states=before.states, actions=4, planning=20, step_size=0.5, seed=seed) for seed in range(seeds)]
    changes = {steps // 2: after}
    rewards = [cumulative_reward(before, learner, steps=steps, changes=changes) for learner in learners]
    found = sum(path_length(after, learner.values) == shortest_path(after) for learner in learners)
    return [float(reward) for reward in np.mean(rewards, 0)], found


def _draw(
    path: Path, rows: list[dict[str, Any]], lengths: dict[str, list[float]], shortcut: dict[str, list[float]]
) -> Path:
    figure, (steps, total, backups) = new_figure(size=(12.0, 3.6), columns=3)
    for name, series in lengths.items():
        steps.plot(range(2, len(series) + 1), series[1:], color=COLOURS[LINES[name][0]], label=name)
    steps.set(xlabel="episode", ylabel="real steps", yscale="log", title="9 x 6 maze, values from 0")
    for name, colour in (("DynaQ", "second"), ("DynaQPlus", "run")):
        count = len(shortcut[name])
        total.plot(
            range(1, count + 1, 20),
            shortcut[name][::20],
            color=COLOURS[colour],
            label={"DynaQ": "Dyna-Q", "DynaQPlus": "Dyna-Q+"}[name],
        )
    total.axvline(count // 2, color=COLOURS["faint"], linestyle=":")
    total.set(xlabel="real step", ylabel="summed reward", title=f"a shortcut opens at step {count // 2}")
    for row, colour in zip(rows, ("reference", "second", "run", "third"), strict=True):
        backups.plot(row["real_steps"], max(row["backups"], 1), "o", color=COLOURS[colour], label=row["method"])
    backups.set(xlabel="real steps", ylabel="backups of the model", xscale="log", yscale="log")
    backups.set(title="until the shortest way, values from 1")
    backups.set_xticks([200, 500, 1000, 2000, 4000], labels=["200", "500", "1,000", "2,000", "4,000"])
    backups.minorticks_off()
    steps.set_yticks([15, 30, 60, 125, 250, 500], labels=["15", "30", "60", "125", "250", "500"])
    steps.minorticks_off()
    for axes in (steps, total, backups):
        axes.legend(frameon=False, fontsize=8)
    return save(figure, path)
