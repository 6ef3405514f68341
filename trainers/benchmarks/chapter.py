"""Versions 0.5, 1.0 and 1.5 of the chapter (Algorithms 23 to 25): returns over seeds, and the distribution shift."""

from pathlib import Path
from typing import Any

from trainers.configuration import BadConfig
from trainers.ladder.figures import draw
from trainers.ladder.runs import ladders, replanning
from trainers.ladder.table import row, table

OPTIONS = {"seeds": 3, "out": "runs/chapter", "replans": "1,2,5,20", "episodes": 3}
VERSIONS = {"alg23": "0.5", "alg24": "1.0", "alg25": "1.5"}


def measure(overrides: list[str], *, seeds: int, out: str, replans: str, episodes: int) -> dict[str, Any]:
    """A row for each version, from runs in `out` that go on where they were stopped, and pictures of them there.

    replans: how many decisions of a plan are executed, for each of which every model is evaluated again in `episodes`
    episodes; none where it is empty.
    """
    try:
        every = [int(number) for number in replans.split(",") if number]
    except ValueError as error:
        raise BadConfig(f"replans: expected whole numbers such as 1,5,20, got {replans!r}") from error
    root = Path(out)
    runs = ladders(list(VERSIONS), root, seeds=seeds, overrides=overrides)
    rows = [row(VERSIONS[name], name, runs[name]) for name in VERSIONS]
    swept = {VERSIONS[name]: replanning(runs[name], every, episodes=episodes) for name in VERSIONS} if every else {}
    pictures = draw(root, {VERSIONS[name]: runs[name] for name in VERSIONS}, swept)
    print(table(rows, swept))
    returns = [entry["returns"] for entry in rows]
    return {
        "rows": rows,
        "replanning": swept,
        "seeds_in_order": sum(half < one < one_and_a_half for half, one, one_and_a_half in zip(*returns, strict=True)),
        "seeds": seeds,
        "pictures": [str(path) for path in pictures],
    }
