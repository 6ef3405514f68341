"""What of a Gymnasium environment's spaces is read: images, actions, whole observations; what is not is refused."""

import numpy as np
import pytest

from datamodules.envs.actions import actions_of
from datamodules.envs.errors import (
    BadObservation,
    BadOption,
    BadSpace,
)
from datamodules.envs.images import area_resized, judge_image
from datamodules.envs.spaces import choose_observer

gymnasium = pytest.importorskip("gymnasium")
from gymnasium import spaces  # noqa: E402

BYTES = {"low": 0, "high": 255, "dtype": np.uint8}


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        ({"shape": (64, 48, 3), **BYTES}, (64, 48, 3)),
        ({"shape": (3, 64, 48), **BYTES}, (64, 48, 3)),
        ({"shape": (64, 48), **BYTES}, (64, 48, 1)),
        ({"shape": (4, 84, 84), **BYTES}, (84, 84, 4)),
        ({"shape": (64, 64, 3), "low": 0.0, "high": 1.0, "dtype": np.float32}, (64, 64, 3)),
        ({"shape": (64, 64, 3), "low": 0.0, "high": 255.0, "dtype": np.float64}, (64, 64, 3)),
        ({"shape": (64, 64, 1), "low": 0, "high": 65535, "dtype": np.uint16}, (64, 64, 1)),
        ({"shape": (64, 64, 3), "low": 0, "high": 255, "dtype": np.int64}, (64, 64, 3)),
    ],
)
def test_clear_images_are_read(space, expected):
    box = spaces.Box(**space)
    reader = choose_observer(box, None).images["pixels"]
    top = np.full(box.shape, box.high.flat[0], box.dtype)
    assert reader.read(top).shape == expected and (reader.read(top) == 255).all()
    assert (reader.read(np.zeros_like(top)) == 0).all() and reader.channels == expected[-1]
    sample = box.sample()
    error = reader.read(sample) / 255 - _hwc(sample, reader.layout) / float(box.high.flat[0])
    assert abs(error).max() <= 0.5 / 255 + 1e-6


def _hwc(values, layout):
    return {"HWC": values, "HW": values[..., None], "CHW": np.moveaxis(values, 0, -1)}[layout].astype(np.float64)


@pytest.mark.parametrize(
    ("space", "text"),
    [
        ({"shape": (64, 64, 64), **BYTES}, "HWC, CHW or HW"),
        ({"shape": (64, 3, 64), **BYTES}, "HWC, CHW or HW"),
        ({"shape": (4, 64, 64, 3), **BYTES}, "HWC, CHW or HW"),
        ({"shape": (64, 64, 3), "low": -1.0, "high": 1.0, "dtype": np.float32}, r"0\.\.1.*float32 \(64, 64, 3\) -1"),
        ({"shape": (64, 64, 3), "low": 0.0, "high": np.inf, "dtype": np.float32}, "inf"),
        ({"shape": (64, 64, 1), "low": 0, "high": 4095, "dtype": np.uint16}, "4095"),
        ({"shape": (64, 64, 3), "low": 0, "high": 1, "dtype": np.uint8}, "uint8 0..255"),
        ({"shape": (64, 64, 3), "low": 0, "high": 65535, "dtype": np.uint32}, "uint32"),
    ],
)
def test_unclear_images_are_refused_with_what_was_expected(space, text):
    with pytest.raises(BadSpace, match=rf"^observation: expected.*{text}.*pixels=render"):
        choose_observer(spaces.Box(**space), None)


@pytest.mark.parametrize("shape", [(3,), (7, 7, 3), (15, 64)])
def test_other_observations_are_no_images(shape):
    assert judge_image((), spaces.Box(0, 255, shape, np.uint8)) is None
    with pytest.raises(BadSpace, match="at least 16x16"):
        choose_observer(spaces.Dict({"a": spaces.Box(0, 255, shape, np.uint8)}), None, image_key="a")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.full((16, 16, 3), np.nan, np.float32), "nan"),
        (np.full((16, 16, 3), 1.5, np.float32), "1.5"),
        (np.full((16, 16, 3), -0.1, np.float32), "-0.1"),
        (np.zeros((16, 16, 3), np.uint8), "got uint8"),
        (np.zeros((16, 15, 3), np.float32), r"\(16, 15, 3\)"),
        (None, "object"),
    ],
)
def test_observations_that_break_their_spaces_promise_are_refused(value, text):
    reader = judge_image(("eye",), spaces.Box(0.0, 1.0, (16, 16, 3)))
    with pytest.raises(BadObservation, match=rf"observation\[eye\]: expected.*{text}"):
        reader.read({"eye": value})
    with pytest.raises(BadObservation, match="got none"):
        reader.read({})


def test_shrinking_takes_the_mean_of_the_area():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 32), np.uint8)
    mean = pixels.reshape(2, 16, 4, 16, 2).mean((2, 4))
    # rounded once along each axis
    np.testing.assert_allclose(area_resized(pixels, 16, 16), mean, atol=1.01)
    np.testing.assert_array_equal(
        area_resized(pixels[:, :16, :16], 32, 32), pixels[:, :16, :16].repeat(2, 1).repeat(2, 2)
    )


def test_actions_reach_both_bounds_of_a_box():
    low, high = np.float32([[0.0, -3.0], [0.1, 2.0]]), np.float32([[4.0, -1.0], [0.7, 2.0]])
    actions = actions_of(spaces.Box(low, high))
    assert (actions.dim, actions.discrete) == (4, False)
    np.testing.assert_array_equal(actions.native(np.full(4, -1, np.float32)), low)
    np.testing.assert_array_equal(actions.native(np.ones(4, np.float32)), high)
    middle = actions.native(np.zeros(4, np.float32))
    np.testing.assert_allclose(middle, (low + high) / 2)
    assert middle.dtype == np.float32


def test_discrete_actions_are_the_largest_entry():
    actions = actions_of(spaces.Discrete(3, start=5))
    assert (actions.dim, actions.discrete) == (3, True)
    cases = {(-1, -0.5, -0.6): 6, (0, 0, 0): 5, (-1, -1, 1): 7}
    assert {case: int(actions.native(np.float32(case))) for case in cases} == cases


@pytest.mark.parametrize(
    "space",
    [
        spaces.MultiDiscrete([2, 3]),
        spaces.MultiBinary(2),
        spaces.Box(-np.inf, np.inf, (2,)),
        spaces.Box(np.float32([0, -np.inf]), np.float32([1, 1])),
        spaces.Box(-3e38, 3e38, (1,)),
        spaces.Box(0, 5, (2,), np.int32),
        spaces.Box(0, 1, (0,)),
        spaces.Dict({"a": spaces.Discrete(2)}),
    ],
)
def test_other_action_spaces_are_refused_by_name(space):
    with pytest.raises(BadSpace, match=f"action: expected .*, got {type(space).__name__}"):
        actions_of(space)


def test_the_advice_on_unbounded_actions_works():
    """What the message names is called as the message says, on an environment that was refused."""

    class Unbounded(gymnasium.Env):
        action_space, observation_space = spaces.Box(-np.inf, np.inf, (2,)), spaces.Box(0, 1, (1,))

    with pytest.raises(BadSpace) as refusal:
        actions_of(Unbounded.action_space)
    advice = str(refusal.value).partition("gymnasium.wrappers.")[2].removesuffix(" sets some")
    assert advice.startswith("TransformAction(env, ")
    scope = {"env": Unbounded(), "Box": lambda low, high: spaces.Box(low, high, (2,)), "low": -3, "high": 3}
    wrapped = eval(f"wrappers.{advice}", scope | {"wrappers": gymnasium.wrappers})
    assert actions_of(wrapped.action_space).native(np.float32([1, -0.5])).tolist() == [3, -1.5]


SPACE = spaces.Dict(
    {
        "camera": spaces.Dict({"front": spaces.Box(0, 255, (20, 16, 3), np.uint8)}),
        "wrist": spaces.Box(0.0, 1.0, (1, 16, 16), np.float32),
        "mode": spaces.Discrete(3, start=5),
        "many": spaces.MultiDiscrete([2, 3]),
        "on": spaces.MultiBinary(2),
        "pair": spaces.Tuple((spaces.Box(-np.inf, np.inf, (2, 2)), spaces.Box(-9, 9, (), np.int64))),
        "text": spaces.Text(4),
    }
)
SEEN = {
    "camera": {"front": np.arange(960, dtype=np.uint8).reshape(20, 16, 3)},
    "wrist": np.full((1, 16, 16), 0.2, np.float32),
    "mode": np.int64(6),
    "many": np.array([1, 2]),
    "on": np.array([1, 0], np.int8),
    "pair": (np.float32([[1, 2], [3, 4]]), np.int64(-7)),
    "text": "a",
}
READ = {"mode": [0, 1, 0], "many": [0, 1, 0, 0, 1], "on": [1, 0], "pair.0": [1, 2, 3, 4], "pair.1": [-7]}


def never():
    raise AssertionError("nothing is drawn")


def test_a_whole_observation_is_read_by_name():
    observer = choose_observer(SPACE, None)
    assert observer.shapes({"camera.front": 16, "wrist": 32}) == {"camera.front": (3, 16, 16), "wrist": (1, 32, 32)}
    images, vectors = observer.read(SEEN, never)
    np.testing.assert_array_equal(images["camera.front"], SEEN["camera"]["front"])
    assert (images["wrist"] == 51).all() and {name: v.tolist() for name, v in vectors.items()} == READ
    assert all(v.dtype == np.float32 for v in vectors.values()) and "text (Text)" in observer.notes[0]
    with pytest.raises(BadObservation, match=r"observation\[mode\]: expected 5..7, got 8"):
        observer.read({**SEEN, "mode": np.int64(8)}, never)
    with pytest.raises(BadObservation, match=r"observation\[on\]: expected numbers \(2,\)"):
        observer.read({**SEEN, "on": np.zeros(3)}, never)
    with pytest.raises(BadOption, match="size: expected a size for each"):
        observer.shapes({"wrist": 32})


@pytest.mark.parametrize(
    ("options", "images", "vectors"),
    [
        ({"observe": "pixels"}, ["camera.front", "wrist"], []),
        ({"observe": "state"}, [], list(READ)),
        ({"observe": "pixels+state"}, ["camera.front", "wrist"], list(READ)),
        ({"observe": "pixels+state", "image_key": "wrist"}, ["pixels"], list(READ)),
        ({"image_key": "camera/front"}, ["pixels"], []),
        ({"observe": ["mode", "wrist"]}, ["wrist"], ["mode"]),
        ({"observe": "pixels+state", "pixels": "render"}, ["pixels"], list(READ)),
        ({"pixels": "render"}, ["pixels"], []),
    ],
)
def test_what_is_observed_can_be_chosen(options, images, vectors):
    observer = choose_observer(SPACE, "rgb_array", **options)
    assert (sorted(observer.images), sorted(observer.vectors)) == (sorted(images), sorted(vectors))
    assert observer.draws == ("pixels" in options)


def test_other_choices_are_refused_with_those_that_there_are():
    for observe in ("all", ["wrist", "hand"], []):
        with pytest.raises(BadOption, match="observe: expected"):
            choose_observer(SPACE, None, observe=observe)
    with pytest.raises(BadSpace, match="observe=state"):
        choose_observer(spaces.Box(0, 255, (16, 16, 3), np.uint8), None, observe="state")
