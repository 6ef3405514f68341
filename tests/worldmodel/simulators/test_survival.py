"""Worlds whose episodes end: returns by hand, the same by every way to them, and planners that stay alive."""

import pytest
import torch
from torch import Tensor

from tests.worldmodel.planners.test_contract import PLANNERS, World
from worldmodel.heads.head import Head
from worldmodel.local_models.control_space import ControlSpace, Paths, returns
from worldmodel.simulators.ensemble import EnsembleSimulator
from worldmodel.simulators.latent import LatentSimulator, score, score_by_steps
from worldmodel.simulators.survival import SurvivalSimulator, continuation, may_end, survival
from worldmodel.simulators.wrapped import ConfidenceSimulator


class Cliff:
    """A point on a line, pushed by the first of two actions: the further right the better, but beyond 1 it ends.

    Beyond the edge rewards promise to go on growing, as a learned model's would, which has seen nothing there.
    """

    action_dim, discount = 2, 0.95
    members, latent_dim, noisy_dims = 2, 1, 1

    def __init__(self, *, terminates: bool = True) -> None:
        self.terminates, self.dynamics = terminates, self

    def step(self, latent: Tensor, action: Tensor) -> Tensor:
        return latent + 0.5 * action[..., :1]

    def moments(self, latent: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        return self.step(latent, action), torch.zeros_like(latent)

    def reward(self, latent: Tensor) -> Tensor:
        return latent[..., 0]

    def reward_std(self, latent: Tensor) -> Tensor:
        return torch.zeros_like(latent[..., 0])

    def continues(self, latent: Tensor) -> Tensor:
        return torch.sigmoid(30 * (1 - latent[..., 0]))

    def value(self, latent: Tensor) -> Tensor:
        return 5 * latent[..., 0]

    def propose(self, latent: Tensor, generator: object) -> None:
        return None


def by_hand(start: Tensor, actions: Tensor, *, terminates: bool) -> Tensor:
    """[B N], one candidate after the other."""
    world, totals = Cliff(), torch.zeros(actions.shape[:2], dtype=start.dtype)
    for b, n in torch.cartesian_prod(torch.arange(len(start)), torch.arange(actions.shape[1])).tolist():
        state, alive, total = start[b], 1.0, 0.0
        for k, action in enumerate(actions[b, n]):
            state = world.step(state, action)
            total += alive * 0.95**k * world.reward(state).item()
            alive *= world.continues(state).item() if terminates else 1.0
        totals[b, n] = total + alive * 0.95 ** actions.shape[2] * world.value(state).item()
    return totals


def problem() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    start = torch.rand(3, 1, generator=generator, dtype=torch.float64)
    return start, 2 * torch.rand(3, 7, 5, 2, generator=generator, dtype=torch.float64) - 1


@pytest.mark.parametrize("terminates", [True, False])
def test_what_comes_after_an_end_does_not_count(terminates: bool) -> None:
    start, actions = problem()
    expected = by_hand(start, actions, terminates=terminates)
    torch.testing.assert_close(score_by_steps(Cliff(terminates=terminates), start, actions), expected)
    assert (by_hand(start, actions, terminates=not terminates) - expected).abs().max() > 1


def test_every_world_made_of_a_mortal_one_promises_the_same() -> None:
    start, actions = problem()
    world, expected = Cliff(), by_hand(start, actions, terminates=True)
    mortal = SurvivalSimulator(world)
    torch.testing.assert_close(score(mortal, mortal.start(start), actions), expected)
    torch.testing.assert_close(score(ConfidenceSimulator(world, kappa=1.0), start, actions), expected)
    ensemble = EnsembleSimulator(simulator=world, ensemble=world, particles=4, kappa=1.0, bonus=1.0)
    torch.testing.assert_close(score(ensemble, ensemble.start(start), actions), expected)


def test_a_world_that_says_nothing_of_ends_has_none() -> None:
    world = World()
    assert not may_end(world) and continuation(world, torch.zeros(2, 3)) is None
    assert continuation(Cliff(terminates=False), torch.zeros(2, 1)) is None


def test_survival_is_a_product_of_what_came_before() -> None:
    before, after = survival(torch.tensor([[0.5], [0.0], [1.0]]))
    assert before.tolist() == [[1.0], [0.5], [0.0]] and after.tolist() == [0.0]


@pytest.mark.parametrize("name", [name for name in PLANNERS if name not in ("random", "random_policy")])
def test_every_planner_stays_before_the_edge_and_goes_over_it_where_nothing_ends(name: str) -> None:
    start = torch.tensor([[0.0], [0.7]])
    ends = {}
    for terminates in (True, False):
        world, planner = Cliff(terminates=terminates), PLANNERS[name]
        plan = planner.plan(world, start, generator=torch.Generator().manual_seed(0), iterations=60)
        state, furthest = start, start
        for k in range(2):
            state = world.step(state, plan.mean[:, k])
            furthest = torch.maximum(furthest, state)
        ends[terminates] = furthest[:, 0]
    assert (ends[True] < 1.05).all(), ends
    assert ends[False][1] > 1.05, ends


def test_sampled_trajectories_are_worth_what_planners_say() -> None:
    """Local controllers are judged by what they are improved by: rewards count while the episode is under way."""
    world = ControlSpace(Cliff())
    controls = torch.randn(2, 3, 6, 2, generator=torch.Generator().manual_seed(0))
    start = torch.tensor([[0.0], [0.9]])
    states = [start[:, None].expand(-1, 3, -1)]
    for t in range(6):
        states.append(world.step(states[-1].flatten(0, 1), controls[:, :, t].flatten(0, 1)).unflatten(0, (2, 3)))
    expected = score_by_steps(world, start, controls)
    expected = expected - world.discount**6 * _last_value(world, torch.stack(states[1:], 2))
    torch.testing.assert_close(returns(world, Paths(torch.stack(states, 2), controls)), expected)


def _last_value(world: ControlSpace, arrivals: Tensor) -> Tensor:
    return world.value(arrivals[:, :, -1]) * world.continues(arrivals).prod(-1)


def test_returns_are_summed_in_float32_whatever_products_are_made_in() -> None:
    class Sum(torch.nn.Module):
        def predict(self, latent: Tensor, action: Tensor) -> Tensor:
            return latent + 0.02 * action

    class First(Head):
        def __init__(self) -> None:
            super().__init__()
            self.net = torch.nn.Sequential()

        def read(self, outputs: Tensor) -> Tensor:
            return outputs[..., 0]

        def loss(self, latent: Tensor, target: Tensor) -> Tensor:
            return torch.zeros_like(target)

    parts = {"dynamics": Sum(), "reward": First(), "value": None, "actor": None, "action_dim": 1, "discount": 0.99}
    start, actions = torch.ones(1, 1), torch.rand(1, 64, 12, 1)
    with torch.no_grad():
        few, many = (
            LatentSimulator(**parts, precision=bits).returns(start, actions) for bits in (torch.bfloat16, torch.float32)
        )
    torch.testing.assert_close(few, many)
