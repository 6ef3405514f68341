"""Visual options on their way: order, the record of them, workers, and what a replay or a run does with it."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from datamodules.envs.errors import BadOption, UnknownSource
from datamodules.envs.pool import EnvPool
from datamodules.envs.protocol import Renders, Step
from datamodules.envs.sources import SeenLanes, open_env, visual_names
from datamodules.envs.wrapper import background_of, source_of
from datamodules.replay import Replay, ReplayMismatch
from worldmodel.spec import EnvSpec

ZERO = np.zeros(2, np.float32)


def opened(visuals):
    return open_env(source="toy", kwargs={"size": 32}, visuals=visuals)


def test_options_are_applied_in_their_order():
    stacked_grey = opened({"grayscale": {}, "frame_stack": {"count": 2}})
    grey_stacked = opened({"frame_stack": {"count": 2}, "grayscale": {}})
    shrunk_grey = opened({"resize": {"size": 16}, "grayscale": {}}).reset(0).pixels.astype(int)
    grey_shrunk = opened({"grayscale": {}, "resize": {"size": 16}}).reset(0).pixels.astype(int)
    assert stacked_grey.spec.pixels == grey_stacked.spec.pixels == (2, 32, 32)
    assert list(stacked_grey.spec.visuals) == ["grayscale", "frame_stack"]
    assert list(grey_stacked.spec.visuals) == ["frame_stack", "grayscale"]
    # linear maps that commute up to where they round
    assert 0 < np.abs(shrunk_grey - grey_shrunk).max() <= 2


def test_the_spec_records_every_argument_and_survives_json():
    spec = opened({"frame_stack": {}, "time_limit": {"env_steps": 9}}).spec
    assert spec.visuals == {"frame_stack": {"count": 3}, "time_limit": {"env_steps": 9}}
    assert EnvSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    assert opened({}).spec.visuals == {}


def test_workers_see_through_the_same_options_and_render_the_scene():
    visuals = {"grayscale": {}, "frame_stack": {"count": 2}}
    here = opened(visuals)
    with EnvPool(source="toy", kwargs={"size": 32}, visuals=visuals, count=1) as pool:
        assert pool.spec == here.spec and list(pool.spec.visuals) == list(visuals)
        np.testing.assert_array_equal(pool.reset({0: 4})[0].pixels, here.reset(4).pixels)
        np.testing.assert_array_equal(pool.step({0: ZERO})[0].pixels, here.step(ZERO).pixels)
        np.testing.assert_array_equal(pool.render(0, 100), source_of(here).render(100))


def test_a_source_without_render_has_none_in_a_wrapper():
    assert not isinstance(source_of(open_env(source="counting", kwargs={}, visuals={"frame_stack": {}})), Renders)
    assert isinstance(source_of(opened({"frame_stack": {}})), Renders)


def test_a_background_mask_is_there_until_the_frames_are_of_another_form():
    assert background_of(opened({"colour_jitter": {}, "time_limit": {"env_steps": 9}}))("pixels").shape == (1, 32, 32)
    for name in ("frame_stack", "grayscale", "resize"):
        assert background_of(opened({name: {}, "time_limit": {"env_steps": 9}})) is None
    assert background_of(open_env(source="counting", kwargs={})) is None


def test_lanes_keep_their_notes_behind_visual_options():
    class Lanes(SimpleNamespace):
        def nothing(self, *_):
            raise AssertionError

        reset = step = render = close = nothing

    for notes in (("a view was chosen",), ()):
        assert SeenLanes(Lanes(spec=opened({}).spec, notes=notes), 2, lambda env: env).notes == notes
    assert SeenLanes(Lanes(spec=opened({}).spec), 2, lambda env: env).notes == ()


def test_a_bad_option_crosses_the_process_as_its_own_type():
    with pytest.raises(BadOption, match=r"frame_stack\.count"):
        EnvPool(source="toy", kwargs={}, visuals={"frame_stack": {"count": 0}}, count=1)


@pytest.mark.parametrize("source", ["os", "os.path", "..replay", "pool", "visuals", "gym/../toy", ""])
def test_only_modules_of_the_folder_with_make_are_sources(source):
    with pytest.raises(UnknownSource):
        open_env(source=source, kwargs={})


@pytest.mark.parametrize("name", ["os", "..toy", "visuals", ""])
def test_only_modules_of_the_folder_are_visual_options(name):
    assert name not in visual_names()
    with pytest.raises(BadOption, match="visuals: no option"):
        opened({name: {}})


RECORDED = {"grayscale": {}, "frame_stack": {"count": 3}}


@pytest.mark.parametrize(
    "other",
    [{}, {"grayscale": {}}, dict(reversed(RECORDED.items())), {**RECORDED, "time_limit": {"env_steps": 9}}],
    ids=["none", "less", "order", "more"],
)
def test_a_replay_of_other_visuals_is_refused(tmp_path, other):
    def replay(visuals):
        spec = EnvSpec("x", {"pixels": (3, 8, 8)}, action_dim=2, action_repeat=1, episode_steps=5, visuals=visuals)
        return Replay(spec=spec, capacity=20, folder=tmp_path)

    begun = replay(RECORDED)
    frame = {"pixels": np.zeros((3, 8, 8), np.uint8)}
    for first in (True, False):
        row = Step(frame, 0.0, is_first=first, is_last=not first, is_terminal=False, env_steps=int(not first))
        begun.append(0, row, ZERO)
    begun.close()
    replay(RECORDED).close()
    with pytest.raises(ReplayMismatch, match="visuals: expected"):
        replay(other)
