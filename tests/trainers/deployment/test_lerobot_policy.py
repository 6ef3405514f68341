import numpy as np
import pytest
import torch

from tests.rigs.tiny_bundle import HIGH, LOW, tiny_bundle
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
