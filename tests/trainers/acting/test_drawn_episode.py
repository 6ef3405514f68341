import numpy as np
import pytest

from datamodules.envs import dmc
from datamodules.trajectory import Trajectory
from trainers.acting.drawn_episode import SIDE, drawn_episode
from trainers.acting.evaluation import Evaluation
from trainers.build.environments import open_pool
from trainers.command.configuration import load_config

STEPS, SEED = 6, 17


@pytest.fixture
def evaluation() -> Evaluation:
    """Of an episode of states, by actions that matter."""
    env = dmc.make(task="cartpole_swingup", observe="state", action_repeat=8, episode_steps=8 * STEPS)
    actions = np.random.default_rng(0).uniform(-1, 1, (STEPS, 1)).astype(np.float32)
    rows = [(env.reset(SEED), np.zeros(1, np.float32)), *((env.step(action), action) for action in actions)]
    return Evaluation([1.0], [SEED], 8 * STEPS, STEPS, 0, [1.0], Trajectory.from_rows(rows), SEED)


def config(*overrides: str) -> dict:
    return load_config(["task=cartpole_swingup", f"+task.env.episode_steps={8 * STEPS}", *overrides])


def test_states_are_drawn_by_the_same_seed_and_actions(evaluation):
    frames = drawn_episode(config("task.env.observe=state", "render=fast"), evaluation)
    with open_pool(config(f"task.env.size={SIDE}", "render=fast"), 1) as pool:
        expected = [pool.reset({0: SEED})[0], *(pool.step({0: action})[0] for action in evaluation.filmed.action[1:])]
    assert np.array_equal(frames, [step.pixels.transpose(1, 2, 0) for step in expected])
    assert not np.array_equal(frames[0], frames[-1])


def test_nothing_is_drawn_where_images_are_seen_or_nothing_draws(evaluation, monkeypatch):
    assert drawn_episode(config(), evaluation) is None
    assert drawn_episode(load_config(["task=none", "data=offline"]), evaluation) is None
    monkeypatch.setenv("MUJOCO_GL", "no_such_backend")
    assert drawn_episode(config("task.env.observe=state"), evaluation) is None


def test_who_draws_does_not_say_that_the_state_is_not_read(capfd):
    pytest.importorskip("gymnasium")
    drawn = load_config(["task=gym:Pendulum-v1", "task.env.observe=state", f"task.env.episode_steps={STEPS}"])
    action = np.zeros((STEPS + 1, 1), np.float32)
    seen, steps = np.zeros((STEPS + 1, 3), np.float32), np.ones(STEPS + 1, np.int32)
    played = Trajectory({"state": seen}, action, action[:, 0], False, steps)
    frames = drawn_episode(drawn, Evaluation([1.0], [SEED], STEPS, STEPS, 0, [1.0], played, SEED))
    assert frames is not None and frames.shape == (STEPS + 1, SIDE, SIDE, 3)
    assert "not read" not in capfd.readouterr().err
