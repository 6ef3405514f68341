"""Distribution shift, measured: the model's error on what it was fitted to, and where its own plans lead."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from datamodules.transitions import StateEpisode, transitions
from worldmodel.interfaces import Transitions
from worldmodel.state_dynamics import StateDynamics


def unit_of(base: Transitions) -> Float[Tensor, "D"]:
    """The std of every dimension's change in one decision under the base policy: what errors are counted in."""
    return (base.following - base.state).std(0).clamp_min(1e-6)


@torch.no_grad()
def one_step_error(dynamics: StateDynamics, rows: Transitions, unit: Float[Tensor, "D"]) -> float:
    """Root mean square of f(s, a) - s' over all rows and dimensions, in `unit`."""
    rows = rows.to(next(dynamics.parameters()).device)
    miss = (dynamics.predict(rows.state, rows.action) - rows.following) / unit.to(rows.state.device)
    return float(miss.square().mean().sqrt())


@torch.no_grad()
def imagined(dynamics: StateDynamics, episode: StateEpisode) -> Float[Tensor, "T D"]:
    """The states [T + 1, D] that the model expects from an episode's first state under its actions."""
    device = next(dynamics.parameters()).device
    state, actions = torch.from_numpy(episode.state[:1]).to(device), torch.from_numpy(episode.action).to(device)
    states = [state]
    for action in actions:
        states.append(dynamics.predict(states[-1], action[None]))
    return torch.cat(states).cpu()


def shift(
    dynamics: StateDynamics, fitted: Transitions, own: Sequence[StateEpisode], unit: Float[Tensor, "D"]
) -> dict[str, float]:
    """`error/data` on the transitions that the model was fitted to, `error/own` on those that its plans led to."""
    return {
        "error/data": one_step_error(dynamics, fitted, unit),
        "error/own": one_step_error(dynamics, transitions(own), unit),
    }


def kept_promises(episodes: Sequence[StateEpisode], *, horizon: int, discount: float) -> dict[str, float]:
    """Means of the returns that plans promised over their horizon, and of what came in that time.

    Plans that look past the episode's end are left out.
    """
    promised, realised = [], []
    for episode in episodes:
        weights = discount ** np.arange(horizon)
        for decision, value in episode.promised:
            came = episode.reward[decision : decision + horizon]
            if len(came) == horizon:
                promised.append(value)
                realised.append(float(weights @ came))
    if not realised:
        return {}
    return {"plan/predicted_return": float(np.mean(promised)), "plan/realised_return": float(np.mean(realised))}
