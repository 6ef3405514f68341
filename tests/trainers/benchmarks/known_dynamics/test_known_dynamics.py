"""The exact models move as dm_control does, and a planner swings up with them."""

import numpy as np
import pytest
import torch
from dm_control import suite

from trainers.benchmarks import swing_up
from trainers.benchmarks.known_dynamics.cartpole import Cartpole
from trainers.benchmarks.known_dynamics.control import control
from trainers.benchmarks.known_dynamics.pendulum import Pendulum
from trainers.command.configuration import BadConfig
from worldmodel.planners.icem import ICEM


@pytest.mark.parametrize(("domain", "model"), [("cartpole", Cartpole(repeat=1)), ("pendulum", Pendulum(repeat=1))])
def test_states_follow_the_suite_s(domain: str, model) -> None:
    environment = suite.load(domain, "swingup", task_kwargs={"random": 1})
    environment.reset()
    rng, latent = np.random.default_rng(0), model.observe(environment.physics)
    for _ in range(100):
        action = rng.uniform(-1, 1, 1)
        environment.step(action)
        latent = model.step(latent, torch.from_numpy(action)[None])
        torch.testing.assert_close(latent, model.observe(environment.physics), rtol=1e-4, atol=1e-4)


def test_cartpole_s_reward_is_the_suite_s() -> None:
    model = Cartpole(repeat=1)
    environment = suite.load("cartpole", "swingup", task_kwargs={"random": 1})
    environment.reset()
    for action in np.random.default_rng(0).uniform(-1, 1, (50, 1)):
        reward = environment.step(action).reward
        assert model.reward(model.observe(environment.physics)).item() == pytest.approx(reward, abs=1e-6)


def test_icem_gets_the_pole_up() -> None:
    planner = ICEM(horizon=20, candidates=48, elites=6, iterations=2, beta=1.0)
    played = control(Cartpole(repeat=5), planner, domain="cartpole", task="swingup", seed=0, control_steps=400)
    assert played.total_return > 150 and played.decision_ms > 0


def test_an_episode_repeats_and_noise_changes_it() -> None:
    planner = ICEM(horizon=3, candidates=8, elites=4, iterations=1)

    def played(noise_std: float | None) -> np.ndarray:
        arguments = {"domain": "cartpole", "task": "swingup", "seed": 3, "control_steps": 24}
        return control(Cartpole(repeat=8), planner, **arguments, noise_std=noise_std).actions

    actions = played(None)
    assert actions.shape == (3, 1) and np.abs(actions).max() <= 1
    assert np.array_equal(actions, played(None))
    assert not np.allclose(actions, played(0.5)) and np.abs(played(0.5)).max() <= 1


def test_the_benchmark_names_what_it_does_not_know() -> None:
    with pytest.raises(BadConfig, match="planners: expected some of cem"):
        swing_up.measure(task="cartpole", planners="cem,sem", episodes=1, steps=10)


@pytest.mark.parametrize(("task", "planners"), [("pendulum", "icem"), ("cartpole", "cem_gradient,mppi")])
def test_the_benchmark_has_a_row_for_every_planner(task: str, planners: str) -> None:
    rows = swing_up.measure(task=task, planners=planners, episodes=1, steps=4)["rows"]
    assert ",".join(row["planner"] for row in rows) == planners
    assert all(0 <= row["return"] < 4 and row["decision_ms"] > 0 for row in rows)
