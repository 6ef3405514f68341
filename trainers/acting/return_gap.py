"""What plans predict against what came of them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.rollout import Episode


def return_gap(
    predicted: Sequence[NDArray[np.float32]], episodes: Sequence[Episode], *, discount: float, horizon: int | None
) -> dict[str, float]:
    """Means of the planner's predicted returns and of what came in the time that they are about.

    Episodes that a fault cut short say nothing; after one that terminated nothing comes.

    Args:
        predicted: one array per call of the policy, with an entry for each environment; NaN where nothing was planned,
            and -inf where what was predicted is no number: that is left out as well.
        episodes: what was played.
        discount: per decision, of both.
        horizon: decisions that a prediction is about. None for one that a value continues past the episode's end: then
            what came is continued by the episode's last prediction, without which a perfect planner would look like
            one that predicts too much. Else predictions past the end of an episode that was cut are left out.

    Returns:
        `plan/predicted_return` and `plan/realised_return`; nothing where nothing can be compared.
    """
    expected, realised = [], []
    for episode in episodes:
        if episode.fault is not None:
            continue
        predictions = np.array([float(predicted[call][episode.index]) for call in episode.calls])
        planned, rewards = np.flatnonzero(np.isfinite(predictions)), np.asarray(episode.rewards)
        spans: list[tuple[Any, Any, float]]
        if episode.terminal:
            longest = len(rewards) if horizon is None else horizon
            spans = [(start, min(start + longest, len(rewards)), 0.0) for start in planned]
        elif horizon is None:
            spans = [(start, planned[-1], predictions[planned[-1]]) for start in planned[:-1]]
        else:
            spans = [(start, start + horizon, 0.0) for start in planned if start + horizon <= len(rewards)]
        for start, end, following in spans:
            expected.append(predictions[start])
            came = discount ** np.arange(end - start) @ rewards[start:end]
            realised.append(came + discount ** (end - start) * following)
    if not realised:
        return {}
    return {"plan/predicted_return": float(np.mean(expected)), "plan/realised_return": float(np.mean(realised))}
