"""HDF5 in both layouts: exact round trip, alignment by departure undone, and bad episodes left out by name."""

import io
import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from datamodules.formats.protocol import FormatError
from datamodules.formats.uri import open_reader, open_writer
from tests.datamodules.formats.episodes import SPEC, assert_holds, episode, some_episodes
from worldmodel.spec import EnvSpec


def robomimic(path: Path, *, next_obs: bool, demos: int = 12) -> dict[int, dict[str, np.ndarray]]:
    """A file with the groups of robomimic: `demos` of 5 steps and a camera, beside what is no picture."""
    made = {}
    with h5py.File(path, "w") as file:
        for k in range(demos):
            rng = np.random.default_rng(k)
            frames = rng.integers(0, 256, (6, 12, 10, 3), np.uint8)
            made[k] = {
                "frames": frames,
                "actions": rng.uniform(-1, 1, (5, 7)),
                "rewards": rng.random(5),
                "dones": np.array([0, 0, 0, 0, 1]),
            }
            group = file.create_group(f"data/demo_{k}")
            for key in ("actions", "rewards", "dones"):
                group[key] = made[k][key]
            group["obs/agentview_image"], group["obs/robot0_eef_pos"] = frames[:-1], rng.random((5, 3))
            if next_obs:
                group["next_obs/agentview_image"] = frames[1:]
    return made


def vd4rl(path: Path, lengths: tuple[int, ...] = (6, 4), seed: int = 0) -> dict[str, np.ndarray]:
    """A file with the arrays of V-D4RL's 84-pixel data, episodes one behind the other, in chunks with gzip."""
    rng, rows = np.random.default_rng(seed), sum(lengths)
    step_type = np.concatenate([[0.0, *[1.0] * (length - 2), 2.0] for length in lengths])
    arrays = {
        "observation": rng.integers(0, 256, (rows, 3, 14, 14), np.uint8),
        "action": rng.uniform(-1, 1, (rows, 2)).astype(np.float32) * (step_type > 0)[:, None],
        "reward": rng.random(rows) * (step_type > 0),
        "discount": np.ones(rows),
        "step_type": step_type,
    }
    with h5py.File(path, "w") as file:
        for key, values in arrays.items():
            file.create_dataset(key, data=values, compression="gzip")
    return arrays


def read(uri: str):
    reader = open_reader(uri)
    return list(reader.trajectories()), reader


def test_round_trip_is_exact(tmp_path):
    expected = some_episodes()
    for part in (expected[:2], expected[2:]):
        writer = open_writer(f"hdf5:{tmp_path}/deep/out.hdf5", SPEC)
        for trajectory in part:
            writer.write(trajectory)
        writer.close()
    assert_holds(open_reader(f"{tmp_path}/deep/out.hdf5"), expected)
    with pytest.raises(FormatError, match="look: expected fast as of the episodes there, got suite"):
        open_writer(f"hdf5:{tmp_path}/deep/out.hdf5", replace(SPEC, look="suite"))


def test_what_we_write_has_robomimics_layout(tmp_path):
    made = episode(6)
    open_writer(f"hdf5:{tmp_path}/out.hdf5", SPEC).write(made)
    with h5py.File(tmp_path / "out.hdf5") as file:
        demo = file["data/demo_0"]
        assert demo.attrs["num_samples"] == file["data"].attrs["total"] == 5
        assert demo["obs/image"].shape == (5, 16, 16, 3) and demo["dones"][:].tolist() == [0, 0, 0, 0, 1]
        # the action taken at the first frame is the one that led to the second
        assert np.array_equal(demo["actions"][0], made.action[1]) and demo["rewards"][0] == made.reward[1]


@pytest.mark.parametrize("next_obs", [True, False])
def test_actions_taken_at_a_frame_arrive_with_the_next(tmp_path, next_obs):
    made = robomimic(tmp_path / "lift.hdf5", next_obs=next_obs)
    found, reader = read(f"hdf5:{tmp_path}/lift.hdf5")
    rows = 6 if next_obs else 5
    assert len(found) == len(reader) == 12 and reader.spec.task == "lift"
    for k, got in enumerate(found):  # demo_10 comes after demo_9
        assert np.array_equal(got.pixels, made[k]["frames"][:rows].transpose(0, 3, 1, 2))
        assert np.array_equal(got.action[1:], made[k]["actions"][: rows - 1].astype(np.float32))
        assert np.array_equal(got.reward[1:], made[k]["rewards"][: rows - 1].astype(np.float32))
        assert not got.terminal and not got.action[0].any() and got.reward[0] == 0
    ended, _ = read(f"hdf5:{tmp_path}/lift.hdf5?terminal_key=dones")
    assert all(got.terminal == next_obs for got in ended)


def test_alignment_can_be_overridden(tmp_path):
    made = robomimic(tmp_path / "a.hdf5", next_obs=True)
    found, _ = read(f"hdf5:{tmp_path}/a.hdf5?alignment=arrival")
    assert len(found[0]) == 5 and np.array_equal(found[0].action[1:], made[0]["actions"][1:].astype(np.float32))
    arrays = vd4rl(tmp_path / "b.hdf5")
    found, _ = read(f"hdf5:{tmp_path}/b.hdf5?alignment=departure")
    assert np.array_equal(found[1].action[1:], arrays["action"][6:9])


def test_reads_vd4rl_in_one_file_or_in_shards(tmp_path):
    one = vd4rl(tmp_path / "0.hdf5")
    two = vd4rl(tmp_path / "1.hdf5", (3, 5, 4), seed=1)
    found, reader = read(f"hdf5:{tmp_path}?action_repeat=2&task=walker_walk")
    assert reader.spec == EnvSpec("walker_walk", {"pixels": (3, 14, 14)}, 2, action_repeat=2, episode_steps=10)
    assert [len(got) for got in found] == [6, 4, 3, 5, 4] and len(reader) == 5 and not reader.problems
    for start, arrays, got in ((6, one, found[1]), (8, two, found[4])):
        rows = slice(start, start + 4)
        assert np.array_equal(got.pixels, arrays["observation"][rows]) and not got.terminal
        assert np.array_equal(got.action, arrays["action"][rows])
        assert np.array_equal(got.reward, arrays["reward"][rows].astype(np.float32))


def test_discount_zero_is_termination(tmp_path):
    vd4rl(tmp_path / "a.hdf5")
    with h5py.File(tmp_path / "a.hdf5", "a") as file:
        file["discount"][9] = 0
    assert [got.terminal for got in read(f"hdf5:{tmp_path}/a.hdf5")[0]] == [False, True]


def test_several_cameras_must_be_chosen_from(tmp_path):
    robomimic(tmp_path / "a.hdf5", next_obs=False, demos=1)
    with h5py.File(tmp_path / "a.hdf5", "a") as file:
        file["data/demo_0/obs/wrist"] = np.zeros((5, 8, 8, 3), np.uint8)
    with pytest.raises(FormatError, match="agentview_image, wrist: say"):
        open_reader(f"hdf5:{tmp_path}/a.hdf5")
    assert open_reader(f"hdf5:{tmp_path}/a.hdf5?image_key=wrist").spec.pixels == (3, 8, 8)


@pytest.mark.parametrize("next_obs", [True, False])
def test_several_cameras_become_channels_in_their_order(tmp_path, next_obs):
    made = robomimic(tmp_path / "a.hdf5", next_obs=next_obs, demos=1)[0]["frames"]
    with h5py.File(tmp_path / "a.hdf5", "a") as file:
        group = file["data/demo_0"]
        group["obs/wrist"], group["obs/small"] = 255 - made[:-1], np.zeros((5, 8, 8, 3), np.uint8)
        if next_obs:
            group["next_obs/wrist"], group["next_obs/small"] = 255 - made[1:], np.zeros((5, 8, 8, 3), np.uint8)
    ((got,), reader) = read(f"hdf5:{tmp_path}/a.hdf5?image_key=wrist,agentview_image")
    frames = made.transpose(0, 3, 1, 2)[: 5 + next_obs]
    assert np.array_equal(got.pixels, np.concatenate([255 - frames, frames], 1)) and reader.spec.pixels == (6, 12, 10)
    with pytest.raises(FormatError, match="expected cameras of one length and size"):
        open_reader(f"hdf5:{tmp_path}/a.hdf5?image_key=agentview_image,small")


def test_bad_demos_and_files_never_stop_a_scan(tmp_path):
    robomimic(tmp_path / "0.hdf5", next_obs=False, demos=7)
    text = h5py.string_dtype()
    with h5py.File(tmp_path / "0.hdf5", "a") as file:
        data = file["data"]
        del data["demo_0/actions"]
        del data["demo_1/obs/agentview_image"]
        data["demo_1/obs/agentview_image"] = h5py.ExternalLink("/etc/passwd", "x")
        data["demo_2/actions"][3] = 4.0
        del data["demo_3/rewards"]
        data.create_dataset("demo_3/rewards", data=["a"], dtype=text)
        del data["demo_4/obs"]
        data["demo_4/obs"] = h5py.SoftLink("/data/demo_4/obs")
        del data["demo_5/obs/agentview_image"]
        data.create_dataset("demo_5/obs/agentview_image", (1 << 30, 64, 64, 3), np.uint8, chunks=(1, 64, 64, 3))
    (tmp_path / "1.hdf5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(600))
    (tmp_path / "2.hdf5").symlink_to("/etc/passwd")
    with h5py.File(tmp_path / "3.hdf5", "w") as file:
        file["something"] = np.zeros(3)
    shutil.copy(tmp_path / "0.hdf5", tmp_path / "4.hdf5")
    found, reader = read(f"hdf5:{tmp_path}")
    assert len(found) == 2 and len(reader.problems) == 15 and len(reader) == 17
    reasons = {problem.name.removeprefix("0.hdf5 "): problem.reason for problem in reader.problems}
    for name, named in {
        "demo_0": "expected actions",
        "demo_1": "links are not followed",
        "demo_2": "say what they are: ?low=",
        "demo_3": "expected numbers",
        "demo_4": "links are not followed",
        "demo_5": "expected at most",
        "1.hdf5": "expected an HDF5 file",
        "3.hdf5": "expected data/demo",
    }.items():
        assert named in reasons[name], (name, reasons[name])


def test_nothing_readable_is_an_error(tmp_path):
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file.create_group("data")
    for uri in (f"hdf5:{tmp_path}/a.hdf5", f"hdf5:{tmp_path}"):
        with pytest.raises(FormatError, match="readable HDF5 episode"):
            open_reader(uri)


@pytest.mark.parametrize("make", [vd4rl, lambda path: robomimic(path, next_obs=True, demos=3)])
def test_any_damage_is_a_typed_error_or_a_problem(tmp_path, make):
    make(tmp_path / "a.hdf5")
    whole, rng = (tmp_path / "a.hdf5").read_bytes(), np.random.default_rng(0)
    noticed = 0
    for _ in range(150):
        data = bytearray(whole)
        for position in rng.integers(min(len(data), 6000), size=3).tolist():
            data[position] ^= 1 << rng.integers(8)
        (tmp_path / "b.hdf5").write_bytes(data)
        try:
            noticed += bool(read(f"hdf5:{tmp_path}/b.hdf5")[1].problems)
        except (FormatError, OSError):
            noticed += 1
    assert noticed > 30


def png(frame: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(frame).save(file, format="PNG")
    return file.getvalue()


@pytest.mark.parametrize("how", ["variable", "opaque", "rows"])
def test_encoded_frames_are_read_in_both_layouts(tmp_path, how):
    frames = (
        np.zeros((6, 12, 10, 3), np.uint8) if how == "rows" else robomimic(tmp_path / "x", next_obs=True)[0]["frames"]
    )
    files = [png(frame) for frame in frames]
    longest = max(map(len, files))
    flexible = np.empty(6, object)
    flexible[:] = [np.frombuffer(one, np.uint8) for one in files]
    stored = {
        "variable": (flexible, h5py.vlen_dtype(np.uint8)),
        "opaque": (np.array([one.ljust(longest, b"\0") for one in files], f"V{longest}"), None),
        "rows": (np.stack(list(flexible)) if how == "rows" else None, None),
    }[how]
    with h5py.File(tmp_path / "groups.hdf5", "w") as file:
        group = file.create_group("data/demo_0")
        group["actions"], group["rewards"] = np.zeros((6, 2)), np.zeros(6)
        group["obs/words"] = np.array([b"pick up"] * 6)
        group.create_dataset("obs/camera", data=stored[0], dtype=stored[1])
    with h5py.File(tmp_path / "table.hdf5", "w") as file:
        file["action"], file["reward"], file["is_first"] = np.zeros((6, 2)), np.zeros(6), np.arange(6) == 0
        file.create_dataset("image", data=stored[0], dtype=stored[1])
    for name in ("groups", "table"):
        ((got,), _) = read(f"hdf5:{tmp_path}/{name}.hdf5")
        assert np.array_equal(got.pixels, frames.transpose(0, 3, 1, 2))


def test_the_advice_on_several_cameras_works(tmp_path):
    robomimic(tmp_path / "a.hdf5", next_obs=False, demos=1)
    with h5py.File(tmp_path / "a.hdf5", "a") as file:
        file["data/demo_0/obs/wrist"] = np.zeros((5, 12, 10, 3), np.uint8)
    with pytest.raises(FormatError) as refusal:
        open_reader(f"hdf5:{tmp_path}/a.hdf5")
    advice = str(refusal.value).partition("say ")[2].partition(",")[0]
    assert advice == "?image_key=agentview_image"
    assert open_reader(f"hdf5:{tmp_path}/a.hdf5{advice}").spec.pixels == (3, 12, 10)
