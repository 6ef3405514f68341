import dataclasses

import numpy as np
import pytest
import torch

from tests.rigs.tiny_bundle import HIGH, LOW, SPEC, tiny_bundle
from trainers.deployment.controller import Controller
from trainers.deployment.lerobot_policy import BadBatch, LeRobotPolicy


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_bundle(tmp_path_factory.mktemp("b") / "b")


def batch(t, rows=2, size=16):
    frames = np.random.default_rng(t).integers(0, 256, (rows, 3, size, size), np.uint8)
    return {"observation.images.top": torch.from_numpy(frames).float() / 255, "task": ["go"] * rows}


def test_rows_are_controllers_of_their_own(folder):
    policy, alone = LeRobotPolicy(folder), Controller(folder, planner="inline", budget_s=60.0)
    for t in range(3):
        actions = policy.select_action(batch(t))
        assert actions.shape == (2, 2) and actions.dtype == torch.float32
        frame = (batch(t)["observation.images.top"][0] * 255).round().byte().permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(actions[0], alone.step(frame)[0])
    assert [s.source for s in policy.statuses] == ["plan", "plan"] and policy.statuses[0].number == 2
    policy.reset()
    chunk = policy.predict_action_chunk(batch(0))
    assert chunk.shape == (2, 5, 2) and policy.statuses[0].number == 0
    assert (chunk >= torch.tensor(LOW)).all() and (chunk <= torch.tensor(HIGH)).all()


def test_bytes_and_other_sizes_are_taken(folder):
    policy = LeRobotPolicy(folder)
    large = {"observation.images.pixels": torch.randint(256, (1, 3, 480, 640), dtype=torch.uint8)}
    assert policy.select_action(large).shape == (1, 2) and policy.statuses[0].observation == "ok"


def test_a_batch_without_the_camera_is_refused(folder):
    with pytest.raises(BadBatch, match=r"expected observation\.images\.pixels, got observation\.state"):
        LeRobotPolicy(folder).select_action({"observation.state": torch.zeros(1, 3)})


def test_batches_of_other_types_and_names(folder):
    policy = LeRobotPolicy(folder)
    frames = batch(0)["observation.images.top"]
    wanted = policy.select_action({"observation.images.top": frames})
    for images in (frames.double(), (frames * 255).round().byte()):
        policy.reset()
        torch.testing.assert_close(policy.select_action({"observation.image": images}), wanted, rtol=0, atol=0)
    policy.reset()
    assert policy.select_action({"observation.image": frames.bfloat16()}).shape == wanted.shape
    assert policy.statuses[0].observation == "ok"


@pytest.fixture(scope="module")
def arm(tmp_path_factory):
    vectors = {"joints": 2, "grip": 1}
    spec = dataclasses.replace(SPEC, images={"front": (3, 16, 16), "wrist": (3, 16, 16)}, vectors=vectors)
    return tiny_bundle(tmp_path_factory.mktemp("arm") / "b", spec=spec)


def test_two_cameras_and_two_vectors_by_name_or_side_by_side(arm):
    rng = np.random.default_rng(0)
    frames = {name: torch.from_numpy(rng.integers(0, 256, (2, 3, 16, 16), np.uint8)) for name in ("wrist", "front")}
    images = {f"observation.images.{name}": frame for name, frame in frames.items()}
    joints, grip = torch.tensor([[0.5, -0.5], [0.1, 0.2]]), torch.tensor([[0.25], [0.75]])
    seen = {name: frame[0].permute(1, 2, 0).numpy() for name, frame in frames.items()}
    seen |= {"joints": joints[0].numpy(), "grip": grip[0].numpy()}
    wanted, _ = Controller(arm, planner="inline", budget_s=60.0).step(seen)
    for vectors in (
        {"observation.joints": joints, "observation.grip": grip},
        {"observation.state": torch.cat([joints, grip], 1)},
    ):
        policy = LeRobotPolicy(arm)
        action = policy.select_action({**images, **vectors})
        assert [status.observation for status in policy.statuses] == ["ok", "ok"]
        np.testing.assert_array_equal(action[0], wanted)
    with pytest.raises(BadBatch, match=r"expected observation\.joints and observation\.grip, or observation\.state of"):
        LeRobotPolicy(arm).select_action({**images, "observation.joints": joints})
    with pytest.raises(BadBatch, match=r"observation\.state \[B 3\] \(joints 2, grip 1\), got float32 \[2, 2\]"):
        LeRobotPolicy(arm).select_action({**images, "observation.state": joints})
    with pytest.raises(BadBatch, match=r"observation\.grip \[B 1\] \(grip 1\), got object \[\]"):
        LeRobotPolicy(arm).select_action({**images, "observation.joints": joints, "observation.grip": None})


@pytest.mark.parametrize(
    ("images", "got"),
    [
        (torch.rand(2, 3, 16, 16) * 255, r"\d\S* to 25\d"),
        (torch.rand(2, 3, 16, 16) * 4 - 2, r"-[12]\S* to [12]"),  # normalised by a mean and a std
        (torch.randint(256, (2, 3, 16, 16)), "int64"),
    ],
    ids=["bytes as floats", "normalised", "int64"],
)
def test_images_of_another_scale_or_type_are_told(folder, images, got):
    with pytest.raises(BadBatch, match=rf"pixels of floats in \[0, 1\], or uint8, got {got}"):
        LeRobotPolicy(folder).select_action({"observation.images.top": images})


def test_an_interpolation_may_overshoot(folder):
    policy = LeRobotPolicy(folder)
    images = (torch.rand(2, 3, 16, 16) * 1.2 - 0.1).clamp(-0.1, 1.1)
    images[0, 0, 0, 0] = torch.nan
    policy.select_action({"observation.images.top": images})
    assert [status.observation for status in policy.statuses] == ["ok", "ok"]


@pytest.mark.parametrize("shape", [(3, 16, 16), (0, 3, 16, 16)])
def test_what_is_no_batch_is_refused(folder, shape):
    with pytest.raises(BadBatch, match=r"^batch: expected .*got \["):
        LeRobotPolicy(folder).select_action({"observation.images.top": torch.rand(shape)})


def test_a_new_episode_is_a_new_controller_s(folder):
    """Its controllers are used again: neither a belief nor a stop is left."""
    policy = LeRobotPolicy(folder)
    first = policy.select_action(batch(0))
    black = {"observation.images.top": torch.zeros(2, 3, 16, 16)}
    while policy.statuses[0].source != "stopped":
        policy.select_action(black)
    controllers = policy._controllers
    policy.reset()
    torch.testing.assert_close(policy.select_action(batch(0)), first, rtol=0, atol=0)
    assert policy._controllers[0] is controllers[0] and policy.statuses[0].source == "plan"
    assert policy.select_action(batch(0, rows=3)).shape == (3, 2)
