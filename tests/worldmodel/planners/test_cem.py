"""CEM in the one shooting loop: closed-form optima, then the safety that holds for any model."""

import math

import pytest
import torch
from torch import Tensor

from worldmodel.planners.cem import CEM
from worldmodel.planners.cem_best import BestCEM
from worldmodel.planners.seeded import SeededCEM
from worldmodel.planners.shooting import Proposal, Scored
from worldmodel.simulators.latent import score, score_by_steps

H, A = 12, 3


class Quadratic:
    """s counts the steps; the reward of step k is -|a_k - target_k|², so the optimum is known."""

    action_dim, discount = A, 1.0

    def __init__(self, target: Tensor) -> None:
        self.target = target  # [H A]

    def step(self, latent: Tensor, action: Tensor) -> Tensor:
        k = latent[:, 0].long()
        error = (action - self.target[k]).square().sum(-1)
        return torch.stack([latent[:, 0] + 1, -error], -1)

    def reward(self, latent: Tensor) -> Tensor:
        return latent[..., 1]

    def value(self, latent: Tensor) -> Tensor:
        return latent.new_zeros(latent.shape[:-1])

    def propose(self, latent: Tensor, generator: torch.Generator | None) -> Tensor | None:
        return None


class Adversary(Quadratic):
    """A model whose rewards are a given pattern over candidates."""

    def __init__(self, rewards: Tensor) -> None:
        super().__init__(torch.zeros(H, A))
        self.rewards = rewards

    def reward(self, latent: Tensor) -> Tensor:
        repeats = math.ceil(latent.shape[-2] / len(self.rewards))
        return self.rewards.repeat(repeats)[: latent.shape[-2]].expand(latent.shape[:-1])


def plan(simulator: object, planner: CEM, B: int = 2, seed: int = 0, latent: Tensor | None = None):
    latent = torch.zeros(B, 2) if latent is None else latent
    return planner.plan(simulator, latent, generator=torch.Generator().manual_seed(seed))


def test_finds_the_optimum_of_a_36_dimensional_quadratic() -> None:
    target = torch.rand(H, A) * 1.6 - 0.8
    planner = CEM(horizon=H, candidates=512, elites=64, iterations=60, init_std=1.0)
    for seed in range(3):
        found = plan(Quadratic(target), planner, B=1, seed=seed)
        assert (found.mean[0] - target).abs().max() < 1e-3
        assert found.value.item() == pytest.approx(0.0, abs=1e-4)


def test_an_optimum_outside_the_bounds_is_met_at_the_bound() -> None:
    planner = CEM(horizon=H, candidates=256, elites=32, iterations=40)
    found = plan(Quadratic(torch.full((H, A), 3.0)), planner, B=1)
    assert found.mean.max() <= 1 and (found.mean - 1).abs().max() < 1e-2


def test_score_is_the_discounted_sum() -> None:
    model = Quadratic(torch.zeros(H, A))
    model.discount = 0.9
    model.value = lambda latent: latent.new_full(latent.shape[:-1], 5.0)
    actions = torch.rand(1, 4, H, A)
    expected = -(actions.square().sum(-1) * 0.9 ** torch.arange(H)).sum(-1) + 0.9**H * 5
    torch.testing.assert_close(score(model, torch.zeros(1, 2), actions), expected)


def test_same_seed_same_plan_and_rows_do_not_mix() -> None:
    target, planner = torch.rand(H, A), CEM(horizon=H, candidates=64, elites=8, iterations=3)
    first, again = plan(Quadratic(target), planner), plan(Quadratic(target), planner)
    assert torch.equal(first.mean, again.mean)
    disturbed = plan(Quadratic(target), planner, latent=torch.tensor([[0.0, 0.0], [math.nan, 0.0]]))
    assert torch.equal(first.mean[0], disturbed.mean[0])
    assert disturbed.action.isfinite().all() and disturbed.value[1] == -math.inf


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e38, 0.0])
@pytest.mark.parametrize("share", [0.01, 0.5, 1.0])
def test_actions_are_finite_and_in_bounds_whatever_the_model_says(bad: float, share: float) -> None:
    rewards = torch.randn(100)
    rewards[: int(100 * share)] = bad
    found = plan(Adversary(rewards), CEM(horizon=H, candidates=100, elites=10, iterations=4))
    for actions in (found.action, found.mean):
        assert actions.isfinite().all() and actions.abs().max() <= 1


def test_candidates_that_are_not_finite_never_become_elites() -> None:
    actions = torch.rand(1, 8, H, A)
    scores = torch.full((1, 8), -math.inf)
    scores[0, 3] = -1e9
    start = Proposal(mean=torch.zeros(1, H, A), std=torch.ones(1, H, A))
    refit = CEM(horizon=H, candidates=8, elites=4, iterations=1).refit(start, Scored(actions, scores))
    torch.testing.assert_close(refit.mean[0], actions[0, 3])
    nothing = CEM(horizon=H, candidates=8, elites=4, iterations=1).refit(
        start, Scored(actions, torch.full((1, 8), -math.inf))
    )
    assert torch.equal(nothing.mean, start.mean) and torch.equal(nothing.std, start.std)


def test_a_good_warm_start_beats_a_cold_one() -> None:
    target, planner = torch.rand(H, A) * 2 - 1, CEM(horizon=H, candidates=32, elites=4, iterations=2, init_std=0.3)
    model, generator = Quadratic(target), torch.Generator()
    warm = planner.plan(model, torch.zeros(1, 2), warm=target[None], generator=generator.manual_seed(0))
    cold = planner.plan(model, torch.zeros(1, 2), generator=generator.manual_seed(0))
    assert warm.value.item() > cold.value.item()


@pytest.mark.parametrize("options", [{"elites": 0}, {"elites": 11}, {"horizon": 0}, {"iterations": 0}])
def test_impossible_budgets_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        CEM(**{"candidates": 10, "elites": 5, **options})


def test_the_best_of_mean_last_plan_modes_and_candidates_is_executed() -> None:
    """A policy that knows the optimum, a last plan near it, and a search too small to find either."""
    target = torch.rand(H, A) * 1.6 - 0.8

    class Skilled(Quadratic):
        def propose(self, latent: Tensor, generator: object) -> Tensor:
            return torch.zeros(len(latent), A)

        def propose_mode(self, latent: Tensor) -> Tensor:
            return self.target[latent[:, 0].long().clamp_max(H - 1)]

    small = {"horizon": H, "candidates": 8, "elites": 4, "iterations": 1}
    near = (target + 0.01).expand(1, -1, -1)
    start, sizes = torch.zeros(1, 2), {"generator": torch.Generator().manual_seed(0)}
    mean = CEM(**small).plan(Quadratic(target), start, warm=near, **sizes)
    kept = BestCEM(**small).plan(Quadratic(target), start, warm=near, **sizes)
    assert mean.value < -1 and torch.equal(kept.mean, near)
    modes = BestCEM(**small, policy_candidates=2).plan(Skilled(target), start, warm=near, **sizes)
    torch.testing.assert_close(modes.mean[0], target)
    # without either it is the better of the mean and the best candidate, never worse than CEM at the same seed
    for seed in range(20):
        ours, theirs = (
            kind(**small).plan(Quadratic(target), start, generator=torch.Generator().manual_seed(seed)).value
            for kind in (BestCEM, CEM)
        )
        assert ours >= theirs - 1e-4


@pytest.mark.parametrize(("planner", "scored"), [(CEM, [11, 8, 8, 1]), (SeededCEM, [3, 8, 8, 8, 1])])
def test_the_policy_s_sequences_are_scored_once(planner: type[CEM], scored: list[int]) -> None:
    """With the first samples where the first proposal does not need their scores, and counted in every refit."""
    counts: list[int] = []

    class Counting(Quadratic):
        def propose(self, latent: Tensor, generator: object) -> Tensor:
            return self.target[latent[:, 0].long()]

        def returns(self, latent: Tensor, actions: Tensor) -> Tensor:
            counts.append(actions.shape[1])
            return score_by_steps(self, latent, actions)

    target = torch.rand(H, A) * 1.6 - 0.8
    search = planner(horizon=H, candidates=8, elites=1, iterations=3, policy_candidates=3)
    found = plan(Counting(target), search, B=1)
    assert counts == scored
    torch.testing.assert_close(found.mean[0], target)
