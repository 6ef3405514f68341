"""One plan over several real ranks is the plan of one, whatever the planner and however candidates divide."""

import time

import pytest
import torch
from torch import distributed

from tests.conftest import small_agent
from tests.rigs.gloo import in_ranks
from worldmodel.interfaces import Plan
from worldmodel.planners.cem import CEM
from worldmodel.planners.icem import ICEM
from worldmodel.planners.mppi import MPPI
from worldmodel.planners.random_shooting import RandomShooting
from worldmodel.simulators.latent import score
from worldmodel.simulators.over_ranks import SimulatorOverRanks, release, score_for_first_rank

CPU = torch.device("cpu")
PLANNERS = {
    "cem": CEM(horizon=4, candidates=32, elites=5, iterations=3),
    "uneven": CEM(horizon=4, candidates=31, elites=5, iterations=3, policy_candidates=7),
    "icem": ICEM(horizon=4, candidates=32, elites=5, iterations=3),
    "mppi": MPPI(horizon=4, candidates=32, elites=5, iterations=3),
    "fewer than ranks": RandomShooting(horizon=4, candidates=2),
}


def world():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return small_agent().eval().simulator()


def latents(rows=3):
    width = small_agent().dynamics.latent_dim
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(1))


def plans(simulator) -> dict[str, Plan]:
    """Of every planner from latents one of which is not finite, then once more from other latents."""
    start = latents()
    start[1, 0] = torch.nan
    found = {}
    for name, planner in PLANNERS.items():
        for where, latent in (("", start), (" again", latents(1))):
            found[name + where] = planner.plan(simulator, latent, generator=torch.Generator().manual_seed(2))
    return found


def planned(rank):
    """The numbers of all plans, and how many candidates this rank scored."""
    simulator, scored = world(), []
    returns = simulator.returns

    def counting(latent, actions):
        scored.append(actions.shape[1])
        return returns(latent, actions)

    simulator.returns = counting
    if rank:
        score_for_first_rank(simulator, device=CPU)
        return (None, scored)
    found = plans(SimulatorOverRanks(simulator, device=CPU))
    release(CPU)
    return ({name: (plan.mean.tolist(), plan.value.tolist()) for name, plan in found.items()}, scored)


@pytest.mark.parametrize("ranks", [2, 3])
def test_the_plan_of_one_device(ranks):
    (found, own), *others = in_ranks(planned, ranks)
    alone = plans(world())
    assert found.keys() == alone.keys()
    for name, (mean, value) in found.items():
        torch.testing.assert_close(torch.tensor(mean), alone[name].mean, atol=1e-5, rtol=0)
        torch.testing.assert_close(torch.tensor(value), alone[name].value, atol=1e-5, rtol=1e-5)
    for _, scored in others:  # with three ranks the two candidates of one planner and the mean of a plan stay home
        assert len(scored) <= len(own) and max(scored) == -(-(31 + 7) // ranks) == max(own)


def raced(rank):
    """A deadline is the first rank's alone; what it scores is what every candidate earns."""
    if rank:
        return (score_for_first_rank(world(), device=CPU),)
    simulator, latent = world(), latents()
    shared = SimulatorOverRanks(simulator, device=CPU)
    late = CEM(horizon=4, candidates=32, elites=5, iterations=1000)
    plan = late.plan(shared, latent, deadline=time.monotonic() + 0.2)
    actions = torch.rand(3, 5, 4, 2, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        same = torch.allclose(score(shared, latent, actions), score(simulator, latent, actions), atol=1e-5)
    release(CPU)
    return (bool(plan.mean.isfinite().all()), same, distributed.get_world_size())


def test_a_deadline_stops_all():
    assert in_ranks(raced, 2) == [(True, True, 2), (None,)]
