"""Algorithms 23 to 25: closed forms on a linear system, and what tells the versions apart, on the one agent."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.conftest import window
from tests.rigs.riccati import regulator
from worldmodel.agents.latent_mpc import Decision, LatentMPC
from worldmodel.dynamics.observed_state import ObservedState
from worldmodel.dynamics.state_linear import StateLinear
from worldmodel.dynamics.state_mlp import StateMLP
from worldmodel.encoders.identity import IdentityEncoder
from worldmodel.heads.cartpole_swingup import CartpoleSwingup
from worldmodel.heads.head import Head
from worldmodel.interfaces import Batch
from worldmodel.objectives.none import NoObjective
from worldmodel.observations import ObservationEncoder, ObservationNorm, VectorNorm
from worldmodel.planners.cem import CEM
from worldmodel.planners.ilqr import ILQR

A = torch.tensor([[1.0, 0.1], [-0.2, 0.9]], dtype=torch.float64)
B = torch.tensor([[0.0], [0.1]], dtype=torch.float64)
Q, R = torch.eye(2, dtype=torch.float64), 0.1 * torch.eye(1, dtype=torch.float64)


class Quadratic(Head):
    """-½ (s'ᵀQs' + aᵀRa) of latents (s', a)."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential()

    def read(self, outputs: Tensor) -> Tensor:
        state, action = outputs[..., :2], outputs[..., 2:]
        q, r = Q.to(state.dtype), R.to(state.dtype)
        return -0.5 * (((state @ q) * state).sum(-1) + ((action @ r) * action).sum(-1))

    def loss(self, latent: Tensor, target: Tensor) -> Tensor:
        return torch.zeros_like(target)


def agent_of(planner: object, replan: int = 1, dynamics: ObservedState | None = None) -> LatentMPC:
    dynamics = dynamics or StateLinear(embed_dim=2, action_dim=1).double()
    encoder = ObservationEncoder({"s": IdentityEncoder(size=2)})
    return LatentMPC(
        norm=ObservationNorm({"s": VectorNorm(2, measured=False)}).double(),
        encoder=encoder,
        decoder=None,
        objective=NoObjective(encoder=encoder, dynamics=dynamics),
        dynamics=dynamics,
        reward=Quadratic(),
        policy=None,
        planner=planner,
        action_dim=1,
        discount=1.0,
        replan=replan,
    )


def transitions(count: int) -> Batch:
    """As windows [count, 2] of random states and what A and B make of them."""
    state, action = torch.randn(count, 2).double(), torch.rand(count, 1).double() * 2 - 1
    rows = torch.stack([state, state @ A.T + action @ B.T], 1)
    return replace(window(torch.stack([torch.zeros_like(action), action], 1)), observation={"s": rows})


def fitted(agent: LatentMPC, count: int = 50) -> LatentMPC:
    agent.fit_at_once(transitions(count))
    return agent


def test_exactly_enough_data_identify_a_linear_system() -> None:
    agent = agent_of(ILQR(horizon=2))
    model = agent.dynamics
    fitted(agent, 4)  # as many as unknowns of a row: A, B, c
    assert torch.allclose(model.weight.T[:, :2], A, atol=1e-9)
    assert torch.allclose(model.weight.T[:, 2:3], B, atol=1e-9)
    assert model.weight[3].abs().max() < 1e-9
    too_few = transitions(3)
    agent.fit_at_once(too_few)
    assert not torch.allclose(model.weight.T[:, :2], A, atol=1e-3)
    assert float(model.one_step_error(too_few.observation["s"], too_few)) < 1e-9


def test_transitions_are_rows_that_follow_one_another_in_an_episode() -> None:
    """Windows of any length teach the same, and what lies between two episodes teaches nothing."""
    agent = agent_of(ILQR(horizon=2))
    state, rows, actions = torch.randn(2).double(), [], torch.rand(9, 1).double() * 2 - 1
    for t in range(9):
        state = torch.randn(2).double() if t in (0, 5) else A @ state + B @ actions[t]
        rows.append(state)
    is_first = torch.zeros(1, 9, dtype=torch.bool)
    is_first[0, [0, 5]] = True
    batch = replace(window(actions[None], is_first), observation={"s": torch.stack(rows)[None]})
    agent.fit_at_once(batch)
    assert torch.allclose(agent.dynamics.weight.T[:, :2], A, atol=1e-6)
    belief = agent.observe(batch)
    assert torch.equal(belief.latent[0, :, :2], torch.stack(rows)) and (belief.latent[0, [0, 5], 2] == 0).all()
    expected = agent.dynamics.predict(belief.latent[:, :4], batch.action[:, 1:5])
    assert torch.allclose(expected, belief.latent[:, 1:5], atol=1e-6)


def test_a_number_that_never_changed_in_the_data_may_change_later() -> None:
    model, state, action = StateMLP(embed_dim=3, action_dim=1), torch.randn(200, 3), torch.rand(200, 1)
    state[:, 1:] = torch.tensor([0.0, 12.3])
    following = state + torch.cat([torch.rand(200, 1), torch.zeros(200, 2)], 1)
    model.fit(state, action, following)
    torch.nn.init.normal_(model.net[-1].weight, std=0.1)
    with torch.no_grad():
        as_ever = model.step(state, action)
        touched = model.step(state + torch.tensor([0.0, 1.0, 1.0]), action)
    assert (as_ever - state).abs().max() < 3 and (touched - state)[:, 0].abs().max() < 3
    torch.testing.assert_close(model.std[0], state[:, 0].std())


def test_the_error_of_what_never_changed_under_the_base_policy_is_in_its_own_unit() -> None:
    agent, batch = agent_of(ILQR(horizon=2)), transitions(50)
    rows = torch.full_like(batch.observation["s"], 0.5)
    rows[:, 0, 0] = torch.randn(50)
    rows[:, 1, 0] = 0.9 * rows[:, 0, 0] + 0.1 * batch.action[:, 1, 0]
    agent.fit_at_once(replace(batch, observation={"s": rows}))
    assert agent.dynamics.one_step_error(rows, batch) < 1e-9
    later = rows.clone()
    later[:, 1, 1] += 2.0  # in one of two numbers
    assert float(agent.dynamics.one_step_error(later, batch)) == pytest.approx(2**0.5)


def test_the_loss_is_the_mean_over_transitions() -> None:
    model = StateMLP(embed_dim=2, action_dim=1)
    batch, is_first = transitions(6), torch.zeros(6, 2, dtype=torch.bool)
    is_first[:, 0] = True
    is_first[3:, 1] = True
    rows = {"s": batch.observation["s"].float()}
    batch = replace(batch, action=batch.action.float(), is_first=is_first, observation=rows)
    belief = model.observe(batch.observation["s"], batch.action, is_first, torch.zeros(6, 0), sample=False)
    change = (batch.observation["s"][:3, 1] - batch.observation["s"][:3, 0]).square().mean()
    assert float(belief.mean(model.losses(belief, batch)["dynamics"]).detach()) == pytest.approx(
        float(change), rel=1e-5
    )


def riccati(horizon: int) -> list[Tensor]:
    """Feedback gains of the finite horizon, first decision first, for costs of arriving states."""
    transition, drift, slope = torch.cat([A, B], 1), torch.zeros(2).double(), torch.zeros(3).double()
    V, cost, gains = torch.zeros(2, 2).double(), torch.block_diag(torch.zeros(2, 2).double(), R), []
    for _ in range(horizon):
        step = regulator(transition, drift, cost, slope, V + Q, torch.zeros(2).double())
        V, gains = step.V, [step.K, *gains]
    return gains


def act(agent: LatentMPC, state: Tensor, carry: object = None, **options: object) -> Decision:
    first = torch.full((len(state),), carry is None)
    return agent.act({"s": state}, first, carry or agent.initial_carry(len(state)), **options)


def test_mpc_through_the_fitted_model_is_the_lqr_controller() -> None:
    agent, gains = fitted(agent_of(ILQR(horizon=8, iterations=5)), 4), riccati(8)
    state = 0.2 * torch.randn(5, 2).double()
    decision = act(agent, state)
    assert torch.allclose(decision.action, state @ gains[0].T, atol=1e-6)
    after = state @ A.T + decision.action @ B.T
    # the open loop continues with the gains of a shorter horizon, a new plan begins with the first one again
    assert torch.allclose(decision.carry.plan[:, 0], after @ gains[1].T, atol=1e-6)
    assert torch.allclose(act(agent, after, decision.carry).action, after @ gains[0].T, atol=1e-6)


def play(agent: LatentMPC, *, rows: int, steps: int = 12, push: float = 0.0) -> tuple[list[Decision], float]:
    """The decisions of episodes side by side, and their mean return; every row has noise of its own."""
    starts = [np.random.default_rng(row) for row in range(rows)]
    state = torch.from_numpy(np.stack([rng.uniform(-1, 1, 2) for rng in starts]))
    generators = [torch.Generator().manual_seed(row) for row in range(rows)]
    decisions, total, carry = [], 0.0, None
    for _ in range(steps):
        decisions.append(act(agent, state, carry, generator=generators))
        carry = decisions[-1].carry
        noise = torch.from_numpy(np.stack([rng.standard_normal(2) for rng in starts]))
        state = state @ A.T + carry.action @ B.T + push * noise
        total += float(Quadratic()(torch.cat([state, carry.action], -1)).mean())
    return decisions, total


def test_without_surprises_open_loop_and_mpc_agree_and_with_them_mpc_is_better() -> None:
    def cost(replan: int, push: float) -> float:
        return -play(fitted(agent_of(ILQR(horizon=12, iterations=2), replan)), rows=32, push=push)[1]

    assert cost(1, 0.0) == pytest.approx(cost(12, 0.0), rel=0.02)
    assert cost(1, 0.3) < 0.9 * cost(12, 0.3)


SEARCH = CEM(horizon=6, candidates=8, elites=2, iterations=2, policy_candidates=0)


@pytest.mark.parametrize("replan", [1, 3, 6])
def test_an_agent_plans_anew_after_replan_actions_and_executes_its_plan_until_then(replan: int) -> None:
    decisions, _ = play(fitted(agent_of(SEARCH, replan)), rows=2)
    planned = [t for t, decision in enumerate(decisions) if not decision.predicted_return.isnan().any()]
    assert planned == list(range(0, 12, replan))
    for t, decision in enumerate(decisions):
        if t % replan:
            assert torch.equal(decision.action, decisions[t - t % replan].carry.plan[:, t % replan - 1])


def test_a_plan_is_continued_by_what_was_left_of_it() -> None:
    agent, warm = fitted(agent_of(CEM(horizon=6, candidates=8, elites=2, policy_candidates=0), 4)), []
    plan = agent.planner.plan
    agent.planner.plan = lambda *args, **kw: (warm.append(kw["warm"]), plan(*args, **kw))[1]  # type: ignore[method-assign]
    decisions, _ = play(agent, rows=1, steps=5)
    first = decisions[0].carry.plan[0]  # already without the action that was executed
    assert len(warm) == 2 and warm[0].isnan().all()
    assert torch.equal(warm[1][0, :2], first[3:5]) and (warm[1][0, 2:] == first[-1]).all()


def test_replan_beyond_the_plan_is_refused() -> None:
    with pytest.raises(ValueError, match=r"replan: expected 1 to planner.horizon=6, got 7"):
        agent_of(SEARCH, 7)


def test_rows_that_open_episodes_at_different_times_do_not_depend_on_each_other() -> None:
    """A row plans when it is due, with its own noise, whatever the other row does."""
    agent, states = fitted(agent_of(SEARCH, 3)), torch.randn(7, 2, 2).double()

    def run(rows: list[int], opens: int) -> list[Tensor]:
        generators = [torch.Generator().manual_seed(row) for row in rows]
        carry, actions = agent.initial_carry(len(rows)), []
        for t in range(7):
            first = torch.tensor([t == (opens if row == 1 else 0) for row in rows])
            carry = agent.act({"s": states[t, rows]}, first, carry, generator=generators).carry
            actions.append(carry.action[-1])
        return actions

    together, alone = run([0, 1], 2), run([1], 2)
    assert torch.allclose(torch.stack(together), torch.stack(alone), atol=1e-6)


def test_a_perceptron_learns_what_data_show_and_its_error_grows_where_they_show_nothing() -> None:
    torch.manual_seed(1)
    model = StateMLP(embed_dim=2, action_dim=1, hidden=64)

    def rows(offset: float) -> tuple[Tensor, Tensor, Tensor]:
        state, action = torch.randn(500, 2) + offset, torch.rand(500, 1) * 2 - 1
        following = state + 0.1 * torch.cat([state[:, 1:], torch.sin(2 * state[:, :1]) + action], -1)
        batch = window(torch.stack([torch.zeros_like(action), action], 1))
        return torch.stack([state, following], 1), action, batch

    seen, _, batch = rows(0.0)
    model.fit_at_once(seen, batch)
    change = seen[:, 1] - seen[:, 0]
    before = float((change / change.std(0)).square().mean().sqrt())
    assert float(model.one_step_error(seen, batch)) == pytest.approx(before, rel=1e-5)  # no change is predicted yet
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(200):
        loss = model.error(seen[:, 0], batch.action[:, 1], seen[:, 1]).mean()
        optimizer.zero_grad(), loss.backward(), optimizer.step()
    far, _, other = rows(4.0)
    errors = [float(model.one_step_error(*pair)) for pair in ((seen, batch), (far, other))]
    assert errors[0] < 0.15 and errors[1] > 5 * errors[0]
    unit = model.unit.clone()
    model.fit_at_once(far, other)
    assert torch.equal(model.unit, unit), "errors are counted in changes under the base policy, whose data came first"


def test_the_written_reward_is_largest_for_a_pole_that_stands_still_in_the_middle() -> None:
    known = CartpoleSwingup(latent_dim=6, scale=8.0)
    best = torch.tensor([0.0, 1.0, 0.0, 0.0, 0.0, 0.0])
    assert float(known(best)) == 8.0
    worse = best + torch.tensor(
        [[1.0, 0, 0, 0, 0, 0], [0, -2.0, 0, 0, 0, 0], [0, 0, 0, 0, 5.0, 0], [0, 0, 0, 0, 0, 1.0]]
    )
    assert known(worse).tolist() == pytest.approx([8 * (1 + 0.1**0.25) / 2, 0.0, 8 * 0.55, 8 * 0.8])
    with pytest.raises(ValueError, match="heads"):
        CartpoleSwingup(latent_dim=5, scale=1.0)
