"""Images and vectors through every format that holds them and back, and what the others say."""

from dataclasses import replace

import numpy as np
import pytest

from datamodules.formats.protocol import FormatError
from datamodules.formats.uri import open_reader, open_writer, parse
from datamodules.trajectory import Trajectory, TrajectoryInvalid
from worldmodel.spec import EnvSpec

SPEC = EnvSpec(
    task="arm",
    images={"front": (3, 16, 18), "wrist": (1, 34, 33)},
    vectors={"state": 4, "force": 1},
    action_dim=2,
    action_repeat=2,
    episode_steps=30,
    action_low=(-2.0, -1.0),
    action_high=(2.0, 1.0),
)
SPECS = {
    "both": SPEC,
    "vectors": replace(SPEC, images={}),
    "one": replace(SPEC, images={"pixels": (3, 40, 40)}, vectors={"state": 2}),
    "images": replace(SPEC, vectors={}),
    # as the last action and reward of an observation that has them, of as many numbers as the arrays of that name
    "names": replace(SPEC, images={"image": (3, 16, 16)}, vectors={"action": 2, "reward": 1, "pixels": 3}),
    "pixels": replace(SPEC, images={}, vectors={"pixels": 3}),
    "none": replace(SPEC, action_dim=0, action_low=(), action_high=()),
}
OUT = {"npz": "npz:{}/out", "hdf5": "hdf5:{}/out.hdf5", "minari": "minari:{}/out", "segments": "segments:{}/out"}


def episode(spec, seed, rows=9):
    rng = np.random.default_rng(seed)
    seen = {name: rng.integers(0, 256, (rows, *shape), np.uint8) for name, shape in spec.images.items()}
    seen |= {name: rng.normal(size=(rows, size)).astype(np.float32) for name, size in spec.vectors.items()}
    action = rng.uniform(-1, 1, (rows, spec.action_dim)).astype(np.float32)
    reward, steps = rng.normal(size=rows).astype(np.float32), np.full(rows, 2, np.int32)
    action[0] = reward[0] = steps[0] = 0
    return Trajectory(seen, action, reward, seed % 2 == 0, steps, f"episode {seed}")


def written(uri, spec, count=3):
    episodes = [episode(spec, seed) for seed in range(count)]
    writer = open_writer(uri, spec)
    for one in episodes:
        writer.write(one)
    writer.close()
    return episodes


@pytest.mark.parametrize("kind", SPECS)
@pytest.mark.parametrize("scheme", OUT)
def test_every_byte_comes_back(tmp_path, scheme, kind):
    uri, spec = OUT[scheme].format(tmp_path), SPECS[kind]
    episodes = written(uri, spec)
    reader = open_reader(uri)
    assert not [*spec.differences(reader.spec)] and len(reader) == 3
    for _ in range(2):
        found = list(reader.trajectories())
        assert reader.problems == [] and reader.notes.texts() == []
        for one, other in zip(episodes, found, strict=True):
            assert list(other.observation) == list(one.observation)
            for name, values in one.observation.items():
                assert other.observation[name].dtype == values.dtype
                np.testing.assert_array_equal(other.observation[name], values, err_msg=name)
            np.testing.assert_array_equal(other.action, one.action)
            np.testing.assert_array_equal(other.reward, one.reward)
            assert other.terminal == one.terminal
    reader.close()


@pytest.mark.parametrize("scheme", ["npz", "hdf5", "minari"])
def test_parts_can_be_chosen_and_the_others_are_named(tmp_path, scheme):
    uri = OUT[scheme].format(tmp_path)
    episodes = written(uri, SPEC)
    reader = open_reader(f"{uri}?observe=state,front")
    assert reader.spec.images == {"front": (3, 16, 18)} and reader.spec.vectors == {"state": 4}
    found = list(reader.trajectories())
    for one, other in zip(episodes, found, strict=True):
        assert set(other.observation) == {"state", "front"}
        for name, values in other.observation.items():
            np.testing.assert_array_equal(values, one.observation[name])
    assert any("force" in text and "wrist" in text for text in reader.notes.texts()), reader.notes.texts()
    reader.close()
    with pytest.raises(FormatError, match="hand"):
        open_reader(f"{uri}?observe=hand")


@pytest.mark.parametrize("scheme", ["npz", "hdf5", "minari", "lerobot"])
def test_parts_can_have_the_names_of_an_environment(tmp_path, scheme):
    """As a policy needs them that is to act where what a data set calls otherwise is `state`."""
    uri = f"lerobot:{tmp_path}/out" if scheme == "lerobot" else OUT[scheme].format(tmp_path)
    written(f"{uri}?codec=png" if scheme == "lerobot" else uri, SPEC)
    reader = open_reader(f"{uri}?observe=pixels:front,joints:state,state:force")
    assert reader.spec.images == {"pixels": (3, 16, 18)} and reader.spec.vectors == {"joints": 4, "state": 1}
    for one, other in zip([episode(SPEC, seed) for seed in range(3)], reader.trajectories(), strict=True):
        for name, key in (("pixels", "front"), ("joints", "state"), ("state", "force")):
            np.testing.assert_array_equal(other.observation[name], one.observation[key])
    reader.close()
    for wrong in ("state,state", "a:state,a:front", "state:", ":state", "state,,front"):
        with pytest.raises(FormatError, match="observe: expected different names as front,state or state:observations"):
            open_reader(f"{uri}?observe={wrong}")


@pytest.mark.parametrize("kind", ["both", "vectors", "one"])
def test_formats_of_films_say_which_hold_more(tmp_path, kind):
    with pytest.raises(FormatError, match=r"expected one image and nothing else, got .*npz, hdf5, minari and segments"):
        open_writer(f"mp4:{tmp_path}/out", SPECS[kind])
    if kind == "vectors":
        with pytest.raises(FormatError, match="expected an image at least"):
            open_writer(f"lerobot:{tmp_path}/out", SPECS[kind])


def test_a_film_comes_back_under_its_name(tmp_path):
    spec = replace(SPEC, images={"camera": (3, 16, 18)}, vectors={})
    (written_one,) = written(f"mp4:{tmp_path}/out", spec, count=1)
    for query, shape in (("", (3, 16, 18)), ("?size=8", (3, 8, 8))):
        reader = open_reader(f"mp4:{tmp_path}/out{query}")
        (found,) = reader.trajectories()
        assert reader.problems == [] and reader.spec.images == {"camera": shape}
        assert query or np.array_equal(found.observation["camera"], written_one.observation["camera"])


@pytest.mark.parametrize("scheme", ["mp4", "lerobot"])
def test_tables_need_an_action(tmp_path, scheme):
    spec = replace(SPECS["none"], images={"pixels": (3, 16, 16)}, vectors={})
    with pytest.raises(FormatError, match="out: expected an action dimension at least, got none"):
        open_writer(f"{scheme}:{tmp_path}/out", spec)


@pytest.mark.parametrize("kind", ["both", "one", "images", "names"])
def test_lerobot_holds_cameras_and_states(tmp_path, kind):
    spec, uri = SPECS[kind], f"lerobot:{tmp_path}/out"
    episodes = written(f"{uri}?codec=png", spec)
    reader = open_reader(uri)
    assert reader.spec.images == spec.images and reader.spec.vectors == spec.vectors
    found = list(reader.trajectories())
    assert reader.problems == [], reader.problems
    for one, other in zip(episodes, found, strict=True):
        assert list(other.observation) == list(one.observation)
        for name, values in one.observation.items():
            np.testing.assert_array_equal(other.observation[name], values, err_msg=name)
        np.testing.assert_allclose(other.action, one.action, atol=1e-6)
    reader.close()
    if kind == "both":
        reader = open_reader(f"{uri}?observe=wrist,observation.state")
        assert list(next(reader.trajectories()).observation) == ["wrist", "observation.state"]
        with pytest.raises(FormatError, match=r"observe: expected names of observation\.images\.front"):
            open_reader(f"{uri}?observe=state")


def test_an_episode_of_other_names_or_sizes_is_left_out(tmp_path):
    uri = OUT["npz"].format(tmp_path)
    written(uri, SPEC)
    writer = open_writer(uri, SPEC)
    for number, vectors in enumerate(({"state": 5, "force": 1}, {"state": 4})):
        spec = replace(SPEC, vectors=vectors)
        with pytest.raises(TrajectoryInvalid, match="expected"):
            writer.write(episode(spec, 0))
        elsewhere = tmp_path / f"other_{number}"
        open_writer(OUT["npz"].format(elsewhere), spec).write(episode(spec, 0))
        for file in elsewhere.rglob("*.npz"):
            file.rename(parse(uri).path / file.name)
    open_writer(uri, SPEC).write(episode(SPEC, 7))
    reader = open_reader(uri)
    assert len(list(reader.trajectories())) == 4
    assert "state: expected float32 (4,), got float32 (5,)" in reader.problems[0].reason
    assert "observation.force" in reader.problems[1].reason
