"""Tree search against bandits, brute force and the properties that the papers prove."""

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from worldmodel.planners.gumbel import GumbelMCTS, completed_values, halving, improved_policy, preference
from worldmodel.planners.uct import UCT


def grown(planner: UCT | GumbelMCTS, simulator: object, latent: Tensor, *, seed: int) -> Any:
    """The tree that a planner decides by."""
    trees, decide = [], planner._decide

    def watch(tree: Any, *rest: Any) -> tuple[Tensor, Tensor]:
        trees.append(tree)
        return decide(tree, *rest)

    planner._decide = watch  # type: ignore[method-assign]
    planner.plan(simulator, latent, generator=torch.Generator().manual_seed(seed))
    return trees[0]


class Bandit:
    """Three Bernoulli arms on a grid of one dimension; a generator of its own draws the rewards."""

    action_dim, discount = 1, 1.0

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.probability = torch.tensor([0.9, 0.8, 0.5])

    def step(self, latent: Tensor, action: Tensor) -> Tensor:
        return (action.round() + 1).expand(len(latent), 1)

    def reward(self, latent: Tensor) -> Tensor:
        arm = self.probability[latent[..., 0].long()]
        return (torch.rand(arm.shape, generator=self.generator) < arm).float()

    def value(self, latent: Tensor) -> Tensor:
        return latent.new_zeros(latent.shape[:-1])

    def propose(self, latent: Tensor, generator: torch.Generator | None) -> None:
        return None


def test_uct_finds_the_best_arm_in_200_trees() -> None:
    """Environments of a batch are the seeds: 200 independent trees of 2000 simulations."""
    planner = UCT(horizon=1, iterations=2000, exploration=0.5, normalise=False)
    visits = grown(planner, Bandit(0), torch.zeros(200, 1), seed=1).visits[:, 0]
    assert (visits.sum(1) == 2000).all()
    assert (visits.argmax(1) == 0).float().mean() >= 0.99
    assert 0.72 < visits[:, 0].mean() / 2000 < 0.84
    gaps = torch.tensor([0.1, 0.4])
    bound = (8 * math.log(2000) / gaps).sum() + (1 + math.pi**2 / 3) * gaps.sum()
    assert (visits[:, 1:] @ gaps).mean() < bound


class Leaves:
    """A deterministic tree of three actions: the latent counts the path in base three, leaves have known rewards."""

    action_dim, discount = 1, 1.0

    def __init__(self, depth: int, seed: int) -> None:
        self.depth = depth
        self.leaves = torch.rand(3**depth, generator=torch.Generator().manual_seed(seed))

    def step(self, latent: Tensor, action: Tensor) -> Tensor:
        return torch.stack([latent[:, 0] * 3 + action[:, 0].round() + 1, latent[:, 1] + 1], -1)

    def reward(self, latent: Tensor) -> Tensor:
        at_leaf = latent[..., 1] == self.depth
        return torch.where(at_leaf, self.leaves[latent[..., 0].long().clamp_max(len(self.leaves) - 1)], 0.0)

    def value(self, latent: Tensor) -> Tensor:
        return latent.new_zeros(latent.shape[:-1])

    def propose(self, latent: Tensor, generator: torch.Generator | None) -> None:
        return None


@pytest.mark.parametrize("seed", range(2))
def test_uct_converges_to_the_best_leaf(seed: int) -> None:
    model = Leaves(3, seed)
    found = UCT(horizon=3, iterations=800).plan(model, torch.zeros(2, 2), generator=torch.Generator().manual_seed(0))
    best = int(model.leaves.argmax())
    assert (found.mean[:, :, 0] == torch.tensor([best // 9, best // 3 % 3, best % 3]) - 1).all()
    assert (found.value > 0.85 * model.leaves.max()).all()


def test_a_grid_that_is_too_large_is_refused_and_one_hot_is_not() -> None:
    with pytest.raises(ValueError, match=r"3\^6"):
        UCT().action_set(6)
    assert torch.equal(UCT(actions="one_hot").action_set(6).argmax(1), torch.arange(6))


@pytest.mark.parametrize(
    ("considered", "simulations", "expected"),
    [
        (4, 8, [0, 0, 0, 0, 1, 1, 2, 2]),
        (16, 32, [0] * 16 + [1] * 8 + [2] * 4 + [3] * 4),
        (1, 3, [0, 1, 2]),
        (8, 5, [0] * 5),
    ],
)
def test_sequential_halving_follows_the_schedule(considered: int, simulations: int, expected: list[int]) -> None:
    assert halving(considered, simulations) == expected


def test_the_improved_policy_never_loses_where_values_are_exact() -> None:
    """Theorem of section 4: unvisited actions are completed by the prior's own value."""
    generator = torch.Generator().manual_seed(0)
    for case in range(1000):
        K = int(torch.randint(2, 12, (), generator=generator))
        logits = 3 * torch.randn(K, generator=generator, dtype=torch.float64)
        q = torch.randn(K, generator=generator, dtype=torch.float64)
        visits = torch.randint(0, 4, (K,), generator=generator).double()
        prior = logits.softmax(-1)
        completed = torch.where(visits > 0, q, (prior * q).sum())
        policy = improved_policy(logits, preference(completed, visits, visit_scale=50, value_scale=0.1))
        assert (policy * q).sum() >= (prior * q).sum() - 1e-9, case


def test_completion_mixes_the_value_with_what_was_visited() -> None:
    q, visits = torch.tensor([2.0, 5.0, 0.0]), torch.tensor([3.0, 0.0, 1.0])
    prior = torch.tensor([0.5, 0.25, 0.25])
    mixed = (1.0 + 4 * (0.5 * 2.0 + 0.25 * 0.0) / 0.75) / 5
    found = completed_values(q, visits, prior.log(), torch.tensor(1.0))
    torch.testing.assert_close(found, torch.tensor([2.0, mixed, 0.0]))
    untouched = completed_values(q, torch.zeros(3), prior.log(), torch.tensor(1.0))
    torch.testing.assert_close(untouched, torch.ones(3))


class Peak:
    """Reward -|a - 0.4|² of every decision: continuous, so samples decide how close a search comes."""

    action_dim, discount = 2, 0.9

    def step(self, latent: Tensor, action: Tensor) -> Tensor:
        return torch.stack([latent[:, 0] + 1, -(action - 0.4).square().sum(-1)], -1)

    def reward(self, latent: Tensor) -> Tensor:
        return latent[..., 1]

    def value(self, latent: Tensor) -> Tensor:
        return latent.new_zeros(latent.shape[:-1])

    def propose(self, latent: Tensor, generator: torch.Generator | None) -> None:
        return None


def test_gumbel_search_finds_the_best_of_its_samples() -> None:
    planner = GumbelMCTS(horizon=1, iterations=64, samples=16, considered=16)
    found = planner.plan(Peak(), torch.zeros(64, 2), generator=torch.Generator().manual_seed(0))
    drawn = 2 * torch.rand(64, 16, 2, generator=torch.Generator().manual_seed(0)) - 1
    best = -(drawn - 0.4).square().sum(-1).min(1).values
    torch.testing.assert_close(found.value, best)


def test_a_deeper_search_earns_more_than_a_random_plan() -> None:
    planner = GumbelMCTS(horizon=3, iterations=64, samples=16, considered=16)
    found = planner.plan(Peak(), torch.zeros(64, 2), generator=torch.Generator().manual_seed(0))
    uniform = (2 * torch.rand(10_000, 2) - 1 - 0.4).square().sum(-1).mean()
    assert (found.action - 0.4).square().sum(-1).mean() < 0.25 * uniform


def test_gumbel_tree_holds_what_a_replay_of_its_paths_gives() -> None:
    """Every node's latent, reward and mean return, against a recursion over the finished tree."""
    planner = GumbelMCTS(horizon=4, iterations=40, samples=5, considered=4, policy_candidates=0)
    model = Peak()
    tree = grown(planner, model, torch.zeros(3, 2), seed=3)
    assert (tree.visits[:, 0].sum(1) == 40).all()
    for b, m, k in itertools.product(range(3), range(41), range(5)):
        child = int(tree.children[b, m, k])
        if child < 0:
            assert tree.visits[b, m, k] == 0
            continue
        state = model.step(tree.latent[b, m][None], tree.actions[b, m, k][None])
        torch.testing.assert_close(state[0], tree.latent[b, child])
        torch.testing.assert_close(model.reward(state)[0], tree.reward[b, child])
        below = tree.returns[b, child].sum() + (tree.visits[b, m, k] - tree.visits[b, child].sum()) * 0.0
        expected = tree.visits[b, m, k] * tree.reward[b, child] + model.discount * below
        torch.testing.assert_close(tree.returns[b, m, k], expected, rtol=1e-4, atol=1e-4)


class Slope:
    """The latent adds up the actions; a step's reward is it and a constant; `valued`: their worth for ever."""

    action_dim, discount = 1, 0.9

    def __init__(self, constant: float, *, valued: bool) -> None:
        self.constant, self.valued = constant, valued

    def step(self, latent: Tensor, action: Tensor) -> Tensor:
        return latent + action

    def reward(self, latent: Tensor) -> Tensor:
        return latent[..., 0] + self.constant

    def value(self, latent: Tensor) -> Tensor:
        return (latent[..., 0] + self.constant) / (1 - self.discount) * self.valued

    def propose(self, latent: Tensor, generator: torch.Generator | None) -> None:
        return None


@pytest.mark.parametrize("planner", [UCT, GumbelMCTS])
@pytest.mark.parametrize("valued", [False, True])
def test_a_constant_reward_changes_no_visit_and_adds_its_sum_to_the_value(planner: Any, valued: bool) -> None:
    search = {c: planner(horizon=6, iterations=60) for c in (0.0, 5.0, -50.0)}
    root = torch.zeros(4, 1, dtype=torch.float64)
    visits = {c: grown(search[c], Slope(c, valued=valued), root, seed=1).visits for c in search}
    assert visits[0.0][:, 0].std() > 1, "visits must differ between actions"
    for c in (5.0, -50.0):
        assert torch.equal(visits[c], visits[0.0])
    values = {
        c: planner(horizon=6, iterations=60)
        .plan(Slope(c, valued=valued), root, generator=torch.Generator().manual_seed(1))
        .value
        for c in search
    }
    of_one = 1 / (1 - 0.9) if valued else (1 - 0.9**6) / (1 - 0.9)
    torch.testing.assert_close(values[5.0] - values[0.0], torch.full_like(values[0.0], 5 * of_one))


def test_a_price_of_risk_is_no_value_of_what_follows() -> None:
    """Paths that end at different depths stay comparable: what a world adds to all values changes them by as much."""

    class Priced(Slope):
        def value(self, latent: Tensor) -> Tensor:
            return torch.full_like(latent[..., 0], 1e-6)

    root, search = torch.zeros(4, 1, dtype=torch.float64), GumbelMCTS(horizon=6, iterations=60)
    plain, priced = (
        search.plan(kind(5.0, valued=False), root, generator=torch.Generator().manual_seed(1))
        for kind in (Slope, Priced)
    )
    torch.testing.assert_close(priced.value, plain.value, atol=1e-4, rtol=0)
    torch.testing.assert_close(priced.mean, plain.mean)


class Cliff:
    """The reward is the action and a constant; beyond the edge the model breaks down."""

    action_dim, discount = 1, 1.0

    def __init__(self, constant: float, *, edge: float) -> None:
        self.constant, self.edge = constant, edge

    def step(self, latent: Tensor, action: Tensor) -> Tensor:
        return torch.where(action > self.edge, torch.nan, action)

    def reward(self, latent: Tensor) -> Tensor:
        return latent[..., 0] + self.constant

    def value(self, latent: Tensor) -> Tensor:
        return latent.new_zeros(latent.shape[:-1])

    def propose(self, latent: Tensor, generator: torch.Generator | None) -> None:
        return None


@pytest.mark.parametrize("horizon", [1, 4])
def test_what_breaks_first_is_no_better_than_what_is_known_later(horizon: int) -> None:
    """A world without a constant and one that takes 200 a step are searched alike, and no value exceeds what can be."""
    planner, plans = UCT(horizon=horizon, iterations=64), []
    for constant in (0.0, -200.0):
        world = Cliff(constant, edge=0.5)
        plans.append(planner.plan(world, torch.zeros(200, 1), generator=torch.Generator().manual_seed(0)))
        assert (plans[-1].value <= horizon * constant).all()
        assert (plans[-1].action <= 0).all()
    if horizon == 1:
        assert all((plan.action == 0).all() for plan in plans)


@pytest.mark.parametrize("edge", [0.6, -0.5])
def test_a_search_sees_differences_beside_actions_on_which_the_model_breaks_down(edge: float) -> None:
    planner = GumbelMCTS(horizon=1, iterations=64, considered=16)
    tree = grown(planner, Cliff(0.0, edge=edge), torch.zeros(50, 1), seed=0)
    plan = planner.plan(Cliff(0.0, edge=edge), torch.zeros(50, 1), generator=torch.Generator().manual_seed(0))
    actions = tree.actions[:, 0, :, 0]
    best = torch.where(actions > edge, -torch.inf, actions).amax(1)
    torch.testing.assert_close(plan.action[:, 0], best)
    torch.testing.assert_close(plan.value, best)
