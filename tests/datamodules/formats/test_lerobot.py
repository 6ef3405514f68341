"""LeRobot v3: exact round trip, data sets laid out as others write them, and the layout of our own."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from datamodules.formats import images
from datamodules.formats.protocol import FormatError
from datamodules.formats.uri import open_reader, open_writer
from tests.datamodules.formats.episodes import SPEC, assert_holds, episode, some_episodes

FPS = 10
CAMERAS = ("observation.images.top", "observation.images.wrist")


def numbered(count: int, side: int = 16) -> np.ndarray:
    """Frames [count, 3, side, side] that show their own number in grey."""
    grey = (np.arange(count) * 3 % 256).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(grey[:, None, None, None], (count, 3, side, side)))


def write_table(path: Path, columns: dict, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), path, **options)


def data_set(root: Path, lengths=(5, 3, 7), *, codec="lossless", in_film=True, group=100, dim=2, **extra) -> Path:
    """All episodes in one table and one film, as recorders consolidate them; frame k of the set shows k."""
    rows, ends = sum(lengths), np.cumsum(lengths)
    begins = ends - lengths
    index = np.arange(rows)
    which = np.repeat(np.arange(len(lengths)), lengths)
    cameras = CAMERAS if in_film else CAMERAS[:1]
    dtype, names = ("video", ["height", "width", "channels"]) if in_film else ("image", ["channel", "height", "width"])
    shape = [16, 16, 3] if in_film else [3, 16, 16]
    columns = {
        "action": [[float(k), -float(k)][:dim] for k in index],
        "timestamp": ((index - begins[which]) / FPS).astype(np.float32),
        "frame_index": index - begins[which],
        "episode_index": which,
        "index": index,
        **extra,
    }
    features = {key: {"dtype": "float32", "shape": [1], "names": None} for key in columns}
    features["action"]["shape"] = [dim]
    features |= {key: {"dtype": dtype, "shape": shape, "names": names} for key in cameras}
    if not in_film:
        columns[cameras[0]] = [{"bytes": images.encode_picture(frame), "path": None} for frame in numbered(rows)]
    write_table(root / "data/chunk-000/file-000.parquet", columns, row_group_size=group)
    lines = {
        "episode_index": np.arange(len(lengths)),
        "length": lengths,
        "data/chunk_index": np.zeros(len(lengths), int),
        "data/file_index": np.zeros(len(lengths), int),
        "dataset_from_index": begins,
        "dataset_to_index": ends,
    }
    for key in cameras if in_film else ():
        zeros = np.zeros(len(lengths), int)
        lines |= {f"videos/{key}/chunk_index": zeros, f"videos/{key}/file_index": zeros}
        lines |= {f"videos/{key}/from_timestamp": begins / FPS, f"videos/{key}/to_timestamp": ends / FPS}
        film = root / f"videos/{key}/chunk-000/file-000.mp4"
        film.parent.mkdir(parents=True)
        shift = 0 if key == CAMERAS[0] else 100
        images.encode_film(film, numbered(rows) + np.uint8(shift), fps=FPS, codec=codec)
    write_table(root / "meta/episodes/chunk-000/file-000.parquet", lines)
    info = {"codebase_version": "v3.0", "fps": FPS, "features": features}
    info |= {"data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"}
    info |= {"video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4" if in_film else None}
    (root / "meta/info.json").write_text(json.dumps(info))
    stats = {"action": {"min": [0.0, 1.0 - rows][:dim], "max": [rows - 1.0, 0.0][:dim]}}
    (root / "meta/stats.json").write_text(json.dumps(stats))
    return root


@pytest.mark.parametrize("spec", [SPEC, replace(SPEC, images={"pixels": (1, 17, 15)})])
@pytest.mark.parametrize("codec", ["lossless", "png"])
def test_round_trip_is_exact(tmp_path, codec, spec):
    expected = [replace(trajectory, observation={"pixels": trajectory.pixels}) for trajectory in some_episodes()]
    expected = [episode(len(e), 3, spec=spec, terminal=e.terminal) for e in expected]
    writer = open_writer(f"lerobot:{tmp_path}/out?codec={codec}", spec)
    for trajectory in expected:
        writer.write(trajectory)
    writer.close()
    assert_holds(open_reader(f"{tmp_path}/out"), expected, spec=spec)
    with pytest.raises(FormatError, match="empty folder"):
        open_writer(f"lerobot:{tmp_path}/out", spec)


def test_the_default_codec_is_near(tmp_path):
    trajectory = replace(episode(40), observation={"pixels": numbered(40)})
    open_writer(f"lerobot:{tmp_path}", SPEC).write(trajectory)
    (got,) = open_reader(f"lerobot:{tmp_path}").trajectories()
    assert np.abs(got.pixels.astype(int) - trajectory.pixels).max() <= 4
    assert np.array_equal(got.action, trajectory.action) and np.array_equal(got.reward, trajectory.reward)


@pytest.mark.parametrize("options", [{"codec": "lossless"}, {"codec": "h264"}, {"in_film": False}])
@pytest.mark.parametrize("group", [100, 4])
def test_episodes_are_found_inside_shared_files(tmp_path, options, group):
    root = data_set(tmp_path / "set", group=group, **options)
    camera = "" if "in_film" in options else f"?camera={CAMERAS[0]}"
    reader = open_reader(f"lerobot:{root}{camera}")
    assert reader.spec.pixels == (3, 16, 16) and len(reader) == 3 and reader.spec.episode_steps == 6
    assert (reader.spec.action_low, reader.spec.action_high) == ((0.0, -14.0), (14.0, 0.0))  # stats.json's
    for _ in range(2):
        begin = 0
        for length, got in zip((5, 3, 7), reader.trajectories(), strict=True):
            rows = begin + np.arange(length)
            assert np.abs(got.pixels[:, 0, 0, 0].astype(int) - rows * 3).max() <= (3 if "h264" in str(options) else 0)
            scaled = rows / 14 * 2 - 1  # stats.json: 0..14
            assert np.allclose(got.action[1:, 0], scaled[:-1]) and np.allclose(got.action[1:, 1], -scaled[:-1])
            assert not got.action[0].any() and not got.reward.any() and not got.terminal
            assert got.env_steps.tolist() == [0] + [1] * (length - 1)
            begin += length
        assert reader.problems == []
    reader.close()


def test_episodes_in_any_order(tmp_path):
    root = data_set(tmp_path)
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    parquet.write_table(parquet.read_table(path).take([2, 0, 1]), path)
    reader = open_reader(f"lerobot:{root}?camera={CAMERAS[1]}")
    shown = [trajectory.pixels[0, 0, 0, 0] - 100 for trajectory in reader.trajectories()]
    assert shown == [24, 0, 15] and reader.problems == []


def test_what_follows_an_action_arrives_with_the_next_frame(tmp_path):
    done = np.array([False, False, True])
    extra = {"next.reward": np.array([1.0, 2.0, 3.0], np.float32), "next.done": done, "next.success": done}
    root = data_set(tmp_path, (3,), in_film=False, **extra)

    def read(options: str):
        return next(iter(open_reader(f"lerobot:{root}?low=-9&high=9{options}").trajectories()))

    dropped, repeated = read(""), read("&last=repeat&action_repeat=2")
    assert dropped.reward.tolist() == [0, 1, 2] and not dropped.terminal  # the third reward's frame is not recorded
    assert repeated.reward.tolist() == [0, 1, 2, 3] and repeated.terminal
    assert np.array_equal(repeated.pixels[3], repeated.pixels[2]) and repeated.env_steps.tolist() == [0, 2, 2, 2]
    assert np.allclose(repeated.action[:, 0], [0, 0, 1 / 9, 2 / 9])
    assert read("&last=repeat&terminal=next.done").terminal
    with pytest.raises(FormatError, match=r"next\.end"):
        read("&terminal=next.end")


def test_frames_are_resized_by_area(tmp_path):
    root = data_set(tmp_path, in_film=False)
    reader = open_reader(f"lerobot:{root}?size=8")
    assert reader.spec.pixels == (3, 8, 8)
    for trajectory in reader.trajectories():
        assert trajectory.pixels.shape[1:] == (3, 8, 8)


def test_one_of_several_cameras_has_to_be_named(tmp_path):
    with pytest.raises(FormatError, match=r"top, observation.images.wrist, got ''"):
        open_reader(f"lerobot:{data_set(tmp_path)}")


def test_several_cameras_become_channels_in_their_order(tmp_path):
    root = data_set(tmp_path, lengths=(5, 3))
    alone = [list(open_reader(f"lerobot:{root}?camera={key}").trajectories()) for key in CAMERAS]
    reader = open_reader(f"lerobot:{root}?camera={CAMERAS[1]},{CAMERAS[0]}")
    both = list(reader.trajectories())
    assert len(both) == len(reader) == 2 and reader.spec.pixels == (6, 16, 16) and reader.problems == []
    for got, top, wrist in zip(both, *alone, strict=True):
        assert np.array_equal(got.pixels, np.concatenate([wrist.pixels, top.pixels], 1))
        assert np.array_equal(got.action, top.action) and not np.array_equal(top.pixels, wrist.pixels)
    reader.close()
    next((root / "videos" / CAMERAS[0]).rglob("*.mp4")).write_bytes(b"no film")
    reader = open_reader(f"lerobot:{root}?camera={CAMERAS[1]},{CAMERAS[0]}")
    assert list(reader.trajectories()) == [] and len(reader.problems) == 2
    with pytest.raises(FormatError, match="camera: expected one of"):
        open_reader(f"lerobot:{root}?camera={CAMERAS[1]},nope")


def test_our_layout_is_the_published_one(tmp_path):
    writer = open_writer(f"lerobot:{tmp_path}?codec=lossless&fps=20", SPEC)
    for rows in (4, 3):
        writer.write(episode(rows, terminal=True))
    info = json.loads((tmp_path / "meta/info.json").read_text())
    assert info["codebase_version"] == "v3.0" and info["fps"] == 20 and info["splits"] == {"train": "0:2"}
    assert info["total_episodes"] == 2 and info["total_frames"] == 7 and info["total_tasks"] == 1
    camera = info["features"]["observation.images.camera"]
    assert camera["dtype"] == "video" and camera["shape"] == [16, 16, 3]
    table = parquet.read_table(tmp_path / info["data_path"].format(chunk_index=0, file_index=1)).to_pydict()
    assert table["index"] == [4, 5, 6] and table["frame_index"] == [0, 1, 2] and table["episode_index"] == [1, 1, 1]
    assert np.allclose(table["timestamp"], [0, 0.05, 0.1]) and table["next.done"] == [False, True, True]
    assert table["action"][-1] == [0, 0] and info["features"]["action"]["shape"] == [2]
    assert {*table} | {"observation.images.camera"} == {*info["features"]}
    lines = parquet.read_table(tmp_path / "meta/episodes").to_pydict()
    assert lines["dataset_from_index"] == [0, 4] and lines["dataset_to_index"] == [4, 7] and lines["length"] == [4, 3]
    assert lines["videos/observation.images.camera/to_timestamp"] == [0.2, 0.15]
    assert lines["tasks"] == [[SPEC.task], [SPEC.task]]
    film = info["video_path"].format(video_key="observation.images.camera", chunk_index=0, file_index=1)
    assert (tmp_path / film).is_file()
    tasks = parquet.read_table(tmp_path / "meta/tasks.parquet")
    assert json.loads(tasks.schema.metadata[b"pandas"])["index_columns"] == ["task"]


def test_stats_are_those_of_all_rows(tmp_path):
    writer = open_writer(f"lerobot:{tmp_path}?codec=png", SPEC)
    written = [episode(rows, rows) for rows in (4, 9, 2)]
    for trajectory in written:
        writer.write(trajectory)
    stats = json.loads((tmp_path / "meta/stats.json").read_text())
    actions = np.concatenate([np.append(e.action[1:], [[0, 0]], 0) for e in written]).astype(float)
    assert np.allclose(stats["action"]["mean"], actions.mean(0)) and np.allclose(stats["action"]["std"], actions.std(0))
    assert stats["action"]["min"] == actions.min(0).tolist() and stats["action"]["count"] == [15]
    pixels = np.concatenate([e.pixels for e in written]) / 255
    mean = np.array(stats["observation.images.camera"]["mean"])
    assert mean.shape == (3, 1, 1) and np.allclose(mean[:, 0, 0], pixels.mean((0, 2, 3)))
    camera = {key: np.ravel(values) for key, values in stats["observation.images.camera"].items()}
    assert np.allclose(camera["std"], pixels.std((0, 2, 3))) and np.allclose(camera["max"], pixels.max((0, 2, 3)))
    assert np.allclose(camera["min"], pixels.min((0, 2, 3)))


def test_rows_of_another_episode_are_noticed(tmp_path):
    root = data_set(tmp_path, in_film=False)
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    lines = parquet.read_table(path).to_pydict()
    lines["dataset_from_index"][1] += 1  # as after a crash between counter and data
    write_table(path, lines)
    reader = open_reader(f"lerobot:{root}")
    assert [len(trajectory) for trajectory in reader.trajectories()] == [5, 7]
    assert [problem.name for problem in reader.problems] == ["episode 1"] and "index" in reader.problems[0].reason
