"""Targets by hand: one step, expansion in the model, and the weights of many depths."""

import pytest
import torch
from torch import Tensor, nn

from tests.rigs.lookup_world import Chain, LookupSimulator, random_steps
from worldmodel.actor_critics.actor_critic import ActorCritic
from worldmodel.latent_rows import Transitions
from worldmodel.value_targets.mve import ModelValueExpansion
from worldmodel.value_targets.steve import Steve, inverse_variance_weights
from worldmodel.value_targets.td import OneStep

CHAIN = Chain()


class Walker(ActorCritic):
    """Goes right at a bonus of 0.5 a decision; its members value state s as s + offset."""

    def __init__(self, *offsets: float) -> None:
        nn.Module.__init__(self)
        self.offsets = torch.tensor(offsets)

    def bonus(self, log_prob: Tensor) -> Tensor:
        return 0.5 + 0 * log_prob

    def act(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        zeros = latent.new_zeros(latent.shape[:-1])
        return zeros[..., None] + 1, self.bonus(zeros)

    def member_values(self, latent: Tensor) -> Tensor:
        state = latent.argmax(-1).float()
        return state + self.offsets.view(-1, *[1] * state.ndim)

    def actor_loss(self, latent, weight):
        raise NotImplementedError

    def groups(self):
        raise NotImplementedError


def row(state: int, action: float) -> Transitions:
    """The chain's transition of that state and action."""
    rows = CHAIN.transitions()
    match = (rows.latent.argmax(-1) == state) & (rows.action[:, 0] == action)
    return Transitions(*(getattr(rows, name)[match] for name in Transitions.__dataclass_fields__))


def test_one_step_bootstraps_unless_the_episode_ended() -> None:
    target, learner, rows = OneStep(), Walker(2.0, 2.0), CHAIN.transitions()
    after = rows.next_latent.argmax(-1).float()
    expected = torch.where(rows.continues > 0, rows.reward + 0.9 * (after + 2.0), rows.reward)
    torch.testing.assert_close(target(learner, CHAIN.simulator(), rows), expected)


def test_the_smaller_of_two_members_is_taken() -> None:
    assert Walker(1.0, -4.0).value(torch.eye(6)[:1]).item() == -4.0
    lows = {Walker(0.0, 1.0, 2.0, 3.0, 4.0).value(torch.eye(6)[:1]).item() for _ in range(200)}
    assert lows == {0.0, 1.0, 2.0, 3.0}  # never the largest, for another one is smaller


@pytest.mark.parametrize("depth", [1, 2])
def test_expansion_adds_imagined_rewards_and_bonuses(depth: int) -> None:
    got = ModelValueExpansion(depth=depth)(Walker(2.0, 2.0), CHAIN.simulator(), row(0, 1.0))
    # in state 1 after a reward of 0.01, then right: 0.02, 0.03
    by_hand = 0.01 + 0.9 * (0.5 + 0.02) + (0.81 * (0.5 + 0.03) if depth == 2 else 0.0)
    assert got.item() == pytest.approx(by_hand + 0.9 ** (depth + 1) * (1 + depth + 2.0), abs=1e-6)


def test_expansion_stops_where_the_episode_ends() -> None:
    deep = ModelValueExpansion(depth=4)
    assert deep(Walker(2.0, 2.0), CHAIN.simulator(), row(4, 1.0)).item() == pytest.approx(1.05)
    by_hand = 0.04 + 0.9 * (0.5 + 1.05)  # one decision before
    assert deep(Walker(2.0, 2.0), CHAIN.simulator(), row(3, 1.0)).item() == pytest.approx(by_hand)


def test_expansion_with_the_true_value_is_the_true_value_at_any_depth() -> None:
    """A policy's own Q is the fixed point of all targets in an exact model."""
    value = torch.zeros(CHAIN.states)
    for _ in range(100):
        for state in reversed(range(CHAIN.states - 1)):
            step = row(state, 1.0)
            after = int(step.next_latent.argmax())
            value[state] = 0.5 + float(step.reward) + 0.9 * float(step.continues) * value[after]

    class Exact(Walker):
        def member_values(self, latent: Tensor) -> Tensor:
            return torch.stack([latent @ value] * 2)

    rows, learner = CHAIN.transitions(), Exact(0.0)
    targets = [OneStep(), ModelValueExpansion(depth=3), Steve(depth=3)]
    first, *others = [target(learner, CHAIN.simulator(), rows) for target in targets]
    for other in others:
        torch.testing.assert_close(other, first, atol=1e-5, rtol=0)


def test_one_imagined_step_of_a_model_that_looks_the_buffer_up_is_the_recorded_one() -> None:
    steps, learner = random_steps(A=1), Walker(1.0, 3.0)
    simulator = LookupSimulator(steps, discount=0.9)
    after = simulator.step(steps.latent, steps.action)
    imagined = Transitions(steps.latent, steps.action, simulator.reward(after), simulator.continues(after), after)
    torch.testing.assert_close(OneStep()(learner, simulator, imagined), OneStep()(learner, simulator, steps))


def test_equal_variances_weigh_all_depths_alike() -> None:
    for variance in (0.0, 1e-30, 3.0, 1e30):
        weights = inverse_variance_weights(torch.full((4, 2), variance))
        torch.testing.assert_close(weights, torch.full((4, 2), 0.25))


def test_weights_are_inverse_to_the_variance() -> None:
    weights = inverse_variance_weights(torch.tensor([[1.0, 0.0], [2.0, 5.0], [4.0, 1e-3]]))
    torch.testing.assert_close(weights, torch.tensor([[4 / 7, 1.0], [2 / 7, 0.0], [1 / 7, 0.0]]))


def test_steve_is_the_weighted_mean_by_hand() -> None:
    """Members differ by 2: the variance of depth k is 0.81^(k + 1), so deeper targets weigh more."""
    got = Steve(depth=1, rollouts=1)(Walker(1.0, 3.0), CHAIN.simulator(), row(0, 1.0)).item()
    shallow, deep = 0.01 + 0.9 * (1 + 2.0), 0.01 + 0.9 * 0.52 + 0.81 * (2 + 2.0)
    share = (1 / 0.81) / (1 / 0.81 + 1 / 0.81**2)
    assert got == pytest.approx(share * shallow + (1 - share) * deep, abs=1e-5)
