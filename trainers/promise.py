"""What a planner promised against what came: how much it exploits errors of its model."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from datamodules.rollout import Episode


def promise(
    predicted: Sequence[NDArray[np.float32]], episodes: Sequence[Episode], *, discount: float
) -> dict[str, float]:
    """Means of the planner's predicted returns and of the realised ones, both discounted per decision.

    predicted: one array [count] per decision. A promise reaches past the episode's end, so what came is continued by
    the promise of the last decision; without that, a perfect planner would look like one that promises too much.
    """
    promised, realised = [], []
    for place, episode in enumerate(episodes):
        decisions = len(episode.rewards)
        if decisions < 2:
            continue
        promises = [float(values[place]) for values in predicted[:decisions]]
        following, returns = promises[-1], []
        for reward in reversed(episode.rewards[:-1]):
            following = reward + discount * following
            returns.append(following)
        promised += promises[:-1]
        realised += returns[::-1]
    if not realised:
        return {}
    return {"plan/predicted_return": float(np.mean(promised)), "plan/realised_return": float(np.mean(realised))}
