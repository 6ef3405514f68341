import dataclasses
import json

import numpy as np
import pytest

from tests.rigs.tiny_bundle import HIGH, LOW, SPEC
from trainers.bundle.control_spec import ControlSpec, DeviceDiffers, Limits
from worldmodel.errors import BadValue

CONTROL = ControlSpec(env=SPEC, hz=20.0, safe_action=(0.0, 1.0), max_change=(0.1, 0.2), action_latency_s=0.1)


def test_it_survives_a_file():
    assert ControlSpec.from_json(json.loads(json.dumps(CONTROL.to_json()))) == CONTROL


def test_a_device_of_the_same_kind_fits():
    device = {key: CONTROL.to_json()[key] for key in ("observation", "action", "hz")}
    CONTROL.require_device(device)
    device["observation"]["pixels"]["shape"] = [480, 640, 3]  # frames are resized
    CONTROL.require_device(device)


def test_a_device_may_say_arrays_tuples_and_types():
    device = {
        "observation": {"pixels": {"dtype": np.dtype("uint8"), "shape": np.array([480, 640, 3])}},
        "action": {"dtype": "float32", "shape": (2,), "low": np.float32(LOW), "high": tuple(HIGH)},
        "hz": np.float64(20),
    }
    CONTROL.require_device(device)
    device["action"]["low"] = np.float32([LOW[0], LOW[1] + 1e-3])
    with pytest.raises(DeviceDiffers, match=r"action\.low: the bundle has \[-1\.0, 0\.1\], the device \[-1\.0, 0\.10"):
        CONTROL.require_device(device)
    with pytest.raises(DeviceDiffers, match="device: expected some of observation, action, hz by name, got 'cuda'"):
        CONTROL.require_device("cuda")


@pytest.mark.parametrize("number", [1.5, -1.0, 4.0])
def test_a_safe_action_is_the_number_of_one(number):
    env = dataclasses.replace(SPEC, action_dim=4, discrete=True, action_low=None, action_high=None)
    assert ControlSpec(env=env, hz=1.0, safe_action=(3.0,)).safe_action == (3.0,)
    with pytest.raises(BadValue, match=f"safe_action: expected the number of an action, 0 to 3, got {number:g}"):
        ControlSpec(env=env, hz=1.0, safe_action=(number,))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("observation", "pixels", "shape"), [16, 16, 1], r"observation\.pixels\.shape: the bundle has \[16, 16, 3\]"),
        (("observation", "pixels", "dtype"), "float32", r"observation\.pixels\.dtype: the bundle has uint8"),
        (("observation", "wrist"), {}, r"observation: the bundle has \['pixels'\], the device \['pixels', 'wrist'\]"),
        (("action", "low"), [-1.0, 0.0], r"action\.low: the bundle has \[-1\.0, 0\.1\], the device \[-1\.0, 0\.0\]"),
        (("hz",), 10.0, r"hz: the bundle has 20\.0, the device 10\.0"),
        (("gripper",), 1, r"device\.gripper: expected one of"),
    ],
)
def test_another_device_is_refused_by_key(path, value, message):
    device = {key: CONTROL.to_json()[key] for key in ("observation", "action", "hz")}
    place = device
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(DeviceDiffers, match=message):
        CONTROL.require_device(device)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"hz": 0}, "hz: expected a finite number above 0"),
        ({"hz": float("nan")}, "hz: expected a finite number above 0"),
        ({"safe_action": (0.0, 0.0)}, "safe_action: expected within"),
        ({"safe_action": (0.0,)}, "safe_action: expected 2 finite numbers"),
        ({"max_change": (0.1, -0.1)}, "max_change: expected numbers of at least 0"),
        ({"action_latency_s": -1.0}, "action_latency_s"),
    ],
)
def test_values_out_of_range_are_refused_by_key(wrong, message):
    with pytest.raises(BadValue, match=message):
        dataclasses.replace(CONTROL, **wrong)
    with pytest.raises(BadValue, match=r"limits\.faults"):
        Limits(faults=0)


def test_a_file_that_contradicts_itself_is_refused():
    said = CONTROL.to_json()
    said["action"]["high"] = [1.0, 1.0]
    with pytest.raises(BadValue, match="action: expected"):
        ControlSpec.from_json(said)
    with pytest.raises(BadValue, match="control: expected"):
        ControlSpec.from_json({})


def test_delays_are_counted_in_decisions():
    assert CONTROL.delay == 2
    assert dataclasses.replace(CONTROL, observation_age_s=0.06).delay == 3
    assert CONTROL.bounds == (LOW, HIGH)
    unknown = dataclasses.replace(SPEC, action_low=None, action_high=None)
    assert ControlSpec(env=unknown, hz=1.0).bounds == ((-1.0, -1.0), (1.0, 1.0))
