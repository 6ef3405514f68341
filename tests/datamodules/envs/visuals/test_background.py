import av
import numpy as np
import pytest
from PIL import Image

from datamodules.envs.errors import BadOption
from datamodules.envs.sources import open_env
from datamodules.envs.visuals.background import CLIP_FRAMES, WAVE_PERIODS, Clips, Playback, Waves

ACTION = np.full(2, 0.5, np.float32)


def frames(seed, visuals, count=6, source="toy", **kwargs):
    """An episode's first frames."""
    env = open_env(source=source, kwargs={"size": 32, **kwargs}, visuals=visuals)
    return np.stack([env.reset(seed).pixels, *(env.step(ACTION).pixels for _ in range(count))])


def write_video(path, levels):
    """A video whose frame t is the grey levels[t]."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for level in levels:
            image = np.full((64, 64, 3), level, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def test_dots_are_untouched_and_the_rest_is_not():
    plain, seen = frames(1, {}), frames(1, {"background": {}})
    dots = np.repeat(plain[:, :2].any(axis=1, keepdims=True), 3, axis=1)
    assert 0.02 < dots.mean() < 0.5
    np.testing.assert_array_equal(seen[dots], plain[dots])
    assert (seen[~dots] != plain[~dots]).mean() > 0.9


def test_a_seed_is_an_episode_and_another_seed_another_pattern():
    seen = frames(1, {"background": {}})
    np.testing.assert_array_equal(seen, frames(1, {"background": {}}))
    env = open_env(source="toy", kwargs={"size": 32}, visuals={"background": {}})
    env.reset(2), env.step(ACTION)
    np.testing.assert_array_equal(env.reset(1).pixels, seen[0])
    assert (frames(2, {"background": {}})[0] != seen[0]).mean() > 0.5


def test_waves_are_periodic_smooth_and_use_the_range():
    waves = Waves(size=(32, 48), rng=np.random.default_rng(0))
    field = np.stack([waves.frame(t) for t in range(WAVE_PERIODS[1])]).astype(int)
    assert field.shape[1:] == (3, 32, 48)
    assert field.min() == 0 and field.max() == 255 and abs(field.mean() - 127.5) < 25
    # the steepest slope of a sum of waves is that of all of them together, far below one jump of the range
    for axis in (0, 2, 3):
        assert np.abs(np.diff(field, axis=axis)).max() < 60
    assert np.abs(np.diff(field, axis=0)).mean() > 0.5
    again = Waves(size=(32, 48), rng=np.random.default_rng(0))
    np.testing.assert_array_equal(again.frame(7), field[7])


def test_jitter_before_or_after_decides_whether_the_background_is_jittered():
    both = frames(1, {"background": {}, "colour_jitter": {"strength": 1.0}})
    behind = frames(1, {"colour_jitter": {"strength": 1.0}, "background": {}})
    pattern, dots = frames(1, {"background": {}}), frames(1, {})[:, :2].any(axis=1)
    np.testing.assert_array_equal(behind.transpose(0, 2, 3, 1)[~dots], pattern.transpose(0, 2, 3, 1)[~dots])
    np.testing.assert_array_equal(behind.transpose(0, 2, 3, 1)[dots], both.transpose(0, 2, 3, 1)[dots])
    assert (both != behind).any()


def test_key_colour_replaces_exactly_that_colour():
    # every pixel of a counting frame is one colour but for the first, which is its complement
    seen = frames(9, {"background": {"key_colour": [2, 0, 9]}}, source="counting", size=16)
    plain = frames(9, {}, source="counting", size=16)
    replaced = (seen != plain).any(axis=1)
    assert replaced[2].sum() > 200 and not replaced[2, 0, 0]
    assert not replaced[[0, 1, 3, 4, 5, 6]].any()


def test_a_video_plays_from_a_random_frame_and_turns_at_its_ends(tmp_path):
    levels = np.arange(20, 220, 20)
    write_video(tmp_path / "a.mp4", levels)
    seen = frames(3, {"background": {"videos": str(tmp_path / "a.mp4")}}, count=30)
    shown = seen[:, 2, 0, 31].astype(int)  # the corner of the blue channel is never a dot's
    places = np.array([np.abs(levels - level).argmin() for level in shown])
    assert np.abs(levels[places] - shown).max() < 8  # lossy
    assert set(np.abs(np.diff(places))) == {1} and set(places) == set(range(10))
    assert len({frames(s, {"background": {"videos": str(tmp_path)}}, count=0)[0, 2, 0, 31] for s in range(8)}) > 2


def test_a_folder_is_one_clip_for_each_video_and_each_folder_of_pictures(tmp_path):
    write_video(tmp_path / "b.mp4", range(0, 250, 1))
    for name, level in (("x/1.png", 10), ("x/2.png", 20), ("y/1.jpg", 30)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((40, 20, 3), level, np.uint8)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    clips = Clips(str(tmp_path), size=(8, 6))
    assert [[file.name for file in files] for files in clips.clips] == [["b.mp4"], ["1.png", "2.png"], ["1.jpg"]]
    assert clips.frames(1).shape == (2, 3, 8, 6)
    assert clips.frames(1)[:, 0, 0, 0].tolist() == [10, 20]
    assert clips.frames(1) is clips.frames(1)
    still = Playback(Clips(str(tmp_path / "y"), size=(8, 6)), rng=np.random.default_rng(0))
    np.testing.assert_array_equal(still.frame(0), still.frame(5))
    assert len(clips.frames(0)) == 250 <= CLIP_FRAMES


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "expected a video, or a folder of videos or pictures"),
        ({"a.mp4": b"not a video"}, r"a\.mp4 cannot be decoded"),
        ({"a.png": b"not a picture"}, r"a\.png cannot be read"),
    ],
)
def test_what_cannot_be_shown_is_named(tmp_path, content, message):
    for name, data in content.items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(BadOption, match=message):
        frames(0, {"background": {"videos": str(tmp_path)}})


@pytest.mark.parametrize(
    ("source", "visuals", "message"),
    [
        ("counting", {"background": {}}, "expected a source that tells its background"),
        ("toy", {"frame_stack": {}, "background": {}}, "no frame_stack or resize before it"),
        ("toy", {"resize": {}, "background": {}}, "no frame_stack or resize before it"),
        ("toy", {"grayscale": {}, "background": {}}, "before grayscale"),
        ("toy", {"background": {"key_colour": [0, 0, 256]}}, "three numbers in 0..255"),
        ("toy", {"background": {"videos": "/nowhere"}}, "got /nowhere"),
        ("toy", {"camera": {"ids": [0]}}, "expected a source with cameras"),
    ],
)
def test_bad_options_are_named(source, visuals, message):
    with pytest.raises(BadOption, match=message):
        open_env(source=source, kwargs={}, visuals=visuals)
