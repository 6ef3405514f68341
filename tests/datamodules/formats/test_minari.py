"""Minari: exact round trip, data sets as the library writes them, and bad episodes left out by name."""

import io
import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from datamodules.formats.protocol import FormatError
from datamodules.formats.uri import open_reader, open_writer
from datamodules.trajectory import TrajectoryInvalid
from tests.datamodules.formats.episodes import SPEC, assert_holds, episode, some_episodes

BOX = {"type": "Box", "dtype": "float32", "shape": [2], "low": [-2.0, 0.0], "high": [2.0, 4.0]}


def arrays(rows: int = 5) -> dict[str, np.ndarray]:
    """One episode of `rows` frames; frame t shows t, action t was taken there."""
    steps = np.arange(rows - 1)
    frames = np.broadcast_to(np.arange(rows, dtype=np.uint8)[:, None, None, None], (rows, 8, 8, 3))
    return {
        "observations": frames,
        "actions": np.stack([steps / 2 - 1, steps / 2], 1).astype(np.float32),
        "rewards": steps + 1.0,
        "terminations": steps == rows - 2,
        "truncations": np.zeros(rows - 1, bool),
    }


def data_set(root: Path, *episodes: dict[str, np.ndarray], space: object = BOX) -> str:
    (root / "data").mkdir(parents=True, exist_ok=True)
    metadata = {"total_episodes": len(episodes), "data_format": "hdf5", "action_space": json.dumps(space)}
    (root / "data/metadata.json").write_text(json.dumps(metadata))
    with h5py.File(root / "data/main_data.hdf5", "w") as file:
        for k, content in enumerate(episodes):
            for key, values in content.items():
                file.create_dataset(f"episode_{k}/{key}", data=values, chunks=True, maxshape=(None, *values.shape[1:]))
    return f"minari:{root}"


@pytest.mark.parametrize("spec", [SPEC, replace(SPEC, images={"pixels": (1, 17, 15)})])
def test_round_trip_is_exact(tmp_path, spec):
    expected = [episode(len(e), k, spec=spec, terminal=e.terminal) for k, e in enumerate(some_episodes() * 3)]
    writer = open_writer(f"minari:{tmp_path}/out", spec)
    for trajectory in expected:
        writer.write(trajectory)
    writer.close()
    assert_holds(open_reader(f"{tmp_path}/out"), expected, spec=spec)
    assert_holds(open_reader(f"minari:{tmp_path}/out/data"), expected, spec=spec)
    with pytest.raises(FormatError, match="single row"):
        writer.write(episode(1, spec=spec, terminal=True))
    with pytest.raises(TrajectoryInvalid, match="action: expected 2 numbers in each row, got 3"):
        writer.write(episode(3, spec=replace(spec, action_dim=3)))
    with pytest.raises(FormatError, match="empty folder"):
        open_writer(f"minari:{tmp_path}/out", spec)


def test_what_the_library_expects_is_there(tmp_path):
    open_writer(f"minari:{tmp_path}", SPEC).write(episode(5, terminal=True))
    metadata = json.loads((tmp_path / "data/metadata.json").read_text())
    assert metadata["total_episodes"] == 1 and metadata["total_steps"] == 4 and metadata["data_format"] == "hdf5"
    space = json.loads(metadata["observation_space"])
    assert space["shape"] == [16, 16, 3] and np.array(space["high"]).shape == (16, 16, 3)
    with h5py.File(tmp_path / "data/main_data.hdf5") as file:
        group = file["episode_0"]
        assert group.attrs["id"] == 0 and group.attrs["total_steps"] == 4
        assert group["observations"].shape == (5, 16, 16, 3) and group["actions"].shape == (4, 2)
        assert group["terminations"][:].tolist() == [False, False, False, True] and not group["truncations"][:].any()


def test_actions_arrive_within_bounds(tmp_path):
    reader = open_reader(data_set(tmp_path / "set", arrays(5), arrays(3)))
    first, second = reader.trajectories()
    assert reader.spec.task == "set" and reader.spec.pixels == (3, 8, 8) and reader.spec.episode_steps == 4
    assert first.pixels[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4] and len(second) == 3
    assert reader.spec.action_low == tuple(BOX["low"]) and reader.spec.action_high == tuple(BOX["high"])
    assert first.action.tolist() == [[0, 0], [-0.5, -1], [-0.25, -0.75], [0, -0.5], [0.25, -0.25]]
    assert first.reward.tolist() == [0, 1, 2, 3, 4] and first.terminal and first.env_steps.tolist() == [0, 1, 1, 1, 1]
    reader.close()


def test_discrete_actions_are_one_hot(tmp_path):
    content = arrays(4) | {"actions": np.array([3, 1, 2])}
    reader = open_reader(data_set(tmp_path, content, space={"type": "Discrete", "n": 3, "start": 1}))
    (got,) = reader.trajectories()
    assert got.action.tolist() == [[0, 0, 0], [0, 0, 1], [1, 0, 0], [0, 1, 0]]
    assert reader.spec.discrete and reader.spec.action_dim == 3
    reader.close()
    with pytest.raises(FormatError, match=r"expected 2 actions, got 0\.\.2"):
        open_reader(data_set(tmp_path, content, space={"type": "Discrete", "n": 2, "start": 1}))


def test_the_picture_among_observations_is_found_or_named(tmp_path):
    content = arrays(4)
    frames = content.pop("observations")
    content |= {"observations/pose": np.zeros((4, 3)), "observations/camera/rgb": frames}
    (got,) = open_reader(data_set(tmp_path / "one", content)).trajectories()
    assert np.array_equal(got.pixels[:, 0], frames[..., 0])
    content |= {"observations/grey": frames[..., 0] + np.uint8(9)}
    with pytest.raises(FormatError, match=r"image_key"):
        open_reader(data_set(tmp_path / "two", content))
    (got,) = open_reader(f"minari:{tmp_path}/two?image_key=grey").trajectories()
    assert got.pixels.shape == (4, 1, 8, 8) and got.pixels[0, 0, 0, 0] == 9
    content["observations/wrist"] = 255 - frames
    (got,) = open_reader(f"{data_set(tmp_path / 'three', content)}?image_key=wrist,camera/rgb").trajectories()
    assert got.pixels.shape == (4, 6, 8, 8) and np.array_equal(got.pixels[:, 0], 255 - got.pixels[:, 3])


def test_bad_episodes_are_left_out_by_name(tmp_path):
    good = arrays(4)
    bad = {
        "T + 1": good | {"observations": good["observations"][:3]},
        "one of uint8 pictures, got none": good | {"observations": good["observations"].astype(np.float32)},
        "expected rewards": {key: values for key, values in good.items() if key != "rewards"},
        "finite": good | {"rewards": np.array([1, np.nan, 1])},
        "expected 5 bounds": good | {"actions": np.zeros((3, 5))},
        "outside their bounds": good | {"actions": np.full((3, 2), 9.0)},
        "in the last of 3": good | {"terminations": np.ones(3, bool)},
    }
    reader = open_reader(data_set(tmp_path, good, *bad.values(), good))
    assert len(list(reader.trajectories())) == 2 and len(reader) == len(bad) + 2
    assert [problem.name for problem in reader.problems] == [f"episode_{k + 1}" for k in range(len(bad))]
    for expected, problem in zip(bad, reader.problems, strict=True):
        assert expected in problem.reason


def encoded(frames: np.ndarray, kind: str = "JPEG") -> list[np.ndarray]:
    """Each frame as the library encodes it."""
    files = [io.BytesIO() for _ in frames]
    for file, frame in zip(files, frames, strict=True):
        Image.fromarray(frame).save(file, format=kind)
    return [np.frombuffer(file.getvalue(), np.uint8) for file in files]


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("stored", ["of several lengths", "of one length", "in a group"])
def test_encoded_pictures_are_read(tmp_path, kind, stored):
    """As DataCollector writes them: rows of bytes where all pictures take as many, else of variable length."""
    content = arrays(5)
    frames = np.repeat(np.repeat(content.pop("observations"), 4, 1), 4, 2)
    frames = frames * np.uint8(stored != "of one length")
    if stored != "of one length":
        frames[1:, 8:16, 8:16] = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3))
    pictures = encoded(frames, kind)
    assert (len({len(one) for one in pictures}) == 1) == (stored == "of one length")
    uri = data_set(tmp_path, content)
    key = "observations/camera/rgb" if stored == "in a group" else "observations"
    with h5py.File(tmp_path / "data/main_data.hdf5", "a") as file:
        if stored == "of one length":
            file.create_dataset(f"episode_0/{key}", data=pictures, chunks=True)
        else:
            flexible = h5py.vlen_dtype(np.uint8)
            file.create_dataset(f"episode_0/{key}", data=np.array(pictures, object), dtype=flexible, chunks=True)
    (got,) = open_reader(uri).trajectories()
    shown = np.stack([np.asarray(Image.open(io.BytesIO(one.tobytes()))) for one in pictures])
    assert np.array_equal(got.pixels, shown.transpose(0, 3, 1, 2)) and got.pixels.shape == (5, 3, 32, 32)
    if kind == "PNG":
        assert np.array_equal(shown, frames)


@pytest.mark.parametrize("channels", [1, 3, 9])
def test_what_the_library_takes_for_pictures_is_written_as_such(tmp_path, channels):
    """It decodes uint8 observations of 32 x 32 and more, whatever the metadata say before 0.5.4."""
    spec = replace(SPEC, images={"pixels": (channels, 32, 40)})
    expected = [episode(rows, rows, spec=spec) for rows in (4, 7)]
    expected[0] = replace(expected[0], observation={"pixels": np.zeros_like(expected[0].pixels)})  # PNGs of one length
    writer = open_writer(f"minari:{tmp_path}", spec)
    for trajectory in expected:
        writer.write(trajectory)
    assert_holds(open_reader(f"minari:{tmp_path}"), expected, spec=spec)
    metadata = json.loads((tmp_path / "data/metadata.json").read_text())
    shape = json.loads(metadata["observation_space"])["shape"]
    with h5py.File(tmp_path / "data/main_data.hdf5") as file:
        for name in ("episode_0", "episode_1"):
            stored = file[name]["observations"]
            if channels == 9:  # the library would fail to make pictures of these
                assert min(shape[:2]) < 32 and stored.shape[1:] == tuple(shape)
                continue
            pictures = np.stack([np.asarray(Image.open(io.BytesIO(one))) for one in stored])
            assert pictures.shape[1:] == tuple(shape) and metadata["jpeg_encoding"] is True


def test_lengths_of_pictures_are_checked_before_they_are_read(tmp_path):
    content = arrays(5)
    pictures = encoded(np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8))
    del content["observations"]
    uri = data_set(tmp_path, content)
    path = tmp_path / "data/main_data.hdf5"
    with h5py.File(path, "a") as file:
        flexible = h5py.vlen_dtype(np.uint8)
        stored = file.create_dataset("episode_0/observations", data=np.array(pictures, object), dtype=flexible)
        offset = stored.id.get_offset()
    whole = bytearray(path.read_bytes())
    assert int.from_bytes(whole[offset : offset + 4], "little") == len(pictures[0])
    whole[offset + 16 : offset + 20] = b"\xff\xff\xff\x7f"
    path.write_bytes(whole)
    with pytest.raises(FormatError, match="bytes of a picture: expected at most"):
        open_reader(uri)
