"""Every dynamics, learned from one data set: open-loop reward error, and the return of planning with it."""

from pathlib import Path
from typing import Any

from trainers.benchmarks.models.learn import learn, require_same
from trainers.benchmarks.models.record_data import collect
from trainers.benchmarks.models.table import write
from trainers.benchmarks.shared.options import names
from trainers.command.configuration import groups, load_config

# plans on rewards alone, so that what differs is the model; a sixth of the episodes are held out
LEARNER = (
    *(
        "data=offline",
        "task=cartpole_swingup",
        "policy=none",
        "planner=cem",
        "planner.horizon=12",
        "planner.candidates=128",
    ),
    *("planner.elites=16", "planner.iterations=4", "data.batch=8", "data.length=20", "data.validation_share=0.1667"),
)


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
