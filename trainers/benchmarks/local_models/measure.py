"""Local models (5.7.1) from few samples, and guided policy search (Algorithm 30) on the known cart and pole."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trainers.benchmarks.local_models.guided_search import search
from trainers.benchmarks.local_models.samples import errors_by_samples
from trainers.reporting.charts import COLOURS, new_figure, save
from trainers.reporting.tables import as_text

COUNTS = [2, 3, 4, 6, 8, 12, 16, 24, 32]
STRENGTH = 5.0
SEARCHES: dict[str, dict[str, Any]] = {
    "wide network": {"hidden": 128},
    "narrow network": {"hidden": 6},
    "narrow, no readaptation": {"hidden": 6, "agreement": 0.0, "agreement_kl": 0.0},
}


def measure(*, iterations: int = 45, out: str = "runs/local_models") -> dict[str, Any]:
    """Errors of local dynamics by samples, returns of controllers and networks, and a picture of both in `out`."""
    errors = errors_by_samples(COUNTS, strength=STRENGTH)
    found = {name: search(iterations=iterations, **options) for name, options in SEARCHES.items()}
    rows = [
        {
            "search": name,
            "controllers": of["controllers"],
            "network": of["network"],
            "share": of["network"] / of["controllers"],
            "other_starts": of["other_starts"],
            "kl": of["kl"],
        }
        for name, of in found.items()
    ]
    print(as_text(rows, list(rows[0])))
    picture = save(_figure(errors, {name: of["curve"] for name, of in found.items()}), Path(out) / "local_models.svg")
    return {"samples": COUNTS, "errors": errors, "rows": rows, "picture": str(picture)}


def _figure(errors: Mapping[str, Sequence[float]], curves: Mapping[str, Sequence[Mapping[str, float]]]) -> Any:
    figure, (left, right) = new_figure(size=(8.6, 3.4), columns=2)
    for (name, values), colour in zip(errors.items(), ("reference", "fifth", "run"), strict=True):
        left.plot(COUNTS, values, color=COLOURS[colour], label=name)
    left.set(xscale="log", yscale="log", xlabel="trajectories", ylabel="one-step error, std of a change", xticks=COUNTS)
    left.set_xticklabels([str(count) for count in COUNTS])
    left.set_yticks([0.15, 0.3, 0.6, 1.2], ["0.15", "0.3", "0.6", "1.2"])
    left.minorticks_off()
    left.set_title("Local dynamics from a wrong global model", loc="left")
    left.legend(frameon=False, fontsize=8)
    for (name, curve), colour in zip(curves.items(), ("run", "third", "second"), strict=True):
        steps = np.arange(1, len(curve) + 1)
        right.plot(steps, [of["controllers"] for of in curve], "--", lw=1, color=COLOURS[colour])
        right.plot(steps, [of["network"] for of in curve], color=COLOURS[colour], label=name)
    right.set(xlabel="iterations", ylabel="return of 1.8 s", ylim=(0, None))
    right.set_title("Networks, and their controllers (dashed)", loc="left")
    right.legend(frameon=False, fontsize=8, loc="lower right")
    return figure
