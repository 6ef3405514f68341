"""Which recorded action led to a frame: the one stored with it, the one before it, or the one after it.

The frames' changes are regressed (ridge) on what was seen before and on the actions of three neighbouring rows at
once. An action counts for what is explained worse without it, so that neither smooth actions, which resemble their
neighbours, nor a policy's, which tell of the frame they were chosen at, speak for the wrong row.

Two views are looked at: the principal components of the frames' changes, and where the centre of what stands out from
the background lies. In the second one an action may do what depends on how things move, as a steering wheel does. What
neither view shows, as the effect on an object among many or on a moving camera, is left undecided.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.trajectory import Trajectory

SHIFTS = {-1: "departure", 0: "arrival", 1: "late"}
EPISODES, ROWS_AN_EPISODE, FOLDS = 40, 250, 10
_CELLS, _COMPONENTS, _GATES = 16, 24, 8
_CENTRE_CELLS, _STANDS_OUT = 32, 16  # cells on a side, and shades from the background
# frames that stand for what is not seen, velocities most of all: without them an older action stands in for them
_LAGS = 5
_LEAST_ROWS = 10 * FOLDS
_RIDGE, _CENTRE_RIDGE = 1e-2, 3e-3
# share of the change, and standard errors over folds, that a verdict needs; of the centre's, of the unexplained change
_LEAST_SHARE, _LEAST_CENTRE_SHARE, _LEAST_T = 0.015, 0.03, 4.0

Rows = NDArray[np.floating[Any]]  # [n, features]


@dataclass(frozen=True, slots=True)
class Alignment:
    """What the check found in episodes as they were read (by arrival, if that reading is right).

    scores: by shift s, the share of the frames' change that only the action of row t + s explains, cross-validated.
    shift: the best, or None where none is clearly better than the others. t: standard errors between the best two.
    rows: that were looked at. reason: why there is no verdict. rewards_arrive: most episodes have a reward right after
    their first action; where their first frames have none, rewards come with the frame that the action led to.
    """

    scores: dict[int, float]
    shift: int | None
    t: float
    rows: int
    reason: str = "what actions do to the frames is not seen by this check"
    rewards_arrive: bool = False

    @property
    def verdict(self) -> str:
        """arrival (as read), departure (a[t] was taken at image[t]), late (the reverse), or undecided."""
        return "undecided" if self.shift is None else SHIFTS[self.shift]

    @property
    def other(self) -> str | None:
        """The reading, departure or arrival, that the frames speak for against the one in use, if they do."""
        return {"departure": "departure", "late": "arrival"}.get(self.verdict)

    def in_words(self, *, given: str | None, remedy: str | None, rewards_depart: bool = False) -> str:
        """Whether the reading is right, and what to write where it is not.

        Args:
            given: the reading of actions that was asked for, None for the format's own.
            remedy: what to write before the other reading ("add ?alignment="), None where there is no other.
            rewards_depart: rewards were found that are stored with the action that earned them.
        """
        if self.shift is None:
            if given is not None or remedy is None:
                return f"undecided, {self.reason}{'' if given is None else f'; read by {given}, as was said'}"
            return f"undecided, {self.reason}: find out how it was recorded: {remedy}arrival or {remedy}departure"
        if self.other is None:
            return "actions are paired as read: it fits"
        if given == self.other:
            return f"actions do not look paired as {given}, as read, but one row further off"
        if remedy is None:
            return f"actions look paired as {self.other}, which these files cannot be: import their source anew"
        read = "arrival" if self.other == "departure" else "departure"
        whole = f"{remedy}{self.other} where rewards and flags are stored so, too"
        alone = (
            remedy.replace("alignment", "actions") + f"{self.other} where they come with their frame, as DreamerV3's do"
        )
        if self.other == "departure" and self.rewards_arrive and not rewards_depart:
            return f"actions look paired as departure, read as {read}, rewards as arrival: {alone}; {whole}"
        return f"actions look paired as {self.other}, read as {read}: {whole}; {alone}"

    def to_json(self) -> dict[str, object]:
        """For reports: the verdict, and the scores by what they speak for."""
        scores = {SHIFTS[shift]: round(score, 4) for shift, score in self.scores.items()}
        return {"verdict": self.verdict, "scores": scores, "t": round(self.t, 1), "rows": self.rows}


def check_alignment(trajectories: Iterable[Trajectory]) -> Alignment:
    """Judge how actions are paired with frames; deterministic.

    Args:
        trajectories: episodes as they were read; the first EPISODES are looked at, the first ROWS_AN_EPISODE rows of
            each.

    Returns:
        The verdict of the view that shows one; undecided where none does, or they contradict each other.
    """
    sample: list[tuple[NDArray[Any], list[NDArray[np.uint8]], Rows]] = []
    rewarded: list[bool] = []
    for trajectory in trajectories:
        rewarded.append(bool(trajectory.reward[1:2].any()))
        images, vectors = _first_rows(trajectory)
        action = trajectory.action[:ROWS_AN_EPISODE]
        if min(len(action), *(len(values) for values in trajectory.observation.values())) > _LAGS + 2:
            features = [_shrunk(image, _CELLS).reshape(len(image), -1) for image in images] or vectors
            # of a stack of pictures the newest
            newest = [np.rint(_shrunk(image[:, -3:], _CENTRE_CELLS)).astype(np.uint8) for image in images[:1]]
            sample.append((np.concatenate(features, 1), newest, action.astype(np.float64)))
        if len(sample) == EPISODES:
            break
    rows = sum(len(action) - _LAGS - 2 for _, _, action in sample)
    nothing = dict.fromkeys(SHIFTS, 0.0)
    if rows < _LEAST_ROWS:
        return Alignment(nothing, None, 0.0, rows, f"{rows} rows are too few to tell, {_LEAST_ROWS} are needed")
    if not any(np.ptp(frames, axis=0).any() for frames, _, _ in sample):
        return Alignment(nothing, None, 0.0, rows, "no frame differs from the others of its episode")
    if not any(np.ptp(action[1:], axis=0).any() for _, _, action in sample):
        return Alignment(nothing, None, 0.0, rows, "every action is the same")
    arrive = sum(rewarded) > len(rewarded) / 2
    by_components = _judge_components([(frames, action) for frames, _, action in sample])
    pictures = [(newest[0], action) for _, newest, action in sample if newest]
    by_centre = _judge_centre(pictures) if pictures else Alignment(nothing, None, 0.0, rows)
    if by_components.shift is None or by_centre.shift == by_components.shift:
        better = by_centre if by_centre.shift is not None else by_components
        return replace(better, rewards_arrive=arrive)
    if by_centre.shift is None:
        return replace(by_components, rewards_arrive=arrive)
    return Alignment(by_components.scores, None, 0.0, rows, "two views of the frames contradict each other")


def _verdict(losses: dict[int, NDArray[np.float64]], rows: int, *, least_share: float, of: float = 1.0) -> Alignment:
    """From the losses [FOLDS] without each action; `of`: what the share of the best one is compared with."""
    order = sorted(SHIFTS, key=lambda shift: -losses[shift].mean())
    best, second = losses[order[0]], losses[order[1]]
    gap = best - np.maximum(second, 0.0)
    t = float(gap.mean() / (gap.std(ddof=1) / np.sqrt(len(gap)) + 1e-12))
    clear = best.mean() > least_share * of and t > _LEAST_T
    scores = {shift: float(losses[shift].mean()) for shift in SHIFTS}
    return Alignment(scores, order[0] if clear else None, t, rows)


def _judge_components(sample: list[tuple[Rows, Rows]]) -> Alignment:
    """By the principal components of the frames' changes; the effect of actions may depend on what is seen."""
    mean = np.concatenate([frames for frames, _ in sample]).mean(0)
    # the components of the changes, not of the frames: what moves may be a thousandth of what is seen
    axes = _axes(np.concatenate([np.diff(frames, axis=0) for frames, _ in sample]))
    past, actions, change = _table([((frames - mean) @ axes, action) for frames, action in sample])
    losses, _ = _losses(past, past[:, :_GATES], actions, change, ridge=_RIDGE)
    return _verdict(losses, len(change), least_share=_LEAST_SHARE)


def _judge_centre(sample: list[tuple[NDArray[np.uint8], Rows]]) -> Alignment:
    """By the centres of what stands out; the effect of actions may depend on where they are and how they move."""
    frames = np.concatenate([newest for newest, _ in sample])
    background = np.median(frames[:: max(1, len(frames) // 400)], axis=0).astype(np.float32)
    shapes = [(_moments(newest, background), action) for newest, action in sample]
    past, actions, change = _table(shapes)
    count = change.shape[1]
    centres = np.arange(count // 6 * 2)
    gates = past[:, np.concatenate([centres, count + centres])]
    losses, unexplained = _losses(
        np.clip(_standard(past), -4, 4),
        np.clip(_standard(gates), -3, 3),
        actions,
        np.clip(_standard(change[:, centres]), -4, 4),
        ridge=_CENTRE_RIDGE,
    )
    best = max(float(loss.mean()) for loss in losses.values())
    return _verdict(losses, len(change), least_share=_LEAST_CENTRE_SHARE, of=unexplained + best)


def _first_rows(trajectory: Trajectory) -> tuple[list[NDArray[np.uint8]], list[Rows]]:
    """The images and the vectors of an episode's first rows."""
    rows = [values[:ROWS_AN_EPISODE] for values in trajectory.observation.values()]
    images = [values for values in rows if values.dtype == np.uint8]
    return images, [values.astype(np.float64) for values in rows if values.dtype != np.uint8]


def _shrunk(pixels: NDArray[np.uint8], cells: int) -> NDArray[np.float32]:
    """Frames [T, C, h, w] as means over at most cells x cells cells, [T, C, cells, cells]."""
    edges = [np.linspace(0, size, min(size, cells) + 1).astype(int) for size in pixels.shape[2:]]
    sums = np.add.reduceat(pixels, edges[0][:-1], axis=2, dtype=np.float32)
    sums = np.add.reduceat(sums, edges[1][:-1], axis=3)
    areas = np.diff(edges[0])[:, None] * np.diff(edges[1])
    return (sums / areas.astype(np.float32)).astype(np.float32, copy=False)


def _moments(frames: NDArray[np.uint8], background: NDArray[np.float32]) -> Rows:
    """Of what stands out [T, C, h, w], in each channel the centre, the amount and the spread: [T, 6 C]."""
    weight = np.maximum(np.abs(frames - background) - _STANDS_OUT, 0.0)
    y, x = (np.linspace(-1.0, 1.0, size, dtype=np.float32) for size in frames.shape[2:])
    by_x, by_y = weight.sum(2), weight.sum(3)
    amount = weight.sum((2, 3)) + 1e-3 * len(x) * len(y)
    at_x, at_y = by_x @ x / amount, by_y @ y / amount
    spread = [by_x @ x**2 / amount - at_x**2, by_y @ y**2 / amount - at_y**2]
    spread.append(np.einsum("tchw,h,w->tc", weight, y, x) / amount - at_x * at_y)
    return np.concatenate([at_x, at_y, np.log(amount), *spread], 1).astype(np.float64)


def _table(sample: list[tuple[Rows, Rows]]) -> tuple[Rows, dict[int, Rows], Rows]:
    """Row by row what was seen before, the three actions, and the change of what is seen."""
    past, change = [], []
    actions: dict[int, list[Rows]] = {shift: [] for shift in SHIFTS}
    for seen, action in sample:
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


def _losses(
    past: Rows, gates: Rows, actions: dict[int, Rows], change: Rows, *, ridge: float
) -> tuple[dict[int, NDArray[np.float64]], float]:
    """By shift and fold, the share of the held-out change that is explained worse without that action.

    gates: what the effect of an action may depend on. Also returns the share that stays unexplained with all of them.
    """
    rows = len(change)
    gates = np.concatenate([np.ones((rows, 1)), _standard(gates)], 1)
    gated = {s: (a[:, :, None] * gates[:, None]).reshape(rows, -1) for s, a in actions.items()}
    seen = _standard(past)
    folds = np.arange(rows) * FOLDS // rows
    errors = {
        left_out: _errors(np.concatenate([seen, *(gated[s] for s in SHIFTS if s != left_out)], 1), change, folds, ridge)
        for left_out in (None, *SHIFTS)
    }
    variance = max(((change - change.mean(0)) ** 2).sum() / FOLDS, 1e-9)
    return {s: (errors[s] - errors[None]) / variance for s in SHIFTS}, float(errors[None].mean() / variance)


def _errors(inputs: Rows, change: Rows, folds: NDArray[np.int64], ridge: float) -> NDArray[np.float64]:
    """Squared error of each fold under a ridge regression on the others."""
    inputs = np.concatenate([_standard(inputs), np.ones((len(inputs), 1))], 1)
    gram = [inputs[folds == k].T @ inputs[folds == k] for k in range(FOLDS)]
    cross = [inputs[folds == k].T @ change[folds == k] for k in range(FOLDS)]
    penalty = ridge * len(inputs) * np.eye(inputs.shape[1])
    out = []
    for k in range(FOLDS):
        weights = np.linalg.solve(sum(gram) - gram[k] + penalty, sum(cross) - cross[k])
        out.append(((change[folds == k] - inputs[folds == k] @ weights) ** 2).sum())
    return np.array(out)


def _standard(values: Rows) -> Rows:
    return (values - values.mean(0)) / np.maximum(values.std(0), 1e-9)
