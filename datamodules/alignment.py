"""Which recorded action led to a frame: the one stored with it, the one before it, or the one after it.

The frames' changes are regressed (ridge) on what was seen before and on the actions of three neighbouring rows at
once. An action counts for what is explained worse without it, so that neither smooth actions, which resemble their
neighbours, nor a policy's, which tell of the frame they were chosen at, speak for the wrong row.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datamodules.trajectory import Trajectory

SHIFTS = {-1: "departure", 0: "arrival", 1: "late"}
EPISODES, ROWS_AN_EPISODE, FOLDS = 40, 250, 10
_CELLS, _COMPONENTS, _GATES = 16, 24, 8
# frames that stand for what is not seen, velocities most of all: without them an older action stands in for them
_LAGS = 5
_RIDGE = 1e-2
# share of the change, and standard errors over folds, that a verdict needs
_LEAST_SHARE, _LEAST_T = 0.015, 4.0

Rows = NDArray[np.float64]  # [n, features]


@dataclass(frozen=True, slots=True)
class Alignment:
    """What the check found in episodes as they were read (by arrival, if that reading is right).

    scores: by shift s, the share of the frames' change that only the action of row t + s explains, cross-validated.
    shift: the best, or None where none is clearly better than the others. t: standard errors between the best two.
    rows: that were looked at.
    """

    scores: dict[int, float]
    shift: int | None
    t: float
    rows: int

    @property
    def verdict(self) -> str:
        """arrival (as read), departure (a[t] was taken at image[t]), late (the reverse), or undecided."""
        return "undecided" if self.shift is None else SHIFTS[self.shift]

    @property
    def other(self) -> str | None:
        """The reading, departure or arrival, that the frames speak for against the one in use, if they do."""
        return {"departure": "departure", "late": "arrival"}.get(self.verdict)

    def in_words(self, *, given: str | None, remedy: str | None) -> str:
        """Whether the reading is right.

        given: the one that was asked for. remedy: what to write before another, None where there is no other.
        """
        if self.shift is None:
            return "undecided: too few episodes, or too still, to tell how actions are paired"
        if self.other is None:
            return "actions are paired as read: it fits"
        if given == self.other:
            return f"actions do not look paired as {given}, as read, but one row further off"
        if remedy is None:
            return f"actions look paired as {self.other}, which these files cannot be: import their source anew"
        read = "arrival" if self.other == "departure" else "departure"
        return f"actions look paired as {self.other}, read as {read}: {remedy}{self.other}"

    def to_json(self) -> dict[str, object]:
        """For reports: the verdict, and the scores by what they speak for."""
        scores = {SHIFTS[shift]: round(score, 4) for shift, score in self.scores.items()}
        return {"verdict": self.verdict, "scores": scores, "t": round(self.t, 1), "rows": self.rows}


def check_alignment(trajectories: Iterable[Trajectory]) -> Alignment:
    """Judge the first EPISODES episodes, the first ROWS_AN_EPISODE rows of each; deterministic."""
    sample = []
    for trajectory in trajectories:
        sample.append((_shrunk(trajectory.pixels[:ROWS_AN_EPISODE]), trajectory.action[:ROWS_AN_EPISODE]))
        if len(sample) == EPISODES:
            break
    table = _table(sample)
    if table is None:
        return Alignment(dict.fromkeys(SHIFTS, 0.0), None, 0.0, 0)
    past, actions, change = table
    losses = _losses(past, actions, change)
    order = sorted(SHIFTS, key=lambda shift: -losses[shift].mean())
    best, second = losses[order[0]], losses[order[1]]
    gap = best - np.maximum(second, 0.0)
    t = float(gap.mean() / (gap.std(ddof=1) / np.sqrt(len(gap)) + 1e-12))
    clear = best.mean() > _LEAST_SHARE and t > _LEAST_T
    scores = {shift: float(losses[shift].mean()) for shift in SHIFTS}
    return Alignment(scores, order[0] if clear else None, t, len(change))


def _shrunk(pixels: NDArray[np.uint8]) -> Rows:
    """Frames [T, C, h, w] as means over at most _CELLS x _CELLS cells, [T, C * cells]."""
    height, width = pixels.shape[2:]
    edges = [np.linspace(0, size, min(size, _CELLS) + 1).astype(int)[:-1] for size in (height, width)]
    sums = np.add.reduceat(np.add.reduceat(pixels, edges[0], axis=2, dtype=np.float32), edges[1], axis=3)
    return sums.reshape(len(pixels), -1).astype(np.float64)


def _table(sample: list[tuple[Rows, Rows]]) -> tuple[Rows, dict[int, Rows], Rows] | None:
    """Row by row what was seen before, the three actions, and the change of the frame; None for too little."""
    sample = [(frames, action) for frames, action in sample if len(frames) > _LAGS + 2]
    if sum(len(frames) - _LAGS - 2 for frames, _ in sample) < 10 * FOLDS:
        return None
    everything = np.concatenate([frames for frames, _ in sample])
    mean = everything.mean(0)
    # the components of the changes, not of the frames: what moves may be a thousandth of what is seen
    axes = _axes(np.concatenate([np.diff(frames, axis=0) for frames, _ in sample]))
    past, change = [], []
    actions: dict[int, list[Rows]] = {shift: [] for shift in SHIFTS}
    for frames, action in sample:
        seen = (frames - mean) @ axes
        moved = np.diff(seen, axis=0, prepend=seen[:1])
        at = np.arange(_LAGS + 1, len(seen) - 1)
        past.append(np.concatenate([seen[at - 1], *(moved[at - lag] for lag in range(1, _LAGS + 1))], 1))
        change.append(moved[at])
        for shift in SHIFTS:
            actions[shift].append(action[at + shift])
    return np.concatenate(past), {s: np.concatenate(parts) for s, parts in actions.items()}, np.concatenate(change)


def _axes(moves: Rows) -> Rows:
    """Orthonormal columns that span the largest principal components of rows, by subspace iteration."""
    axes = np.random.default_rng(0).normal(size=(moves.shape[1], min(_COMPONENTS, moves.shape[1])))
    for _ in range(4):
        axes, _ = np.linalg.qr(moves.T @ (moves @ axes))
    # by size, the largest first: the gates are the first ones
    _, turn = np.linalg.eigh((moves @ axes).T @ (moves @ axes))
    return axes @ turn[:, ::-1]


def _losses(past: Rows, actions: dict[int, Rows], change: Rows) -> dict[int, NDArray[np.float64]]:
    """By shift and fold, the share of the held-out change that is explained worse without that action."""
    rows = len(change)
    gates = np.concatenate([np.ones((rows, 1)), _standard(past[:, :_GATES])], 1)
    # what an action does to the frame depends on where things are
    gated = {s: (a[:, :, None] * gates[:, None]).reshape(rows, -1) for s, a in actions.items()}
    seen = _standard(past)
    folds = np.arange(rows) * FOLDS // rows
    errors = {
        left_out: _errors(np.concatenate([seen, *(gated[s] for s in SHIFTS if s != left_out)], 1), change, folds)
        for left_out in (None, *SHIFTS)
    }
    variance = ((change - change.mean(0)) ** 2).sum() / FOLDS
    return {s: (errors[s] - errors[None]) / max(variance, 1e-9) for s in SHIFTS}


def _errors(inputs: Rows, change: Rows, folds: NDArray[np.int64]) -> NDArray[np.float64]:
    """Squared error of each fold under a ridge regression on the others."""
    inputs = np.concatenate([_standard(inputs), np.ones((len(inputs), 1))], 1)
    gram = [inputs[folds == k].T @ inputs[folds == k] for k in range(FOLDS)]
    cross = [inputs[folds == k].T @ change[folds == k] for k in range(FOLDS)]
    penalty = _RIDGE * len(inputs) * np.eye(inputs.shape[1])
    out = []
    for k in range(FOLDS):
        weights = np.linalg.solve(sum(gram) - gram[k] + penalty, sum(cross) - cross[k])
        out.append(((change[folds == k] - inputs[folds == k] @ weights) ** 2).sum())
    return np.array(out)


def _standard(values: Rows) -> Rows:
    return (values - values.mean(0)) / np.maximum(values.std(0), 1e-9)
