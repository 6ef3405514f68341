"""What a controller did, counted, timed, and written as CSV."""

import csv
import io
import operator
from collections import Counter, deque
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.storage.durable import write_atomic
from trainers.deployment.action_gate import Action
from trainers.deployment.status import SOURCES, Status

KEPT = 200_000  # of the newest decisions
NAMES = tuple(field.name for field in fields(Status))
_values = operator.attrgetter(*NAMES)
QUANTILES = {"p50_ms": 50.0, "p99_ms": 99.0, "p999_ms": 99.9}


class Telemetry:
    """The statuses of all decisions, the newest of them in full.

    first: the source that others stand in for, "policy" where the policy acts alone.
    """

    def __init__(self, *, first: str = "plan") -> None:
        self.first = first
        # the episode, a status' values, the action's: tuples of numbers and texts are not looked at for garbage
        self._rows: deque[tuple[Any, ...]] = deque(maxlen=KEPT)
        self._episode = -1
        self.counts: Counter[str] = Counter()

    def add(self, status: Status, action: Action) -> None:
        """Keep one, with the action [A] in the robot's units."""
        self._episode += status.number == 0  # counted since the last reset
        self._rows.append((self._episode, *_values(status), *action.ravel().tolist()))
        self.counts["decisions"] += 1
        self.counts["late"] += status.late
        self.counts["missing"] += status.observation != "ok"
        self.counts["limited"] += status.limited
        self.counts["alarms"] += status.alarm
        self.counts[status.source] += 1

    @property
    def rows(self) -> list[Status]:
        """The newest ones."""
        return [Status(**dict(zip(NAMES, row[1 : 1 + len(NAMES)], strict=True))) for row in self._rows]

    @property
    def actions(self) -> NDArray[np.float64]:
        """[N, A] of the same decisions."""
        return np.array([row[1 + len(NAMES) :] for row in self._rows], float).reshape(len(self._rows), self._dims)

    def summary(self) -> dict[str, Any]:
        """Counts, latencies and the smallest margin in milliseconds, medians of what the model says of itself.

        Latencies are of the decisions before a stop or after it: while it lasts, nothing is decided. None where there
        is no such decision.
        """
        rows = self.rows
        ms = np.array([row.latency_ms for row in rows if row.source != "stopped"])
        return {
            **{key: self.counts[key] for key in ("decisions", "late", "missing", "limited", "alarms")},
            "fallbacks": sum(self.counts[source] for source in SOURCES[SOURCES.index(self.first) + 1 :]),
            "sources": {source: self.counts[source] for source in SOURCES},
            **{name: round(float(np.percentile(ms, q)), 3) if len(ms) else None for name, q in QUANTILES.items()},
            "margin_min_ms": round(min(row.margin_ms for row in rows), 3) if rows else None,
            "prediction_error": _median([row.prediction_error for row in rows]),
            "disagreement": _median([row.disagreement for row in rows]),
        }

    def write_csv(self, path: Path | str) -> Path:
        """One row for each decision: its episode, counted from 0, the fields of its status, and the action."""
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(["episode", *NAMES, *(f"action_{dim}" for dim in range(self._dims))])
        for row in self._rows:
            writer.writerow([f"{x:.6g}" if isinstance(x, float) else x for x in row])
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text.getvalue().encode())
        return path

    @property
    def _dims(self) -> int:
        return len(self._rows[0]) - 1 - len(NAMES) if self._rows else 0


def _median(numbers: list[float]) -> float | None:
    """Of the finite ones; None where there are none."""
    finite = np.array(numbers)[np.isfinite(numbers)]
    return round(float(np.median(finite)), 5) if len(finite) else None
