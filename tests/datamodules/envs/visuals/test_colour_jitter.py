import numpy as np
import pytest

from datamodules.envs.errors import BadOption
from datamodules.envs.sources import open_env
from datamodules.envs.visuals.colour_jitter import colour_matrix
from datamodules.envs.visuals.grayscale import LUMA

GREYS = np.arange(256.0) * np.ones((3, 1))
ACTION = np.ones(2, np.float32)


def frames(seed, visuals, count=4):
    """An episode's first frames."""
    env = open_env(source="toy", kwargs={"size": 16}, visuals=visuals)
    return [env.reset(seed).pixels, *(env.step(ACTION).pixels for _ in range(count))]


def mapped(colours, **change):
    neutral = {"brightness": 0.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.0}
    matrix = colour_matrix(**{**neutral, **change})
    return matrix[:, :3] @ colours + matrix[:, 3:]


def test_each_part_is_what_it_is_called():
    primaries = 255 * np.eye(3)
    np.testing.assert_allclose(mapped(primaries), primaries)
    np.testing.assert_allclose(mapped(primaries, brightness=0.1), primaries + 25.5)
    np.testing.assert_allclose(mapped(primaries, contrast=0.5), 0.5 * primaries + 63.75)
    np.testing.assert_allclose(mapped(primaries, saturation=0.0), 255 * np.ones((3, 1)) * LUMA, rtol=1e-6)
    # a third of a turn: red becomes green, green blue, blue red
    np.testing.assert_allclose(mapped(primaries, hue=2 * np.pi / 3), np.roll(primaries, 1, axis=0), atol=1e-9)
    np.testing.assert_allclose(mapped(GREYS, hue=1.0, saturation=0.3), GREYS, atol=1e-4)


def test_an_episode_has_one_map_and_its_seed_decides_it():
    plain, seen = frames(9, {}), frames(9, {"colour_jitter": {"strength": 0.3}})
    colours = np.concatenate([f.reshape(3, -1) for f in plain], axis=1)
    changed = np.concatenate([f.reshape(3, -1) for f in seen], axis=1).astype(float)
    homogeneous = np.vstack([colours, np.ones(colours.shape[1])])
    for row in changed:
        inside = (row > 0) & (row < 255)
        fitted = np.linalg.lstsq(homogeneous[:, inside].T, row[inside], rcond=None)[0]
        assert inside.sum() > 1000 and np.abs(fitted @ homogeneous - row)[inside].max() < 1
    np.testing.assert_array_equal(seen, frames(9, {"colour_jitter": {"strength": 0.3}}))
    assert (seen[0] != frames(10, {"colour_jitter": {"strength": 0.3}})[0]).any()


def test_strength_nought_changes_nothing_and_more_changes_more():
    plain = np.stack(frames(9, {}))
    np.testing.assert_array_equal(frames(9, {"colour_jitter": {"strength": 0}}), plain)
    changes = [
        np.mean(
            [
                np.abs(np.stack(frames(s, {"colour_jitter": {"strength": x}})) - np.stack(frames(s, {})).astype(int))
                for s in range(8)
            ]
        )
        for x in (0.1, 0.3, 1.0)
    ]
    assert 0 < changes[0] < changes[1] < changes[2]


def test_stacked_frames_have_the_map_of_single_ones():
    stack = {"frame_stack": {"count": 2}}
    jitter = {"colour_jitter": {}}
    np.testing.assert_array_equal(frames(2, {**stack, **jitter}), frames(2, {**jitter, **stack}))


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan"), "much", True])
def test_bad_strengths(strength):
    with pytest.raises(BadOption, match=r"colour_jitter\.strength: expected a number in \[0, 1\]"):
        open_env(source="toy", kwargs={}, visuals={"colour_jitter": {"strength": strength}})


def test_grey_frames_have_no_colours_to_change():
    with pytest.raises(BadOption, match=r"visuals\.colour_jitter: expected RGB frames \(before grayscale\)"):
        visuals = {"grayscale": {}, "frame_stack": {"count": 3}, "colour_jitter": {}}
        open_env(source="toy", kwargs={}, visuals=visuals)
