"""What a planner promised against what came: how much it exploits errors of its model."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from datamodules.rollout import Episode


def promise(
    predicted: Sequence[NDArray[np.float32]], episodes: Sequence[Episode], *, discount: float
) -> dict[str, float]:
    """Means of the planner's predicted returns and of the realised ones, both discounted per decision.

    predicted: one array per call of the policy, with an entry for each environment. A promise reaches past the
    episode's end, so what came is continued by the promise of the last decision; without that, a perfect planner would
    look like one that promises too much. Episodes that a fault cut short say nothing.
    """
    promised, realised = [], []
    for episode in episodes:
        decisions = len(episode.rewards)
        if decisions < 2 or episode.fault is not None:
            continue
        promises = [float(predicted[call][episode.index]) for call in episode.calls]
        following, returns = promises[-1], []
        for reward in reversed(episode.rewards[:-1]):
            following = reward + discount * following
            returns.append(following)
        promised += promises[:-1]
        realised += returns[::-1]
    if not realised:
        return {}
    return {"plan/predicted_return": float(np.mean(promised)), "plan/realised_return": float(np.mean(realised))}
