"""EnvSpec: through JSON and back, from the form of the past, and what agrees with what."""

import json
from dataclasses import replace

import pytest

from worldmodel.spec import EnvSpec

SPEC = EnvSpec(
    task="arm",
    images={"front": (3, 16, 12), "wrist": (1, 8, 8)},
    vectors={"state": 7, "force": 1},
    action_dim=2,
    action_repeat=2,
    episode_steps=9,
    action_low=(-2.0, 0.1),
    action_high=(2.0, 0.3),
)


def test_a_spec_comes_back_from_json_equal() -> None:
    assert EnvSpec.from_json(json.loads(json.dumps(SPEC.to_json()))) == SPEC
    assert SPEC.episode_decisions == 5 and SPEC.observed == "front 3x16x12, wrist 1x8x8, state 7, force 1"


def test_a_spec_of_a_version_that_knew_pixels_only_is_read() -> None:
    old = {"task": "a", "pixels": [3, 8, 8], "action_dim": 1, "action_repeat": 1, "episode_steps": 3, "visuals": {}}
    spec = EnvSpec.from_json(old)
    assert spec.images == {"pixels": (3, 8, 8)} and spec.vectors == {} and spec.pixels == (3, 8, 8)
    assert spec.observed == "3x8x8" and spec.action_low is None


def test_pixels_are_the_only_image_and_nothing_else() -> None:
    with pytest.raises(ValueError, match=r"images: expected one, got \['front', 'wrist'\]"):
        _ = SPEC.pixels


def test_unknown_bounds_agree_and_another_order_does_not() -> None:
    assert SPEC.agrees(replace(SPEC, action_low=None, action_high=None))
    assert not SPEC.agrees(replace(SPEC, action_low=(-1.0, 0.1)))
    ends, goes_on = (replace(SPEC, terminates=terminates) for terminates in (True, False))
    assert SPEC.agrees(ends) and not ends.agrees(goes_on)
    assert not SPEC.agrees(replace(SPEC, images=dict(reversed(SPEC.images.items()))))
    assert not SPEC.agrees(replace(SPEC, vectors={"state": 7}))
