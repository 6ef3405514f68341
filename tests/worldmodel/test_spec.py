"""EnvSpec: through JSON and back, from the form of the past, and what agrees with what."""

import json
from dataclasses import fields, replace
from typing import Any

import pytest

from worldmodel.errors import BadValue
from worldmodel.spec import DYNAMICS, INTERFACE, UNITS, EnvSpec, require_same

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


def differing(one: EnvSpec, other: EnvSpec, facts: tuple[str, ...] = ()) -> list[str]:
    return [difference.fact for difference in one.differences(other, facts)]


def test_unknown_facts_are_no_differences_and_another_order_is_one() -> None:
    assert differing(SPEC, SPEC) == differing(SPEC, EnvSpec.from_json(json.loads(json.dumps(SPEC.to_json())))) == []
    assert differing(SPEC, replace(SPEC, action_low=None, action_high=None)) == []
    assert [*SPEC.differences(replace(SPEC, action_low=(-1.0, 0.1)))] == [("action_low", (-2.0, 0.1), (-1.0, 0.1))]
    ends, goes_on = (replace(SPEC, terminates=terminates) for terminates in (True, False))
    assert differing(SPEC, ends) == [] and differing(ends, goes_on) == ["terminates"]
    assert differing(SPEC, replace(SPEC, images=dict(reversed(SPEC.images.items())))) == ["images"]
    assert differing(SPEC, replace(SPEC, vectors={"state": 7})) == ["vectors"]


OTHER: dict[str, Any] = {
    "task": "leg",
    "images": {"front": (3, 8, 8)},
    "action_dim": 3,
    "action_repeat": 4,
    "episode_steps": 5,
    "look": "fast",
    "backend": "egl",
    "discrete": True,
    "visuals": {"grayscale": {}},
    "vectors": {},
    "action_low": (-1.0, 0.1),
    "action_high": (1.0, 0.3),
    "terminates": True,
}


@pytest.mark.parametrize("fact", [field.name for field in fields(EnvSpec)])
def test_every_field_counts_and_each_subset_by_what_it_is_for(fact: str) -> None:
    known = replace(SPEC, terminates=False)
    other = replace(known, **{fact: OTHER[fact]})
    assert differing(known, other) == [fact]
    shows, acts = fact in ("images", "vectors"), fact in ("action_dim", "discrete")
    interface = ["observed"] * shows + ["actions"] * acts
    assert differing(known, other, INTERFACE) == interface
    assert differing(known, other, DYNAMICS) == interface + [fact] * (fact == "action_repeat")
    assert differing(known, other, UNITS) == interface + [fact] * (fact in ("action_low", "action_high"))


def test_what_differs_first_is_said_in_words() -> None:
    require_same(SPEC, replace(SPEC, action_repeat=4), INTERFACE, key="task", told="as recorded")
    with pytest.raises(BadValue, match=r"^task: expected actions 2 continuous as recorded, got 3 discrete$"):
        require_same(SPEC, replace(SPEC, action_dim=3, discrete=True), INTERFACE, key="task", told="as recorded")
