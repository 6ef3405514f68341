import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from datamodules.envs import dmc, gl
from datamodules.envs.checks import checked_action
from datamodules.envs.errors import BadAction, BadOption, MissingGL, UnknownTask
from datamodules.envs.pool import EnvPool
from datamodules.envs.protocol import Fault

ROOT = Path(__file__).parents[3]
SIZE, SEED, REPEAT = 32, 5, 6
BENCHMARKS = ("cartpole_swingup", "cheetah_run", "reacher_easy")


@pytest.fixture(scope="module")
def facts(tmp_path_factory):
    out = tmp_path_factory.mktemp("dmc") / "facts.npz"
    script = Path(__file__).with_name("dmc_facts.py")
    run = subprocess.run(
        [sys.executable, str(script), str(out)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=False,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return dict(np.load(out))


@pytest.mark.parametrize("task", BENCHMARKS)
def test_rewards_are_the_sums_of_dm_controls_own(facts, task):
    own, ours = facts[f"{task}/own/rewards"], facts[f"{task}/ours/reward"]
    assert len(own) == 1000
    np.testing.assert_allclose(ours[1:], np.add.reduceat(own, range(0, 1000, REPEAT)), rtol=1e-12)
    assert ours[0] == 0


@pytest.mark.parametrize("task", BENCHMARKS)
def test_benchmark_episodes_end_by_truncation(facts, task):
    rows = {key: facts[f"{task}/ours/{key}"] for key in ("is_first", "is_last", "is_terminal", "env_steps")}
    assert facts[f"{task}/own/discount"] == 1
    assert rows["is_last"].nonzero()[0].tolist() == [-(-1000 // REPEAT)]
    assert rows["is_first"].nonzero()[0].tolist() == [0]
    assert not rows["is_terminal"].any()
    assert rows["env_steps"].tolist() == [0, *[REPEAT] * (1000 // REPEAT), 1000 % REPEAT]


@pytest.mark.parametrize("task", BENCHMARKS)
def test_same_seed_same_episode_bit_for_bit(facts, task):
    for key in ("pixels", "reward"):
        ours, again = facts[f"{task}/ours/{key}"][:21], facts[f"{task}/again/{key}"]
        np.testing.assert_array_equal(ours, again)
    assert (facts[f"{task}/ours/pixels"][:21] != facts[f"{task}/other/pixels"]).any()


@pytest.mark.parametrize("task", BENCHMARKS[:2])
def test_pool_equals_in_process_bit_for_bit(facts, task):
    actions = np.random.default_rng(0).uniform(-1.0, 1.0, (20, _dims(task))).astype(np.float32)
    kwargs = {"task": task, "size": SIZE, "action_repeat": REPEAT, "look": "fast"}
    with EnvPool(source="dmc", kwargs=kwargs, count=1) as pool:
        rows = [pool.reset({0: SEED})[0], *(pool.step({0: action})[0] for action in actions)]
        assert pool.spec.action_dim == _dims(task)
    np.testing.assert_array_equal([row.pixels for row in rows], facts[f"{task}/again/pixels"])
    np.testing.assert_array_equal([row.reward for row in rows], facts[f"{task}/again/reward"])


def _dims(task):
    return {"cartpole_swingup": 1, "cheetah_run": 6, "reacher_easy": 2}[task]


def test_termination_is_reported_and_stops_the_repeat(facts):
    assert facts["lqr/flags"].tolist() == [True, True]
    assert facts["lqr/env_steps"] == 1
    assert facts["lqr/terminates"].tolist() == [True, False]
    assert facts["lqr/limit"] == dmc.ENDLESS_STEPS


def test_unlimited_actuators_take_the_action_itself(facts):
    assert facts["lqr/controls"].tolist() == [0.0, 1.0]


def test_controls_reach_both_bounds():
    middle, half = dmc.control_range(np.array([-1.0, 0.0, -3.0, -np.inf]), np.array([1.0, 5.0, 1.0, 1e10]))
    np.testing.assert_array_equal(middle - half, [-1, 0, -3, -1])
    np.testing.assert_array_equal(middle + half, [1, 5, 1, 1])


def test_suite_look_is_dm_controls_own_picture_and_fast_is_near_it(facts):
    own = facts["cartpole_swingup/own/first"].transpose(2, 0, 1).astype(float)
    np.testing.assert_array_equal(facts["look/suite"], own)
    error = np.abs(facts["cartpole_swingup/ours/pixels"][0] - own).mean()
    assert 0 < error < 12, error


def test_frames_are_upright_and_large_ones_show_the_same_scene(facts):
    big = facts["look/big"]
    assert big.shape == (200, 200, 3)
    small = big[:192, :192].reshape(32, 6, 32, 6, 3).mean((1, 3))
    same = np.corrcoef(small.ravel(), facts["look/suite"].transpose(1, 2, 0).ravel())[0, 1]
    flipped = np.corrcoef(small[::-1].ravel(), facts["look/suite"].transpose(1, 2, 0).ravel())[0, 1]
    assert same > 0.6 and same > flipped, (same, flipped)


def test_auto_is_fast_in_software_and_the_suites_own_look_on_a_gpu(facts):
    here, on_a_gpu = facts["look/auto"]
    assert here == ("fast" if facts["look/software"] else "suite")
    assert on_a_gpu == "suite"


@pytest.mark.parametrize(
    ("renderer", "software"),
    [("llvmpipe (LLVM 15.0.6, 256 bits)", True), ("softpipe", True), ("NVIDIA H200/PCIe/SSE2", False)],
)
def test_software_renderers_are_known(renderer, software):
    assert gl.is_software(renderer) is software


TASKS = (("ball_in_cup", "catch"), ("cartpole", "swingup"), ("humanoid_CMU", "run"), ("humanoid", "run"))


@pytest.mark.parametrize(("domain", "name"), TASKS)
def test_domains_may_contain_underscores(domain, name):
    assert dmc.split_task(f"{domain}_{name}", TASKS) == (domain, name)


@pytest.mark.parametrize(
    ("task", "near"), [("cup_catch", "ball_in_cup_catch"), ("cartpole-swingup", "cartpole_swingup")]
)
def test_unknown_task_names_the_nearest_right_ones(task, near):
    with pytest.raises(UnknownTask, match=near):
        dmc.split_task(task, TASKS)


def test_errors_cross_the_process_as_their_own_type():
    with pytest.raises(UnknownTask, match="ball_in_cup_catch"):
        EnvPool(source="dmc", kwargs={"task": "cup_catch"}, count=1)


@pytest.mark.parametrize("options", [{"size": 8}, {"action_repeat": 0}, {"look": "pretty"}])
def test_bad_options_fail_before_mujoco_is_imported(options):
    with pytest.raises(BadOption, match=next(iter(options))):
        dmc.make(task="cartpole_swingup", **options)


def test_missing_gl_names_the_packages(monkeypatch):
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(gl, "_loads", lambda name: False)
    with pytest.raises(MissingGL, match=r"apt-get install -y libegl1 libgl1-mesa-dri.*libosmesa6"):
        gl.choose_backend(gpu=None)


def test_gl_that_does_not_start_is_missing_gl_too(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "bogus")
    with pytest.raises(MissingGL, match=r"apt-get.*bogus"):
        EnvPool(source="dmc", kwargs={"task": "cartpole_swingup"}, count=1)


@pytest.mark.parametrize("action", [[float("nan")], [float("inf")], [0.0, 0.0], 0.0])
def test_bad_actions_are_refused(action):
    with pytest.raises(BadAction):
        checked_action(action, action_dim=1)


def test_actions_are_clipped():
    np.testing.assert_array_equal(checked_action([3.0, -2.0, 0.5], action_dim=3), [1.0, -1.0, 0.5])


@pytest.mark.parametrize("task", ["cartpole_swingup", "dog_fetch", "lqr_lqr_2_1", "quadruped_walk", "quadruped_fetch"])
def test_default_cameras_show_the_agent(facts, task):
    assert (facts[f"shown/{task}"] > 0).all()


@pytest.mark.parametrize(
    ("task", "camera"),
    [
        *[("cartpole_swingup", None), ("dog_run", None), ("dog_fetch", 3), ("quadruped_run", 2)],
        *[("quadruped_fetch", 0), ("lqr_lqr_6_2", 1), ("package.module:lqr", None)],
    ],
)
def test_default_cameras_are_those_of_the_docs(task, camera):
    assert dmc.default_camera(task) == camera


def test_a_world_out_of_view_is_no_frozen_renderer():
    """A cart at the end of its track, whose pole turns beside the picture: forty states look the same."""
    play = {"task": "cartpole_balance", "size": 64, "look": "fast"}
    rows = []
    for frozen_frames in (20, 0):
        with EnvPool(source="dmc", kwargs=play, count=1, frozen_frames=frozen_frames) as pool:
            pool.reset({0: 0})
            rows.append([pool.step({0: np.array([0.3], np.float32)})[0] for _ in range(300)])
    assert not any(isinstance(row, Fault) for row in rows[0])
    same = [
        np.array_equal(one.observation["pixels"], two.observation["pixels"]) for one, two in zip(*rows, strict=True)
    ]
    assert all(same) and [row.reward for row in rows[0]] == [row.reward for row in rows[1]]


def test_a_renderer_that_stands_is_found():
    """In a process of its own, where a GL backend can still be chosen."""
    script = """
import numpy as np
from datamodules.envs import dmc
from datamodules.envs.errors import FrozenFrame
from datamodules.envs.worker import FrameWatch

env = dmc.make(task="cartpole_balance", size=64, look="fast")
step, data = env.reset(0), env.env.physics.data
before = data.qpos.copy(), data.xpos.copy()
assert env.draws_other_states() == {"pixels"}
assert np.array_equal(before[0], data.qpos) and np.array_equal(before[1], data.xpos)
still = env._images()
env._images = lambda: still
assert not env.draws_other_states()
watch = FrameWatch(env, blank_frames=0, frozen_frames=2)
try:
    for _ in range(60):
        watch.see(step.observation, step.observation, opens=False)
        env.step(np.ones(1, np.float32))
except FrozenFrame as error:
    print(error)
"""
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", script]
    run = subprocess.run(command, env=environ, capture_output=True, check=False, text=True, timeout=120)
    assert run.stdout == "the frame stayed the same in 3 different states\n", run.stderr[-3000:]
