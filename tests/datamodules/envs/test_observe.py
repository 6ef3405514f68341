"""What is observed of dm_control: frames, its own observation, both, and several cameras."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from datamodules.envs.errors import BadOption
from datamodules.envs.pool import EnvPool

ACTIONS = np.random.default_rng(0).uniform(-1, 1, (4, 1)).astype(np.float32)


def played(visuals=None, **options):
    """The spec, the rows of one episode's beginning, and the libraries that its worker has loaded."""
    kwargs = {"task": "cartpole_swingup", "action_repeat": 2, "look": "fast", **options}
    with EnvPool(source="dmc", kwargs=kwargs, visuals=visuals, count=1, reset_timeout_s=300) as pool:
        rows = [pool.reset({0: 3})[0], *(pool.step({0: action})[0] for action in ACTIONS)]
        return pool.spec, rows, Path(f"/proc/{pool.pids[0]}/maps").read_text()


def test_a_state_comes_without_gl_and_is_that_of_the_frames():
    spec, rows, loaded = played(observe="state")
    assert spec.images == {} and spec.vectors == {"position": 3, "velocity": 2}
    assert spec.backend == spec.look == "none" and "MuJoCo" not in spec.task
    assert not any(name in loaded for name in ("libEGL", "libOSMesa", "libGL.", "swrast", "libgallium"))
    assert spec.action_low == (-1.0,) and spec.action_high == (1.0,)
    for row in rows:
        x, cosine, sine = row.observation["position"]
        assert cosine**2 + sine**2 == pytest.approx(1, abs=1e-6) and abs(x) < 2
    both, seen, _ = played(observe="pixels+state", size=16)
    assert both.images == {"pixels": (3, 16, 16)} and both.vectors == spec.vectors
    for one, other in zip(rows, seen, strict=True):
        assert one.reward == other.reward
        for name in spec.vectors:
            np.testing.assert_array_equal(one.observation[name], other.observation[name])
    # positions move as velocities say: half of both velocities' sum, for the time of a decision
    x, v = ([row.observation[name][0] for row in rows] for name in ("position", "velocity"))
    assert np.allclose(np.diff(x), 0.01 * 2 * (np.array(v[1:]) + np.array(v[:-1])) / 2, atol=5e-3)


def test_cameras_have_names_and_sizes_of_their_own():
    cameras = {"front": 0, "side": "lookatcart"}
    spec, rows, _ = played(cameras=cameras, size={"front": 32, "side": 16})
    assert spec.images == {"front": (3, 32, 32), "side": (3, 16, 16)}
    for name, camera, size in (("front", 0, 32), ("side", 1, 16)):
        alone, single, _ = played(camera=camera, size=size)
        assert alone.images == {"pixels": (3, size, size)}
        for one, other in zip(rows, single, strict=True):
            np.testing.assert_array_equal(one.observation[name], other.pixels)
    spec, stacked, _ = played({"grayscale": {}, "frame_stack": {"count": 2}}, cameras=cameras, size=16)
    assert spec.images == {"front": (2, 16, 16), "side": (2, 16, 16)}
    for before, row in pairwise(stacked):
        for name in cameras:
            np.testing.assert_array_equal(row.observation[name][0], before.observation[name][1])


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"observe": "frames"}, "observe: expected pixels, state or"),
        ({"observe": "state", "cameras": {"a": 0}}, "cameras: expected none"),
        ({"cameras": {"a": 0}, "camera": 1}, "cameras: expected none"),
        ({"cameras": {"a": 9}}, "camera: expected 0"),
        ({"cameras": {"a": 0, "b": 1}, "size": {"a": 16}}, r"size: expected a size for each of \['a', 'b'\]"),
        ({"size": {"pixels": 4}}, "size: expected 16"),
    ],
)
def test_wrong_choices_are_refused(options, text):
    with pytest.raises(BadOption, match=text):
        played(**options)


def test_frames_with_a_moving_background_need_one_camera_or_many():
    spec, rows, _ = played({"background": {}}, cameras={"front": 0, "side": 1}, size={"front": 32, "side": 16})
    plain = played(cameras={"front": 0, "side": 1}, size={"front": 32, "side": 16})[1]
    for name, (_, side, _) in spec.images.items():
        changed = (rows[0].observation[name] != plain[0].observation[name]).any(0)
        assert 0.2 < changed.mean() < 1 and changed.shape == (side, side)
