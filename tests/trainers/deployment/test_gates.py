import dataclasses
import math
import time

import numpy as np
import pytest

from tests.rigs.tiny_bundle import HIGH, LOW, SPEC
from trainers.bundle.control_spec import ControlSpec, Limits
from trainers.deployment.action_gate import ActionGate
from trainers.deployment.observation_gate import ObservationGate, Refused

CONTROL = ControlSpec(env=SPEC, hz=20.0, limits=Limits(frozen=3, max_age_s=0.5))


def frame(seed=0, size=16):
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)


@pytest.mark.parametrize(
    ("observation", "word"),
    [
        (None, "none"),
        ({}, "names"),
        ({"pixels": frame(), "more": frame()}, "names"),
        (frame().astype(np.float32) / 255, "shape"),
        (frame().transpose(2, 0, 1), "shape"),
        (frame()[..., :1], "shape"),
        (np.zeros((0, 16, 3), np.uint8), "shape"),
        (np.zeros((16, 16, 3), np.uint8), "blank"),
        (np.full((32, 32, 3), (10, 200, 30), np.uint8), "blank"),
        ("pixels", "shape"),
        ([[1, 2], [3]], "shape"),
        ({str(name) * 40: name for name in range(1000)}, "names"),
    ],
)
def test_what_is_no_frame_is_refused(observation, word):
    with pytest.raises(Refused, match=rf"^{word}: ") as caught:
        ObservationGate(CONTROL, {}).check(observation, None, None)
    assert caught.value.wrong == word and len(str(caught.value)) < 400


def test_frames_of_any_size_are_resized_by_areas():
    rows = ObservationGate(CONTROL, {}).check(np.kron(frame(), np.ones((30, 40, 1), np.uint8)), None, None)
    np.testing.assert_array_equal(rows["pixels"], frame().transpose(2, 0, 1))


def test_age_and_order():
    gate, now = ObservationGate(CONTROL, {}), time.monotonic()
    gate.check(frame(1), now, 5)
    for seed, (stamp, sequence, word) in enumerate(
        [(now, 6, "order"), (now - 0.1, 7, "order"), (now - 1, 8, "age"), (now + 1, 9, "age"), (math.nan, 10, "age")]
    ):
        with pytest.raises(Refused, match=rf"^{word}"):
            gate.check(frame(seed + 2), stamp, sequence)
    with pytest.raises(Refused, match=r"^order"):
        gate.check(frame(9), time.monotonic(), 10)
    gate.check(frame(9), time.monotonic(), 11)
    gate.reset()
    gate.check(frame(9), now, 0)


def test_a_frozen_camera_is_noticed_and_forgiven():
    gate = ObservationGate(CONTROL, {})
    for _ in range(3):
        gate.check(frame(), None, None)
    with pytest.raises(Refused, match=r"^frozen: the same observation 4 times"):
        gate.check(frame(), None, None)
    gate.check(frame(1), None, None)
    still = ObservationGate(dataclasses.replace(CONTROL, limits=Limits(frozen=0)), {})
    for _ in range(50):
        still.check(frame(), None, None)


def test_a_frozen_camera_is_noticed_beside_joints_and_cameras_that_go_on():
    env = dataclasses.replace(SPEC, images={"front": (3, 16, 16), "wrist": (3, 16, 16)}, vectors={"joints": 1})
    gate = ObservationGate(dataclasses.replace(CONTROL, env=env), {})
    for t in range(20):  # standing joints are no fault: a robot may stand still
        gate.check({"front": frame(t), "wrist": frame(50 + t), "joints": [0.5]}, None, None)
    for t in range(2):
        gate.check({"front": frame(t), "wrist": frame(69), "joints": [t]}, None, None)
    with pytest.raises(Refused, match=r"^frozen: wrist: the same observation 4 times"):
        gate.check({"front": frame(9), "wrist": frame(69), "joints": [9]}, None, None)
    gate.check({"front": frame(0), "wrist": frame(1), "joints": [0.5]}, None, None)


def test_joints_alone_are_frozen_together():
    env = dataclasses.replace(SPEC, images={}, vectors={"joints": 1, "grip": 1})
    gate = ObservationGate(dataclasses.replace(CONTROL, env=env), {})
    for t in range(20):
        gate.check({"joints": [t], "grip": [0.0]}, None, None)
    with pytest.raises(Refused, match=r"^frozen: joints, grip: the same observation 4 times"):
        for _ in range(4):
            gate.check({"joints": [5], "grip": [0.0]}, None, None)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_camera_that_draws_into_one_buffer_is_not_frozen(channels):
    spec = dataclasses.replace(SPEC, images={"pixels": (channels, 16, 16)})
    gate = ObservationGate(dataclasses.replace(CONTROL, env=spec), {})
    buffer = np.empty((channels, 16, 16), np.uint8)
    for t in range(10):
        buffer[:] = frame(t)[..., :channels].transpose(2, 0, 1)
        gate.check(buffer.transpose(1, 2, 0), None, t)
    with pytest.raises(Refused, match=r"^frozen"):
        for t in range(10, 14):
            gate.check(buffer.transpose(1, 2, 0), None, t)


def test_vectors_beyond_the_training_data_are_refused():
    spec = dataclasses.replace(SPEC, images={}, vectors={"joints": 2})
    control = ControlSpec(env=spec, hz=20.0, limits=Limits(vector_stds=10))
    gate = ObservationGate(control, {"joints": (np.zeros(2), np.ones(2))})
    assert gate.check({"joints": [1, 2]}, None, None)["joints"].dtype == np.float32
    for wrong, word in (
        ([1, math.nan], "range"),
        ([1, 11], "range"),
        ([1, 2, 3], "shape"),
        (["a", "b"], "shape"),
        ([1, 1e300], "range"),
        ([[1], [2, 3]], "shape"),
        ([1, 10**400], "shape"),
    ):
        with pytest.raises(Refused, match=rf"^{word}"):
            gate.check({"joints": wrong}, None, None)


def test_actions_are_scaled_and_stay_within_the_exact_bounds():
    gate, rng = ActionGate(CONTROL), np.random.default_rng(0)
    low, high = np.float64(LOW), np.float64(HIGH)
    for _ in range(2000):
        chosen = (rng.standard_normal(2) * 10.0 ** rng.integers(-3, 30)).astype(np.float32)
        action, unit, limited = gate.admit(chosen)
        assert action.dtype == np.float32 and (action.astype(np.float64) >= low).all()
        assert (action.astype(np.float64) <= high).all()
        assert limited == bool((np.abs(chosen) > 1).any()) and (np.abs(unit) <= 1).all()
    np.testing.assert_allclose(gate.admit(np.float32([0, 0]))[0], (low + high) / 2, rtol=1e-6)
    assert np.float64(np.float32(0.1)) > 0.1 and gate.low[1] >= 0.1 and gate.high[1] <= 5.3


@pytest.mark.parametrize("wrong", [[math.nan, 0], [0, math.inf], [0], [[0, 0]]])
def test_what_is_no_action_is_not_admitted(wrong):
    assert ActionGate(CONTROL).admit(np.array(wrong, np.float32)) is None
    assert ActionGate(CONTROL).admit_native(np.array(wrong, np.float32)) is None


def test_one_sided_and_zero_width_bounds():
    spec = dataclasses.replace(SPEC, action_low=(0.0, 0.3), action_high=(0.0, 0.3))
    action, unit, _ = ActionGate(ControlSpec(env=spec, hz=1.0)).admit(np.float32([1, -1]))
    np.testing.assert_allclose(action, [0, 0.3], rtol=1e-6)
    assert np.isfinite(unit).all()


def test_the_rate_limit_holds_from_action_to_action():
    control = dataclasses.replace(CONTROL, max_change=(0.1, 1.0), safe_action=(0.5, 5.0))
    gate, rng, last = ActionGate(control), np.random.default_rng(0), None
    for t in range(200):
        chosen = rng.uniform(-1, 1, 2).astype(np.float32)
        action, unit, limited = gate.admit(chosen) if t % 7 else (*gate.safe(), None)
        if last is not None:
            assert (np.abs(action - last) <= np.float32([0.1, 1.0]) + 1e-6).all()
        if limited is False:
            np.testing.assert_allclose(unit, chosen)
        else:
            middle, half = (np.array(LOW) + HIGH) / 2, (np.array(HIGH) - LOW) / 2
            np.testing.assert_allclose(middle + half * unit, action, atol=1e-5)
        last = action


def test_no_cast_goes_further_than_the_rate_limit():
    """Around 1000 float32 has steps of 6e-5: a limit of 4e-5 allows none of them."""
    spec = dataclasses.replace(SPEC, action_low=(1000.0, 0.0), action_high=(1001.0, 6.28))
    gate, change = ActionGate(ControlSpec(env=spec, hz=20.0, max_change=(4e-5, 0.05))), np.array([4e-5, 0.05])
    rng, rows = np.random.default_rng(0), []
    for _ in range(500):
        rows.append(gate.admit(rng.uniform(-1, 1, 2).astype(np.float32))[0].astype(np.float64))
    moved = np.abs(np.diff(rows, axis=0))
    assert (moved <= change).all()
    assert moved[:, 1].max() > 0.05 - 1e-6


def test_the_safe_action_is_declared_or_the_last_one():
    np.testing.assert_allclose(ActionGate(CONTROL).safe()[0], (np.array(LOW) + HIGH) / 2, rtol=1e-6)
    gate = ActionGate(CONTROL)
    last, _, _ = gate.admit(np.float32([0.3, -0.7]))
    np.testing.assert_array_equal(gate.safe()[0], last)
    declared = ActionGate(dataclasses.replace(CONTROL, safe_action=(0.0, 1.0)))
    declared.admit(np.float32([0.3, -0.7]))
    np.testing.assert_array_equal(declared.safe()[0], np.float32([0, 1]))


def test_discrete_actions_are_numbers():
    spec = dataclasses.replace(SPEC, discrete=True, action_dim=3, action_low=None, action_high=None)
    gate = ActionGate(ControlSpec(env=spec, hz=1.0, safe_action=(2.0,)))
    assert gate.admit(np.float32([0, 0.5, -1]))[0] == 1 and gate.safe()[0] == 2
    assert gate.admit_native(np.int64(3)) is None and gate.admit_native(np.int64(1)) == 1


def test_the_last_discrete_action_is_held():
    spec = dataclasses.replace(SPEC, discrete=True, action_dim=3, action_low=None, action_high=None)
    gate = ActionGate(ControlSpec(env=spec, hz=1.0))
    assert gate.safe()[0] == 0
    gate.admit(np.float32([-1, -1, 1]))
    held, unit = gate.safe()
    assert held == 2 and held.dtype == np.int64 and unit.tolist() == [-1, -1, 1]
    gate.admit_native(np.int64(1))
    assert gate.safe()[0] == 1
    gate.reset()
    assert gate.safe()[0] == 0


@pytest.mark.parametrize(
    ("stamp", "sequence", "message"),
    [
        ("now", None, r"age: expected a stamp in seconds of time\.monotonic\(\), got 'now'"),
        (1.8e9, None, r"age: expected 0 to .* s, got -.*: stamps are seconds of time\.monotonic\(\)"),  # of time.time()
        (None, "2", "order: expected a whole number of the frame, got '2'"),
        (None, 2.5, "order: expected a whole number of the frame, got 2.5"),
    ],
)
def test_stamps_and_numbers_of_another_kind_are_refused_with_the_cause(stamp, sequence, message):
    with pytest.raises(Refused, match=message):
        ObservationGate(CONTROL, {}).check(frame(), stamp, sequence)
