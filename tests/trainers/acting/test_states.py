"""Algorithms 23 to 25: closed forms on a linear system, what tells the versions apart, and one real short run each."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules.envs.states import StateStep, dmc
from datamodules.transitions import StateEpisode, TransitionSet, transitions
from trainers import evaluate, fit
from trainers.acting.states import (
    BasePolicy,
    PlannedPolicy,
    imagined,
    kept_promises,
    one_step_error,
    play_states,
    unit_of,
)
from trainers.benchmarks.chapter import runs
from trainers.command.configuration import BadConfig
from trainers.process.clock import Clock
from trainers.run_folder.read import read_run
from worldmodel.agents.state_mpc import StateMPC
from worldmodel.interfaces import Transitions
from worldmodel.planners.cem import CEM
from worldmodel.planners.ilqr import ILQR
from worldmodel.planners.lqr import regulator
from worldmodel.rewards import Reward
from worldmodel.spec import StateSpec
from worldmodel.state_dynamics.linear import LinearDynamics
from worldmodel.state_dynamics.mlp import MLPDynamics

A = torch.tensor([[1.0, 0.1], [-0.2, 0.9]], dtype=torch.float64)
B = torch.tensor([[0.0], [0.1]], dtype=torch.float64)
Q, R = torch.eye(2, dtype=torch.float64), 0.1 * torch.eye(1, dtype=torch.float64)


class Quadratic(Reward):
    """-½ (s'ᵀQs' + aᵀRa)."""

    def forward(self, state: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        q, r = Q.to(state.dtype), R.to(state.dtype)
        return -0.5 * (((state @ q) * state).sum(-1) + ((action @ r) * action).sum(-1))

    def loss(self, state: torch.Tensor, action: torch.Tensor, reward: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(reward)


class LinearEnv:
    """s' = A s + B a, with a push that no model knows of, if asked for."""

    def __init__(self, steps: int = 12, push: float = 0.0) -> None:
        self.spec = StateSpec("linear", {"s": 2}, action_dim=1, action_repeat=1, episode_steps=steps)
        self.push, self.visited = push, 0

    def reset(self, seed: int) -> StateStep:
        self.rng, self.t = np.random.default_rng(seed), 0
        self.state = torch.from_numpy(self.rng.uniform(-1, 1, 2))
        return self._row(0.0)

    def step(self, action: np.ndarray) -> StateStep:
        a = torch.from_numpy(action).double()
        self.state = A @ self.state + B @ a + self.push * torch.from_numpy(self.rng.standard_normal(2))
        self.t += 1
        return self._row(float(Quadratic()(self.state, a)))

    def close(self) -> None:
        pass

    def _row(self, reward: float) -> StateStep:
        last = self.t == self.spec.episode_steps
        return StateStep(self.state.numpy().astype(np.float32), reward, last, False, int(self.t > 0))


def agent_of(planner: object, replan: int = 1, dynamics: object = None) -> StateMPC:
    dynamics = dynamics or LinearDynamics(state_dim=2, action_dim=1)
    return StateMPC(dynamics=dynamics, reward=Quadratic(), planner=planner, action_dim=1, replan=replan)


def random_rows(count: int) -> Transitions:
    state, action = torch.randn(count, 2).double(), torch.rand(count, 1).double() * 2 - 1
    return Transitions(state, action, state @ A.T + action @ B.T, torch.zeros(count).double())


def test_exactly_enough_data_identify_a_linear_system() -> None:
    model = LinearDynamics(state_dim=2, action_dim=1).double()
    rows = random_rows(4)  # as many as unknowns of a row: A, B, c
    model.begin_fit(rows.state, rows.action, rows.following)
    assert torch.allclose(model.weight.T[:, :2], A, atol=1e-9)
    assert torch.allclose(model.weight.T[:, 2:3], B, atol=1e-9)
    assert model.weight[3].abs().max() < 1e-9
    too_few = random_rows(3)
    model.begin_fit(too_few.state, too_few.action, too_few.following)
    assert not torch.allclose(model.weight.T[:, :2], A, atol=1e-3)
    assert model.loss(too_few.state, too_few.action, too_few.following).max() < 1e-18


def riccati(horizon: int) -> list[torch.Tensor]:
    """Feedback gains of the finite horizon, first decision first, for costs of arriving states."""
    transition, drift, slope = torch.cat([A, B], 1), torch.zeros(2).double(), torch.zeros(3).double()
    V, cost, gains = torch.zeros(2, 2).double(), torch.block_diag(torch.zeros(2, 2).double(), R), []
    for _ in range(horizon):
        step = regulator(transition, drift, cost, slope, V + Q, torch.zeros(2).double())
        V, gains = step.V, [step.K, *gains]
    return gains


def test_mpc_through_the_fitted_model_is_the_lqr_controller() -> None:
    agent = agent_of(ILQR(horizon=8, iterations=5), dynamics=LinearDynamics(state_dim=2, action_dim=1).double())
    rows = random_rows(4)
    agent.dynamics.begin_fit(rows.state, rows.action, rows.following)
    state = 0.2 * torch.randn(5, 2).double()
    decision = agent.act(state, None)
    gains = riccati(8)
    assert torch.allclose(decision.action, state @ gains[0].T, atol=1e-6)
    after = state @ A.T + decision.action @ B.T
    # the open loop continues with the gains of a shorter horizon, a new plan begins with the first one again
    assert torch.allclose(decision.carry.actions[:, 1], after @ gains[1].T, atol=1e-6)
    assert torch.allclose(agent.act(after, decision.carry).action, after @ gains[0].T, atol=1e-6)


def test_without_surprises_open_loop_and_mpc_agree_and_with_them_mpc_is_better() -> None:
    def cost(replan: int, push: float) -> float:
        agent = agent_of(ILQR(horizon=12, iterations=2), replan=replan)
        rows = random_rows(50)
        agent.dynamics.begin_fit(rows.state, rows.action, rows.following)
        policy = PlannedPolicy(agent, seeds=[1, 2, 3, 4], clock=Clock())
        episodes = play_states([LinearEnv(push=push) for _ in range(4)], policy, [5, 6, 7, 8])
        return -float(np.mean([e.total_return for e in episodes]))

    assert cost(1, 0.0) == pytest.approx(cost(12, 0.0), rel=0.02)
    assert cost(1, 0.3) < 0.9 * cost(12, 0.3)


@pytest.mark.parametrize("replan", [1, 3, 6])
def test_an_agent_plans_anew_after_replan_actions_and_executes_its_plan_until_then(replan: int) -> None:
    agent = agent_of(CEM(horizon=6, candidates=8, elites=2, iterations=1), replan=replan)
    policy = PlannedPolicy(agent, seeds=[0, 1], clock=Clock())
    plans: list[torch.Tensor] = []
    act = agent.act
    agent.act = lambda *args, **kwargs: (plans.append(d := act(*args, **kwargs)), d)[1]  # type: ignore[method-assign]
    episodes = play_states([LinearEnv(), LinearEnv()], policy, [3, 4])
    new = [t for t, decision in enumerate(plans) if decision.predicted_return is not None]
    assert new == list(range(0, 12, replan)) == [t for t, _ in episodes[1].promised]
    for t, decision in enumerate(plans):
        start = plans[t - t % replan].carry.actions
        assert torch.equal(decision.action, start[:, t % replan])
        assert np.allclose(episodes[0].action[t], decision.action[0].numpy())


def test_a_plan_is_continued_by_what_was_left_of_it() -> None:
    agent = agent_of(CEM(horizon=6, candidates=8, elites=2, iterations=1), replan=4)
    seen = {}
    plan = agent.planner.plan
    agent.planner.plan = lambda *args, warm, **kw: (seen.update(warm=warm), plan(*args, warm=warm, **kw))[1]  # type: ignore[method-assign]
    state, carry, actions = torch.zeros(1, 2), None, None
    for t in range(5):
        decision = agent.act(state, carry)
        actions = decision.carry.actions if t == 0 else actions
        carry = decision.carry
    assert torch.equal(seen["warm"][0, :2], actions[0, 4:]) and (seen["warm"][0, 2:] == actions[0, -1]).all()


def test_replan_beyond_the_plan_is_refused() -> None:
    with pytest.raises(ValueError, match=r"replan: expected 1 to planner.horizon=6, got 7"):
        agent_of(CEM(horizon=6, candidates=8, elites=2), replan=7)


def test_rows_of_a_batch_do_not_depend_on_each_other() -> None:
    agent = agent_of(CEM(horizon=6, candidates=8, elites=2, iterations=2), replan=2)
    two = play_states([LinearEnv(), LinearEnv()], PlannedPolicy(agent, seeds=[0, 1], clock=Clock()), [3, 4])
    one = play_states([LinearEnv()], PlannedPolicy(agent, seeds=[1], clock=Clock()), [4])
    assert np.allclose(two[1].state, one[0].state, atol=1e-6)


def test_a_perceptron_learns_what_data_show_and_its_error_grows_where_they_show_nothing() -> None:
    torch.manual_seed(1)
    model = MLPDynamics(state_dim=2, action_dim=1, hidden=64)
    state, action = torch.randn(500, 2), torch.rand(500, 1) * 2 - 1
    truth = lambda s, a: s + 0.1 * torch.cat([s[:, 1:], torch.sin(2 * s[:, :1]) + a], -1)  # noqa: E731
    seen = Transitions(state, action, truth(state, action), torch.zeros(500))
    model.begin_fit(seen.state, seen.action, seen.following)
    assert one_step_error(model, seen, unit_of(seen)) == pytest.approx(
        float(((seen.following - seen.state) / unit_of(seen)).square().mean().sqrt()), rel=1e-5
    )  # before any update no change is predicted
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(200):
        loss = model.loss(seen.state, seen.action, seen.following).mean()
        optimizer.zero_grad(), loss.backward(), optimizer.step()
    far = Transitions(state + 4, action, truth(state + 4, action), torch.zeros(500))
    errors = [one_step_error(model, rows, unit_of(seen)) for rows in (seen, far)]
    assert errors[0] < 0.15 and errors[1] > 5 * errors[0]


def test_promises_are_compared_over_the_planned_horizon_only() -> None:
    state, reward = np.zeros((5, 2), np.float32), np.array([1, 2, 4, 8], np.float32)
    episode = StateEpisode(state, np.zeros((4, 1), np.float32), reward, 4, 0, ((0, 5.0), (2, 7.0), (3, 100.0)))
    kept = kept_promises([episode], horizon=2, discount=0.5)
    assert kept == {"plan/predicted_return": 6.0, "plan/realised_return": (1 + 1 + 4 + 4) / 2}
    assert kept_promises([episode], horizon=5, discount=0.5) == {}


def test_what_a_model_expects_of_an_episode_is_what_a_true_model_sees() -> None:
    model = LinearDynamics(state_dim=2, action_dim=1)
    rows = random_rows(10)
    model.begin_fit(rows.state, rows.action, rows.following)
    (episode,) = play_states([LinearEnv()], BasePolicy(LinearEnv().spec, seeds=[0]), [1])
    assert np.allclose(imagined(model, episode).numpy(), episode.state, atol=1e-5)


def test_data_come_back_from_a_checkpoint_with_the_next_draw() -> None:
    env = LinearEnv()
    data = TransitionSet(seed=3)
    data.add(play_states([env], BasePolicy(env.spec, seeds=[0]), [1]))
    data.add(play_states([env], BasePolicy(env.spec, seeds=[1]), [2]))
    rows = data.all()
    assert len(data) == len(rows.reward) == 24
    assert not (rows.state[1:] == rows.following[:-1]).all(-1)[11]  # no transition leads from one episode to the next
    state = data.state_dict()
    other = TransitionSet(seed=0)
    other.load_state_dict(state)
    assert torch.equal(data.sample(5).state, other.sample(5).state)
    assert torch.equal(transitions(other.episodes).action, rows.action)


# --- dm_control ---------------------------------------------------------------------------------------------------


def test_the_suite_s_reward_is_the_one_written_down() -> None:
    from worldmodel.rewards.cartpole_swingup import CartpoleSwingup

    env = dmc.make(task="cartpole_swingup", action_repeat=1, episode_steps=60)
    assert env.spec.state == {"position": 3, "velocity": 2} and env.spec.state_dim == 5
    (episode,) = play_states([env], BasePolicy(env.spec, seeds=[0]), [1])
    known = CartpoleSwingup(state_dim=5, action_dim=1, repeat=1)
    told = known(torch.from_numpy(episode.state[1:]), torch.from_numpy(episode.action))
    assert np.allclose(told.numpy(), episode.reward, atol=1e-5)
    again = play_states([env], BasePolicy(env.spec, seeds=[0]), [1])[0]
    assert np.array_equal(again.state, episode.state) and len(episode.reward) == 60


SHORT = (
    *("+task.env.episode_steps=40", "task.env_steps=240", "data.base_episodes=2", "data.updates_per_episode=2"),
    *("planner.candidates=8", "planner.elites=2", "planner.iterations=1", "planner.horizon=5"),
    *("evaluation.final_episodes=2", "dynamics.hidden=16", "trainer.accelerator=cpu"),
)


def short_run(name: str, root: Path, *more: str) -> dict:
    return fit.main([f"experiment=chapter/{name}", *SHORT, *more, f"run_dir={root}"])


@pytest.fixture(autouse=True)
def no_film(monkeypatch: pytest.MonkeyPatch) -> None:
    from trainers.loops import states as loop

    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # one thread, as the fixture has set
    monkeypatch.setattr(loop, "write_film", lambda *_, **__: None)


def test_version_0_5_never_collects_again_and_versions_1_do(tmp_path: Path) -> None:
    results = {
        name: short_run(name, tmp_path / name, *more) for name, more in (("alg23", []), ("alg24", []), ("alg25", []))
    }
    for name, result in results.items():
        assert (result["env_steps"], result["episodes"], result["updates"]) == (240, 6, 12)
        assert result["base_episodes"] == (6 if name == "alg23" else 2)
        assert result["status"] == "finished" and len(result["returns"]) == 2
        rounds = read_run(tmp_path / name).metrics.get("error/own", np.empty(0))
        assert np.isfinite(rounds).sum() == (1 if name == "alg23" else 5)  # own episodes, and the evaluation
    states = {name: np.load(tmp_path / name / "episodes.npz")["collected_state"] for name in results}
    # the first episodes are the same, of the base policy; then each version goes its own way
    assert np.array_equal(states["alg23"][:2], states["alg24"][:2])
    assert np.array_equal(states["alg24"][:2], states["alg25"][:2])
    assert not np.allclose(states["alg23"][2:], states["alg24"][2:])
    assert json.loads((tmp_path / "alg25" / "results.json").read_text())["return_mean"] is not None
    assert (tmp_path / "alg25" / "report.html").exists()


def test_rounds_of_several_environments_have_no_more_base_episodes_than_asked(tmp_path: Path) -> None:
    wide = short_run("alg25", tmp_path / "wide", "data.envs=4", "data.base_episodes=6", "task.env_steps=400")
    narrow = short_run("alg23", tmp_path / "narrow", "data.envs=4")
    assert (wide["base_episodes"], wide["episodes"]) == (6, 10)
    assert (narrow["base_episodes"], narrow["episodes"], narrow["env_steps"]) == (6, 6, 240)


def test_no_base_episodes_are_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"data.base_episodes: expected a whole number of at least 1, got 0"):
        short_run("alg25", tmp_path / "run", "data.base_episodes=0")
    assert not (tmp_path / "run").exists()


def test_runs_of_other_settings_are_not_taken_for_those_asked_for(tmp_path: Path) -> None:
    begun = runs.ladders(["alg25"], tmp_path, seeds=1, overrides=SHORT)
    again = runs.ladders(["alg25"], tmp_path, seeds=1, overrides=SHORT)
    assert again["alg25"][0].results == begun["alg25"][0].results
    other = [*SHORT, "planner.horizon=6"]
    with pytest.raises(BadConfig, match=r"planner.horizon: expected 5 as in the run in .*alg25_0, got 6"):
        runs.ladders(["alg23", "alg25"], tmp_path, seeds=1, overrides=other)
    assert [path.name for path in tmp_path.iterdir()] == ["alg25_0"]  # nothing was started before it was refused


def test_a_run_continues_where_it_stopped_and_ends_as_if_it_had_not(tmp_path: Path) -> None:
    whole = short_run("alg25", tmp_path / "whole")
    short_run("alg25", tmp_path / "parts", "task.env_steps=160")
    parts = fit.main([f"resume={tmp_path / 'parts'}", "task.env_steps=240"])
    assert parts["returns"] == whole["returns"] and parts["updates"] == whole["updates"]
    again = evaluate.main([f"checkpoint={tmp_path / 'parts'}", "episodes=2"])
    assert again["returns"] == whole["returns"] and again["replan"] == 1
    swept = runs.replanning([read_run(tmp_path / "whole")], [1, 4], episodes=2)
    assert swept["1"] == [whole["return_mean"]] and swept["4"] != swept["1"]


def test_parts_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(BadConfig, match="agent: expected state_mpc with data=states"):
        fit.main(["agent=state_mpc"])
    with pytest.raises(BadConfig, match="agent: expected state_mpc with data=states"):
        fit.main(["data=states"])
