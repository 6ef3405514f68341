"""Guided policy search on the known cart and pole: what its controllers earn, and the network that they teach."""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from trainers.benchmarks.known_dynamics.cartpole import Cartpole
from trainers.benchmarks.known_dynamics.readout import known_world
from worldmodel.actors.squashed_normal import SquashedNormalActor
from worldmodel.heads.scalar import ScalarHead
from worldmodel.interfaces import Batch, Belief
from worldmodel.latent_rows import LatentRows
from worldmodel.local_models.control_space import ControlSpace, mean_return, roll_out
from worldmodel.policies.gps import GuidedPolicySearch
from worldmodel.policy_spec import PolicySpec
from worldmodel.simulators.latent import LatentSimulator

HORIZON, UPDATES, RATE = 45, 60, 2e-3  # decisions of 40 ms; of the network in an iteration
OPTIONS: dict[str, Any] = {"controllers": 6, "samples": 5, "strength": 5.0, "control_cost": 0.02, "temperature": 0.05}
OPTIONS |= {"limit": 0.5, "iterations": 10**6}


def search(*, iterations: int, hidden: int, seed: int = 0, **options: float) -> dict[str, Any]:
    """Returns of controllers and network by iteration, and of the network from starts that no controller had.

    Args:
        iterations: of the same six controllers.
        hidden: width of the network; a narrow one cannot follow them.
        seed: of everything.
        options: of the search, instead of OPTIONS.
    """
    torch.manual_seed(seed)
    model = Cartpole()
    world = known_world(model.step, model.reward, action_dim=1)
    learner = GuidedPolicySearch(
        spec=_spec(hidden), horizon=HORIZON, segment=HORIZON, updates=UPDATES, **{**OPTIONS, **options}
    ).double()
    optimizer = torch.optim.Adam(learner.actor.parameters(), lr=RATE)
    rows, curve = _rows(_starts(64)), []
    for update in range(iterations * UPDATES):
        loss = learner.losses(world, rows)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        if (update + 1) % UPDATES == 0:
            kl = float(loss.metrics["policy/kl_global"])
            curve.append({"kl": kl, **returns(learner, world, learner.controllers.start)})
    return {"curve": curve, **curve[-1], "other_starts": returns(learner, world, _starts(20))["network"]}


@torch.no_grad()
def returns(learner: GuidedPolicySearch, world: LatentSimulator, start: Float[Tensor, "R 5"]) -> dict[str, float]:
    """Of the modes of network and, from their own starts, controllers."""
    policy, found = learner.controllers.policy, {}
    acts = {"network": lambda states, noise, t: learner.actor.moments(states)[0]}
    if start is learner.controllers.start:
        acts["controllers"] = lambda states, noise, t: policy.sample(states, torch.zeros_like(noise), t)
    for name, act in acts.items():
        space = ControlSpace(world)
        found[name] = float(mean_return(space, roll_out(space, start, act, samples=1, horizon=HORIZON)))
    return found


def _spec(hidden: int) -> PolicySpec:
    return PolicySpec(
        latent_dim=5,
        action_dim=1,
        discount=0.99,
        build_actor=lambda _: SquashedNormalActor(latent_dim=5, action_dim=1, hidden=hidden),
        build_value=lambda inputs: ScalarHead(latent_dim=inputs, scale=1.0),
    )


def _starts(count: int) -> Float[Tensor, "R 5"]:
    """The pole hangs, nearly at rest."""
    state = torch.zeros(count, 5, dtype=torch.float64)
    state[:, :4] = 0.1 * torch.randn(count, 4, dtype=torch.float64)
    state[:, 1] += math.pi
    return state


def _rows(latent: Float[Tensor, "R 5"]) -> LatentRows:
    """Recorded steps from these states."""
    action = torch.rand(len(latent), 2, 1, dtype=torch.float64) * 2 - 1
    flags = torch.zeros(len(latent), 2, dtype=torch.bool)
    batch = Batch({}, action, torch.zeros(len(latent), 2), flags, flags, flags)
    states = torch.stack([latent, Cartpole().step(latent, action[:, 1])], 1)
    return LatentRows.of(batch, Belief(states, torch.zeros(len(latent), 1), {}))
