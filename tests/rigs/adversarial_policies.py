"""Policies asked for actions in latents that are nonsense, by weights that are sane or not: what is wrong with them."""

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tests.rigs.adversary import ACTION, LATENT, Adversary
from worldmodel.action_values.action_sets import Grid, OneHot, PerDimension
from worldmodel.action_values.discrete_q import HuberQ
from worldmodel.actors.greedy_q import GreedyQActor
from worldmodel.actors.squashed_normal import SquashedNormalActor
from worldmodel.interfaces import Policy

NONSENSE = torch.tensor([math.nan, math.inf, -math.inf, 1e38, -1e38, 1e20, 1e-40, 0.0])
# what every weight is multiplied by: as they were drawn, grown without bound, or ruined
SCALES = (1.0, 1.0, 1e3, 1e20, math.inf, math.nan)


def _greedy(actions: Any) -> GreedyQActor:
    q = HuberQ(actions=actions, latent_dim=LATENT, scale=1.0, hidden=8)
    nn.init.normal_(q.net[-1].weight)
    return GreedyQActor(q=q, epsilon=0.1)


# at least one of every module of worldmodel.actors, under a name that begins with the module's
POLICIES: dict[str, Callable[[], Policy]] = {
    "squashed_normal": lambda: SquashedNormalActor(latent_dim=LATENT, action_dim=ACTION, hidden=8),
    "greedy_q grid": lambda: _greedy(Grid(action_dim=ACTION, bins=3)),
    "greedy_q per dimension": lambda: _greedy(PerDimension(action_dim=ACTION, bins=5)),
    "greedy_q one hot": lambda: _greedy(OneHot(action_dim=ACTION)),
}


def attack(name: str, calls: int, rows: int, seed: int) -> dict[str, Any]:
    """Counts over `calls` latents, each asked for a sample and a mode, in batches of `rows`."""
    generator, start = torch.Generator().manual_seed(seed), time.perf_counter()
    found = {"policy": name, "calls": 0, "batches": 0, "nonfinite": 0, "out_of_bounds": 0}
    while found["calls"] < calls:
        count = min(rows, calls - found["calls"])
        policy = _spoiled(POLICIES[name](), SCALES[found["batches"] % len(SCALES)])
        latent = latents(count, generator)
        with torch.inference_mode():
            actions = torch.cat([policy.sample(latent, generator=generator), policy.mode(latent)], -1)
        for key, wrong in wrongs(actions).items():
            found[key] += wrong
        found["calls"] += count
        found["batches"] += 1
    return {**found, "seconds": round(time.perf_counter() - start, 1)}


def latents(rows: int, generator: torch.Generator) -> Tensor:
    """Latents [R 9] of the lying world, of which a third have numbers that are nonsense, and some no others."""
    drawn = NONSENSE[torch.randint(len(NONSENSE), (rows, LATENT), generator=generator)]
    share = torch.tensor([0.0, 0.0, 0.3, 1.0])[torch.randint(4, (rows, 1), generator=generator)]
    return torch.where(torch.rand(rows, LATENT, generator=generator) < share, drawn, Adversary.draw(rows, generator))


def wrongs(actions: Tensor) -> dict[str, int]:
    """Rows with an action that is not finite, and finite ones with one out of bounds."""
    finite = actions.isfinite().all(1)
    return {"nonfinite": int((~finite).sum()), "out_of_bounds": int((finite & (actions.abs().amax(1) > 1)).sum())}


def _spoiled(policy: Policy, scale: float) -> Policy:
    if scale != 1.0 and isinstance(policy, nn.Module):
        for weight in policy.parameters():
            weight.data *= scale
    return policy
