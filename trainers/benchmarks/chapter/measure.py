"""Versions 0.5, 1.0 and 1.5 of the chapter (Algorithms 23 to 25): returns over seeds, and the distribution shift."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trainers.benchmarks.chapter.figures import draw
from trainers.benchmarks.chapter.final_model import measure_final
from trainers.benchmarks.chapter.runs import replanning, version_runs
from trainers.benchmarks.shared.options import numbers
from trainers.reporting.tables import as_text
from trainers.run_folder.read import Run

COLUMNS = ("version", "return_mean", "returns", "error_data", "error_own", "predicted", "realised", "seconds")
VERSIONS = {"alg23": "0.5", "alg24": "1.0", "alg25": "1.5"}


def measure(
    overrides: list[str], *, seeds: int = 3, out: str = "runs/chapter", replans: str = "1,2,5,20", episodes: int = 3
) -> dict[str, Any]:
    """A row for each version, from runs in `out` that go on where they were stopped, and pictures of them there.

    replans: how many decisions of a plan are executed, for each of which every model is evaluated again in `episodes`
    episodes; none where it is empty.
    """
    every = numbers("replans", replans) if replans else []
    root = Path(out)
    runs = version_runs(list(VERSIONS), root, seeds=seeds, overrides=overrides)
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


def row(version: str, name: str, runs: Sequence[Run]) -> dict[str, Any]:
    """One version over its seeds.

    error_data, error_own: the final model's one-step error on what it was fitted to and where its plans led in
    evaluation, root mean square in units of a change under the base policy. error_first: the latter of the first fit.
    predicted, realised: of plans, over their horizon.
    """
    results, final = [run.results for run in runs], [measure_final(run) for run in runs]
    returns = [float(result["return_mean"]) for result in results]
    rounds = [run.series("error/own")[1] for run in runs]
    first = [errors[0] if len(errors) else own["error_own"] for errors, own in zip(rounds, final, strict=True)]
    return {
        "version": version,
        "experiment": f"chapter/{name}",
        "return_mean": float(np.mean(returns)),
        "return_std": float(np.std(returns, ddof=1)) if len(returns) > 1 else None,
        "returns": returns,
        "error_first": float(np.mean(first)),
        **{key: float(np.mean([of[key] for of in final])) for key in final[0]},
        "env_steps": results[0]["env_steps"],
        "updates": results[0]["updates"],
        "seconds": float(np.mean([result["seconds"] for result in results])),
    }


def table(rows: Sequence[Mapping[str, Any]], swept: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """What a person reads."""
    again = [{"model of version": v, **{n: np.mean(r) for n, r in returns.items()}} for v, returns in swept.items()]
    title = "\n\nreturn by decisions between two plans:\n"
    return as_text(rows, COLUMNS) + (title + as_text(again, list(again[0])) if again else "")
