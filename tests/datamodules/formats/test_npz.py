"""Dreamer's and V-D4RL's npz folders: exact round trip, their variants, and every bad episode left out by name."""

import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from datamodules.formats.protocol import FormatError
from datamodules.formats.uri import open_reader, open_writer
from tests.datamodules.formats.episodes import SPEC, assert_holds, episode, some_episodes
from tests.io_faults import Crash, Faults
from worldmodel.spec import EnvSpec


def vd4rl(rows: int = 6, seed: int = 0) -> dict[str, np.ndarray]:
    """One episode with the keys and dtypes of V-D4RL's 64-pixel files."""
    rng = np.random.default_rng(seed)
    at = np.arange(rows)
    action = rng.uniform(-1, 1, (rows, 2)).astype(np.float32)
    action[0] = 0
    return {
        "image": rng.integers(0, 256, (rows, 8, 8, 3), np.uint8),
        "action": action,
        "reward": rng.random(rows) * (at > 0),
        "discount": np.ones(rows),
        "is_first": at == 0,
        "is_last": at == rows - 1,
        "is_terminal": np.zeros(rows, bool),
    }


def save(folder: Path, arrays: dict[str, np.ndarray], name: str = "20210801T120000-abc-6.npz") -> str:
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / name, **arrays)
    return f"npz:{folder}"


def read(uri: str):
    reader = open_reader(uri)
    return list(reader.trajectories()), reader


@pytest.mark.parametrize("compress", ["true", "false"])
def test_round_trip_is_exact(tmp_path, compress):
    expected = some_episodes()
    for part in (expected[:2], expected[2:]):  # a second writer adds behind the first
        writer = open_writer(f"npz:{tmp_path}/out?compress={compress}", SPEC)
        for trajectory in part:
            writer.write(trajectory)
        writer.close()
    assert_holds(open_reader(f"npz:{tmp_path}/out?threads=3"), expected)
    with pytest.raises(FormatError, match="look: expected fast as of the episodes there, got suite"):
        open_writer(f"npz:{tmp_path}/out", replace(SPEC, look="suite"))


def test_order_survives_a_clock_that_is_set_back(tmp_path, monkeypatch):
    expected = some_episodes()
    for k, trajectory in enumerate(expected):
        monkeypatch.setattr(time, "time_ns", lambda k=k: (2_000_000_000 - 3600 * k) * 10**9)
        open_writer(f"npz:{tmp_path}", SPEC).write(trajectory)
    assert_holds(open_reader(f"npz:{tmp_path}"), expected)


def test_files_carry_dreamers_names_and_keys(tmp_path):
    open_writer(f"npz:{tmp_path}", SPEC).write(episode(5, terminal=True))
    path = next(tmp_path.glob("*.npz"))
    stamp, unique, rows = path.stem.split("-")
    assert len(stamp) == 22 and len(unique) == 32 and int(rows) == 5
    stored = np.load(path)
    assert stored["image"].shape == (5, 16, 16, 3) and stored["image"].dtype == np.uint8
    assert stored["is_first"].tolist() == [True] + 4 * [False]
    assert stored["is_last"].tolist() == stored["is_terminal"].tolist() == 4 * [False] + [True]
    assert stored["discount"].tolist() == [1, 1, 1, 1, 0]


def test_reads_vd4rl_by_arrival(tmp_path):
    arrays = vd4rl()
    (got,), reader = read(save(tmp_path / "walker_walk", arrays) + "?action_repeat=2")
    assert reader.spec == EnvSpec("walker_walk", {"pixels": (3, 8, 8)}, 2, action_repeat=2, episode_steps=10)
    assert np.array_equal(got.pixels, arrays["image"].transpose(0, 3, 1, 2))
    assert np.array_equal(got.action, arrays["action"]) and not got.terminal
    assert np.array_equal(got.reward, arrays["reward"].astype(np.float32)) and got.env_steps.tolist() == [0] + 5 * [2]


def test_departure_shifts_actions_and_rewards_by_a_row(tmp_path):
    arrays = vd4rl()
    (got,), _ = read(save(tmp_path, arrays) + "?alignment=departure")
    assert np.array_equal(got.action[1:], arrays["action"][:-1]) and not got.action[0].any()
    assert np.array_equal(got.reward[1:], arrays["reward"][:-1].astype(np.float32)) and got.reward[0] == 0


def test_variants_of_keys_and_layouts_say_the_same(tmp_path):
    arrays = vd4rl()
    arrays["discount"][-1] = 0.0
    arrays["is_terminal"][-1] = True
    (expected,), _ = read(save(tmp_path / "a", arrays))
    variant = {key: arrays[key] for key in ("action", "discount")}
    variant["observation"] = arrays["image"].transpose(0, 3, 1, 2)
    variant["step_type"] = np.array([0.0, 1, 1, 1, 1, 2])
    variant["reward"] = arrays["reward"][:, None]
    (got,), _ = read(save(tmp_path / "b" / "deeper", variant))
    assert got.terminal and expected.terminal
    for key in ("pixels", "action", "reward"):
        assert np.array_equal(getattr(got, key), getattr(expected, key))


def test_a_file_of_several_episodes_is_split(tmp_path):
    arrays = vd4rl()
    arrays["is_first"][4] = True
    found, _ = read(save(tmp_path, arrays))
    assert [len(trajectory) for trajectory in found] == [4, 2]
    assert not found[1].action[0].any()


def test_bounds_scale_actions_and_missing_ones_are_named(tmp_path):
    arrays = vd4rl()
    arrays["action"] = np.stack([np.linspace(-2, 2, 6), np.linspace(0, 4, 6)], 1)
    uri = save(tmp_path, arrays)
    with pytest.raises(FormatError, match=r"action: expected within \[-1, 1\], got -1.2 to 4: say what"):
        read(uri)
    (got,), _ = read(f"{uri}?low=-2,0&high=2,4")
    assert np.allclose(got.action[1:], np.linspace(-1, 1, 6)[1:, None])
    for said, low, high in (("low=-2,0&high=2,4", (-2.0, 0.0), (2.0, 4.0)), ("low=-9&high=9", (-9.0,) * 2, (9.0,) * 2)):
        spec = open_reader(f"{uri}?{said}").spec  # the units that a robot will be told in
        assert (spec.action_low, spec.action_high) == (low, high)
    for options, named in (
        ("low=-2", "both or neither"),
        ("low=2&high=1", "low < high"),
        ("low=a&high=1", "expected numbers"),
        ("low=-2,0,0&high=2,4,1", "expected 2 bounds"),
        ("low=-1&high=1", "outside their bounds"),
        ("alignment=left", "arrival or departure"),
        ("action_repeat=-1", "1 or more"),
    ):
        with pytest.raises(FormatError, match=named):
            read(f"{uri}?{options}")


def without(key: str) -> dict[str, np.ndarray]:
    return {name: values for name, values in vd4rl().items() if name != key}


BAD = {
    "float pixels": ("pixels: expected uint8", vd4rl() | {"image": np.zeros((6, 8, 8, 3), np.float32)}),
    "16 bits": ("pixels: expected uint8", vd4rl() | {"image": np.zeros((6, 8, 8, 3), np.uint16)}),
    "no channels": ("pixels: expected uint8", vd4rl() | {"image": np.zeros((6, 8, 8), np.uint8)}),
    "unclear channels": ("fewer channels", vd4rl() | {"image": np.zeros((6, 8, 8, 8), np.uint8)}),
    "another size": ("pixels: expected uint8", vd4rl() | {"image": np.zeros((6, 9, 9, 3), np.uint8)}),
    "short action": ("action: expected 6 rows", vd4rl() | {"action": np.zeros((5, 2))}),
    "another action": ("action: expected 2 numbers", vd4rl() | {"action": np.zeros((6, 3))}),
    "indices for actions": ("action: expected numbers", vd4rl() | {"action": np.arange(6)}),
    "NaN action": ("finite", vd4rl() | {"action": np.full((6, 2), np.nan)}),
    "infinite reward": ("finite", vd4rl() | {"reward": np.full(6, np.inf)}),
    "wide reward": ("reward: expected 6 numbers", vd4rl() | {"reward": np.zeros((6, 2))}),
    "no rows": ("expected 1 row", {key: values[:0] for key, values in vd4rl().items()}),
    "all terminal": ("expected termination in the last", vd4rl() | {"is_terminal": np.ones(6, bool)}),
    "scalar": ("reward: expected 6 rows", vd4rl() | {"reward": np.float32(0)}),
    "no image": ("expected key image or observation", without("image")),
    "no action": ("expected key 'action'", without("action")),
    "no reward": ("expected key 'reward'", without("reward")),
    "object": ("plain array of numbers", vd4rl() | {"info": np.array([{}], dtype=object)}),
    "text": ("expected numbers", vd4rl() | {"reward": np.array(["a"] * 6)}),
}


def test_a_bad_file_never_stops_a_scan(tmp_path):
    save(tmp_path, vd4rl(), "0-first.npz")
    for name, (_, arrays) in BAD.items():
        save(tmp_path, arrays, f"1-{name}.npz")
    (tmp_path / "1-text.npz").write_text("no zip")
    (tmp_path / "1-empty.npz").touch()
    os.mkfifo(tmp_path / "1-fifo.npz")
    save(tmp_path, vd4rl(seed=1), "2-last.npz")
    found, reader = read(f"npz:{tmp_path}?threads=2")
    assert len(found) == 2 and len(reader) == len(BAD) + 4
    assert np.array_equal(found[1].pixels, vd4rl(seed=1)["image"].transpose(0, 3, 1, 2))
    assert len(reader.problems) == len(reader) - 2


@pytest.mark.parametrize("name", BAD)
def test_reasons_name_what_was_expected(tmp_path, name):
    named, arrays = BAD[name]
    save(tmp_path, vd4rl(), "0.npz")
    save(tmp_path, arrays, "1.npz")
    _, reader = read(f"npz:{tmp_path}")
    (problem,) = reader.problems
    assert problem.name == "1.npz" and named in problem.reason, problem.reason


def test_nothing_readable_is_an_error(tmp_path):
    with pytest.raises(FormatError, match=r"expected a readable npz episode.*plain array"):
        open_reader(save(tmp_path, BAD["object"][1]))
    (tmp_path / "20210801T120000-abc-6.npz").unlink()
    with pytest.raises(FormatError, match="got none"):
        open_reader(f"npz:{tmp_path}")


@pytest.mark.parametrize("kind", ["error", "crash"])
def test_a_failed_write_leaves_whole_episodes_only(tmp_path, monkeypatch, kind):
    expected = [episode(4, seed) for seed in range(3)]
    for n in range(1, 40):
        folder = tmp_path / f"{kind}{n}"
        writer = open_writer(f"npz:{folder}", SPEC)
        with monkeypatch.context() as patch:
            faults = Faults(patch, kind, n, calls=("open", "write", "fsync", "replace", "rename"))
            try:
                for trajectory in expected:
                    writer.write(trajectory)
            except (OSError, Crash):
                pass
        files = sorted(folder.glob("*.npz"))
        if files:
            assert_holds(open_reader(f"npz:{folder}"), expected[: len(files)])
        if not faults.hit:
            break
    assert len(files) == 3 and n > 10


def stream(folder: Path, *, lengths: tuple[int, ...] = (7, 13, 4, 6), chunk: int = 8, keep: str = "") -> list[dict]:
    """DreamerV3's replay of one worker: episodes in a row, cut into files that name their successors.

    The action in a row was taken there; reward and flags arrived with the frame. The last episode is still open.
    """
    rng, rows = np.random.default_rng(0), sum(lengths)
    starts = np.cumsum([0, *lengths[:-1]])
    ends = np.cumsum(lengths)[:-1] - 1
    arrays = {
        "image": rng.integers(0, 256, (rows, 8, 8, 3), np.uint8),
        "action": rng.uniform(-1, 1, (rows, 2)).astype(np.float32),
        "reward": rng.random(rows).astype(np.float32),
        "is_first": np.isin(np.arange(rows), starts),
        "is_last": np.isin(np.arange(rows), ends),
        "is_terminal": np.isin(np.arange(rows), ends[:1]),
        "stepid": rng.integers(0, 256, (rows, 20), np.uint8),
    }
    arrays["reward"][starts], arrays["action"][ends] = 0, 0
    names = [f"{k:022d}" for k in range(1, rows // chunk + 2)] + ["0" * 22]
    for k, begin in enumerate(range(0, rows, chunk)):
        part = {key: values[begin : begin + chunk] for key, values in arrays.items()}
        save(folder, part, f"20250101T0{9 - k}0000F000000-{names[k]}-{names[k + 1]}-{len(part['reward'])}.npz")
    return [{key: arrays[key][begin : begin + n] for key in arrays} for begin, n in zip(starts, lengths, strict=True)]


def test_dreamerv3s_chunks_are_joined_and_read_as_they_are_stored(tmp_path):
    expected = stream(tmp_path)
    found, reader = read(f"npz:{tmp_path}?actions=departure")
    assert [len(one) for one in found] == [7, 13, 4, 6] and not reader.problems
    for got, wanted in zip(found, expected, strict=True):
        assert np.array_equal(got.pixels, wanted["image"].transpose(0, 3, 1, 2))
        assert np.array_equal(got.action[1:], wanted["action"][:-1]) and np.array_equal(got.reward, wanted["reward"])
    assert [one.terminal for one in found] == [True, False, False, False]
    notes = reader.notes.texts()
    assert len(notes) == 2 and any("1 episodes end without is_last" in note for note in notes)
    assert any("not read: stepid" in note for note in notes)


def test_a_missing_chunk_cuts_and_is_said(tmp_path):
    stream(tmp_path)
    sorted(tmp_path.glob("*.npz"))[2].unlink()  # rows 8..15, the second of four: names sort backwards
    found, reader = read(f"npz:{tmp_path}?actions=departure")
    assert [len(one) for one in found] == [4, 4, 6, 7, 1] and not reader.problems
    notes = " ".join(reader.notes.texts())
    assert "1 episodes begin without is_first" in notes and "2 episodes end without is_last" in notes


def test_a_circle_of_chunks_ends(tmp_path):
    arrays = vd4rl()
    for here, there in (("a", "b"), ("b", "a"), ("c", "c")):
        save(tmp_path, arrays, f"2025-{here}-{there}-6.npz")
    assert len(read(f"npz:{tmp_path}")[0]) == 3


@pytest.mark.parametrize("key", ["done", "dones"])
def test_what_is_read_as_termination_is_told_by_its_own_name(tmp_path, key):
    arrays = {"image": np.zeros((3, 8, 8, 3), np.uint8), "action": np.zeros((3, 1)), "reward": np.zeros(3)}
    np.savez(tmp_path / "a.npz", **arrays, **{key: np.array([0, 0, 1])})
    reader = open_reader(f"npz:{tmp_path}")
    assert [got.terminal for got in reader.trajectories()] == [True]
    assert any(note.startswith(f"{key} is read as termination (1 of 1 episodes)") for note in reader.notes.texts())
