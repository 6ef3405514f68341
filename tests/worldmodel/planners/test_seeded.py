"""Policy-seeded CEM: weights by rank, a first Gaussian from the policy, few candidates."""

import math

import torch

from tests.worldmodel.planners.test_cem import A, H, Quadratic
from worldmodel.interfaces import Noise
from worldmodel.planners.cem import CEM
from worldmodel.planners.search import Deadline, Problem
from worldmodel.planners.seeded import SeededCEM
from worldmodel.planners.shooting import Proposal, Scored


class Known(Quadratic):
    """The quadratic with a policy that is right to 0.3."""

    def propose(self, latent: torch.Tensor, generator: Noise) -> torch.Tensor:
        assert isinstance(generator, torch.Generator)
        target = self.target[latent[:, 0].long()]
        return target + 0.3 * torch.randn(target.shape, generator=generator)


def target() -> torch.Tensor:
    return torch.rand(H, A, generator=torch.Generator().manual_seed(0)) * 1.6 - 0.8


def test_elites_weigh_by_the_logarithm_of_their_rank() -> None:
    actions, scores = torch.rand(2, 6, H, A), torch.rand(2, 6)
    start = Proposal(torch.zeros(2, H, A), torch.ones(2, H, A))
    found = SeededCEM(horizon=H, candidates=6, elites=3, iterations=1).refit(start, Scored(actions, scores))
    order = scores.argsort(1, descending=True)[:, :3]
    weights = torch.tensor([math.log(3.5 / rank) for rank in (1, 2, 3)])
    weights = weights / weights.sum()
    for row in range(2):
        elites = actions[row, order[row]]
        mean = (weights[:, None, None] * elites).sum(0)
        torch.testing.assert_close(found.mean[row], mean)
        torch.testing.assert_close(found.std[row], (weights[:, None, None] * (elites - mean) ** 2).sum(0).sqrt())


def test_where_nothing_is_finite_nothing_changes() -> None:
    start = Proposal(torch.zeros(1, H, A), torch.ones(1, H, A))
    pool = Scored(torch.rand(1, 6, H, A), torch.full((1, 6), -math.inf))
    found = SeededCEM(horizon=H, candidates=6, elites=3, iterations=1).refit(start, pool)
    assert torch.equal(found.mean, start.mean) and torch.equal(found.std, start.std)


def test_a_tenth_of_the_sequences_of_cem_comes_as_close() -> None:
    model = Known(target())
    wide = CEM(horizon=H, candidates=1000, elites=100, iterations=10)
    seeded = SeededCEM(horizon=H, candidates=90, elites=30, iterations=10, policy_candidates=64)
    values = {}
    for name, planner in {"wide": wide, "seeded": seeded}.items():
        plans = [planner.plan(model, torch.zeros(4, 2), generator=torch.Generator().manual_seed(s)) for s in range(2)]
        values[name] = torch.cat([plan.value for plan in plans]).mean().item()  # -|a - target|², 0 at the optimum
    assert values["seeded"] > 1.5 * values["wide"] > -0.05


def test_without_a_policy_it_searches_from_nothing() -> None:
    planner = SeededCEM(horizon=H, candidates=512, elites=128, iterations=30, init_std=1.0)
    plan = planner.plan(Quadratic(target()), torch.zeros(1, 2), generator=torch.Generator().manual_seed(0))
    assert plan.value.item() > -1e-2


def test_seeds_of_no_finite_score_leave_the_first_gaussian_as_it_was() -> None:
    planner = SeededCEM(horizon=H, candidates=6, elites=3, iterations=1, init_std=0.7)
    problem = Problem(
        simulator=Quadratic(target()),
        latent=torch.zeros(1, 2),
        handicap=torch.full((1, 1), -math.inf),
        warm=None,
        generator=None,
        iterations=1,
        timer=Deadline(None, torch.device("cpu")),
    )
    proposal, _ = planner.first(problem, torch.rand(1, 6, H, A))
    assert torch.equal(proposal.std, torch.full((1, H, A), 0.7))


def test_a_policy_that_is_sure_leaves_room_to_search() -> None:
    class Sure(Quadratic):
        def propose(self, latent: torch.Tensor, generator: Noise) -> torch.Tensor:
            return torch.zeros(len(latent), A)

    planner = SeededCEM(horizon=H, candidates=64, elites=16, iterations=4, policy_candidates=8)
    plan = planner.plan(Sure(target()), torch.zeros(1, 2), generator=torch.Generator().manual_seed(0))
    assert plan.value.item() > -target().square().sum().item()
