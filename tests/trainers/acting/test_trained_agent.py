import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from datamodules.envs.sources import open_env
from trainers import evaluate, load_agent
from trainers.acting.camera_frames import BadInput, CameraFrames
from trainers.acting.trained_agent import TrainedAgent
from trainers.build.agent import build_agent
from trainers.command.configuration import BadConfig, load_config
from worldmodel.spec import EnvSpec


@pytest.fixture(scope="module")
def agent(finished):
    return load_agent(str(finished))


def frames(count, size=16, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), np.uint8)


def played(agent, seed):
    """The return of an episode that the agent plays itself."""
    env = open_env(source="toy", kwargs={"size": 16, "episode_steps": 20, "random_goal": False})
    agent.reset()
    step, total = env.reset(seed), 0.0
    while not step.is_last:
        step = env.step(agent.act(step.pixels.transpose(1, 2, 0)))
        total += step.reward
    return total


def test_it_acts_as_well_as_the_evaluation_says(finished, agent):
    evaluated = evaluate.main([f"checkpoint={finished}", "episodes=2", "agent.act_with=actor"])
    actor = load_agent(finished, overrides=["agent.act_with=actor"])
    for seed, expected in zip(evaluated["episode_seeds"], evaluated["returns"], strict=True):
        assert played(actor, seed) == pytest.approx(expected, abs=1e-4)  # the actor's mode needs no noise
    assert played(agent, 3) == played(agent, 3)


def test_a_row_of_a_batch_is_an_episode_of_its_own(agent):
    seen = [frames(3, seed=t) for t in range(3)]
    agent.reset(batch=3)
    together = [agent.act(now) for now in seen]
    assert together[0].shape == (3, 2) and together[0].dtype == np.float32
    agent.reset(batch=3)
    np.testing.assert_array_equal(agent.act({"pixels": seen[0]}), together[0])
    agent.reset()
    alone = [agent.act(now[0]) for now in seen]
    np.testing.assert_allclose(alone, [action[0] for action in together], atol=1e-5)
    assert not np.allclose(together[0][0], together[0][1])


def test_memory_ends_with_the_episode(agent):
    seen = frames(2)
    agent.reset()
    first, second = agent.act(seen[0]), agent.act(seen[0])
    agent.reset()
    np.testing.assert_array_equal(agent.act(seen[0]), first)
    assert not np.array_equal(first, second)


def test_frames_of_another_size_are_resized(agent):
    small = frames(1)[0]
    agent.reset()
    expected = agent.act(small)
    agent.reset()
    np.testing.assert_allclose(agent.act(small.repeat(3, 0).repeat(2, 1)), expected, atol=1e-6)


def custom(**facts):
    spec = EnvSpec("x", action_dim=2, action_repeat=1, episode_steps=9, **facts)
    return TrainedAgent(build_agent(load_config(["experiment=smoke"]), spec).eval(), spec)


def test_actions_are_in_the_environments_units():
    unit, scaled = (
        custom(images={"pixels": (3, 16, 16)}, **bounds)
        for bounds in ({}, {"action_low": (0.0, -5.0), "action_high": (10.0, 3.0)})
    )
    scaled.agent.load_state_dict(unit.agent.state_dict())
    action = unit.act(frames(1)[0])
    np.testing.assert_allclose(scaled.act(frames(1)[0]), [5 + 5 * action[0], -1 + 4 * action[1]], rtol=1e-5)


def test_a_discrete_action_is_its_number():
    chosen = custom(images={"pixels": (3, 16, 16)}, discrete=True)
    assert chosen.act(frames(1)[0]) in (0, 1) and chosen.act(frames(1)[0]).dtype == np.int64


def test_images_and_vectors_by_name():
    robot = custom(images={"front": (3, 16, 16), "wrist": (3, 16, 16)}, vectors={"joints": 4})
    seen = {"joints": np.arange(4), "wrist": frames(1)[0], "front": frames(1, 20)[0]}
    assert robot.act(seen).shape == (2,)
    with pytest.raises(BadInput, match="observation: expected front, wrist, joints, got front"):
        robot.act({"front": seen["front"]})
    with pytest.raises(BadInput, match="observation: expected front, wrist, joints by name, got one array"):
        robot.act(seen["front"])
    with pytest.raises(BadInput, match=r"joints: expected 4 finite numbers, got int64 \[3\]"):
        robot.act({**seen, "joints": np.arange(3)})


STACKED = {"grayscale": {}, "action_repeat": {"count": 2}, "frame_stack": {"count": 3}, "time_limit": {"env_steps": 8}}
OTHERS = {"colour_jitter": {"strength": 0.5}, "resize": {"size": 32}, "frame_stack": {"count": 2}}


@pytest.mark.parametrize("visuals", [STACKED, OTHERS])
def test_camera_frames_are_seen_as_in_training(visuals):
    plain = {name: options for name, options in visuals.items() if name in ("action_repeat", "time_limit")}
    kwargs = {"size": 16, "episode_steps": 20, "random_goal": False}
    seen, drawn = (open_env(source="toy", kwargs=kwargs, visuals=options) for options in (visuals, plain))
    camera, rows = CameraFrames(seen.spec, seen.spec.visuals), []
    for seed in (3, 4):  # the stack begins anew
        rows = [(env.reset(seed), env) for env in (seen, drawn)]
        camera.reset(1, seed=seed)
        while True:
            (expected, _), (given, _) = rows
            frame = given.pixels.transpose(1, 2, 0)[None]
            np.testing.assert_array_equal(camera.see({"pixels": frame})["pixels"][0], expected.pixels)
            if given.is_last:
                break
            rows = [(env.step(np.array([0.7, -0.4], np.float32)), env) for _, env in rows]


def test_rows_of_a_batch_have_stacks_of_their_own():
    visuals = {"grayscale": {}, "frame_stack": {"count": 2}}
    agent = custom(images={"pixels": (2, 16, 16)}, visuals=visuals)
    agent.reset(batch=2)
    first, second = frames(2), frames(2, seed=1)
    together = [agent.act(first), agent.act(second)]
    agent.reset()
    np.testing.assert_allclose([agent.act(first[0]), agent.act(second[0])], [a[0] for a in together], atol=1e-5)
    stacked = TrainedAgent(agent.agent, agent.spec, visuals={})
    grey = np.rint(first[0] @ np.array([0.299, 0.587, 0.114], np.float32)).astype(np.uint8)
    np.testing.assert_allclose(stacked.act(np.stack([grey, grey], -1)), together[0][0], atol=1e-5)
    with pytest.raises(BadInput, match=r"pixels: expected uint8 \[height, width, 3\], got uint8 \[16, 16, 2\]"):
        agent.act(np.stack([grey, grey], -1))


@pytest.mark.parametrize(
    ("visuals", "message"),
    [
        ({"background": {}}, r"visuals\.background: .*; give frames as the agent sees them, with visuals=\{\}"),
        ({"frame_stack": {"count": 3}, "action_repeat": {}}, "visuals: expected action_repeat before frame_stack"),
    ],
)
def test_options_that_need_more_than_frames_are_refused(visuals, message):
    with pytest.raises(BadInput, match=message):
        custom(images={"pixels": (9, 16, 16)}, visuals=visuals)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.zeros((16, 16, 3)), r"pixels: expected uint8 \[height, width, 3\], got float64 \[16, 16, 3\]"),
        (np.zeros((0, 16, 3), np.uint8), r"pixels: expected uint8 \[height, width, 3\], got uint8 \[0, 16, 3\]"),
        (np.zeros((3, 16, 16), np.uint8), r"pixels: expected uint8 \[height, width, 3\], got uint8 \[3, 16, 16\]"),
    ],
)
def test_other_frames_are_refused(agent, wrong, message):
    agent.reset()
    with pytest.raises(BadInput, match=message):
        agent.act(wrong)
    agent.reset(batch=2)
    with pytest.raises(BadInput, match="pixels: expected 2 rows as reset, got 3"):
        agent.act(frames(3))


def test_seeds_and_batches_are_whole_numbers(agent):
    with pytest.raises(BadInput, match="batch: expected a whole number of at least 1, got 0"):
        agent.reset(batch=0)
    with pytest.raises(BadInput, match="seed: expected a whole number of at least 0, got -1"):
        TrainedAgent(agent.agent, agent.spec, seed=-1)


def test_from_the_runs_files_alone(finished, tmp_path):
    for name in ("config.yaml", "spec.json"):
        shutil.copy(finished / name, tmp_path / name)
    shutil.copytree(finished / "checkpoints", tmp_path / "checkpoints")
    assert load_agent(tmp_path).act(frames(1)[0]).shape == (2,)
    facts = json.loads((tmp_path / "spec.json").read_text())
    assert EnvSpec.from_json(facts).action_dim == 2 and "action_low" in facts
    with pytest.raises(BadConfig, match="run: expected a run folder"):
        load_agent(tmp_path / "no")


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "meta"])
def test_a_device_that_is_not_there_is_refused_by_its_key(finished, device):
    with pytest.raises(BadConfig, match=f"device: expected cpu or what torch finds on this machine, got '{device}'"):
        load_agent(finished, device=device)


def test_overrides_that_are_no_list_are_not_read_letter_by_letter(finished):
    with pytest.raises(BadInput, match=r"overrides: expected a list of texts .*, got 'planner\.horizon=3'"):
        load_agent(finished, overrides="planner.horizon=3")


def test_what_only_acts_loads_neither_lightning_nor_the_compiler(finished):
    code = (
        "import sys, trainers.acting.evaluate_checkpoint, trainers.bundle.export\n"
        "import trainers.deployment.controller\n"
        f"from trainers import load_agent\nload_agent({str(finished)!r})\n"
        "print({'pytorch_lightning', 'torchvision', 'torch._dynamo', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "set()\n"), done.stderr
