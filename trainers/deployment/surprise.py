"""An alarm for what the model was not trained on: latents are another than was predicted, for several decisions."""

from collections import deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trainers.bundle.bundle import Acting
from trainers.bundle.recorded_rows import Row
from trainers.deployment.state_estimator import StateEstimator

WINDOW = 5  # decisions whose one-step prediction errors are averaged
QUANTILE = 0.999


class Surprise:
    """The running mean of one-step prediction errors against a limit of `calibrated_limit`; None never alarms."""

    def __init__(self, limit: float | None) -> None:
        self._limit = limit
        self.reset()

    def reset(self) -> None:
        """Begin an episode."""
        self._errors: deque[float] = deque(maxlen=WINDOW)

    def alarms(self, error: float) -> bool:
        """Whether the mean of the last errors, this one included, is over the limit; NaN is no error."""
        if np.isfinite(error):
            self._errors.append(error)
        full = len(self._errors) == WINDOW
        return self._limit is not None and full and sum(self._errors) / WINDOW > self._limit


def calibrated_limit(agent: Acting, rows: Sequence[Row]) -> tuple[float, float] | None:
    """The limit that 99.9% of the running means of every other episode keep to.

    Args:
        agent: whose filter and dynamics.
        rows: whole episodes, as recorded.

    Returns:
        The limit, and the share of decisions of the remaining episodes that are over it: the rate of false alarms to
        expect. None where there are fewer than two episodes long enough.
    """
    means = [m for m in map(_running_means, _errors(agent, rows)) if len(m)]
    if len(means) < 2:
        return None
    limit = float(np.quantile(np.concatenate(means[::2]), QUANTILE))
    return limit, float((np.concatenate(means[1::2]) > limit).mean())


def _errors(agent: Acting, rows: Sequence[Row]) -> list[list[float]]:
    """One-step prediction errors of each episode that begins within the rows."""
    estimator, episodes = StateEstimator(agent, delay=0), list[list[float]]()
    for row in rows:
        if bool(row.is_first):
            estimator.reset()
            episodes.append([])
        elif episodes:
            estimator.commanded(row.action[0].numpy())
        if episodes:
            estimator.see({name: part[0].numpy() for name, part in row.observation.items()})
            episodes[-1].append(estimator.prediction_error)
    return episodes


def _running_means(errors: Sequence[float]) -> NDArray[np.float64]:
    known = np.array(errors)[np.isfinite(errors)]
    return np.convolve(known, np.full(WINDOW, 1 / WINDOW), "valid") if len(known) >= WINDOW else np.empty(0)
