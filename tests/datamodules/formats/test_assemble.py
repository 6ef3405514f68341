"""One rule for every format: pairing, ranges, missing rewards, synonyms, and everything that is lost is said."""

import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import h5py
import numpy as np
import pytest

from datamodules.formats.convention import RowOptions
from datamodules.formats.fields import FIELDS
from datamodules.formats.protocol import FormatError
from datamodules.formats.uri import open_reader
from tests.datamodules.formats.test_lerobot import data_set as lerobot_set

T = 6
FRAMES = np.broadcast_to(np.arange(T, dtype=np.uint8)[:, None, None, None] * 10, (T, 8, 8, 3))
# action t is t / 10, reward t is t + 1
ACTION = (np.arange(T) / 10)[:, None] * np.ones(2)
REWARD = np.arange(T) + 1.0
LAST = np.arange(T) == T - 1

Arrays = dict[str, np.ndarray]


def npz(folder: Path, arrays: Arrays) -> str:
    names = {"action": "action", "reward": "reward", "image": "image"}
    np.savez(folder / "a.npz", **{names.get(key, key): values for key, values in arrays.items()})
    return f"npz:{folder}"


def groups(folder: Path, arrays: Arrays) -> str:
    names = {"action": "actions", "reward": "rewards", "image": "obs/camera"}
    with h5py.File(folder / "a.hdf5", "w") as file:
        for key, values in arrays.items():
            file[f"data/demo_0/{names.get(key, key)}"] = values
    return f"hdf5:{folder}"


def table(folder: Path, arrays: Arrays) -> str:
    with h5py.File(folder / "a.hdf5", "w") as file:
        for key, values in ({"is_first": np.arange(T) == 0} | arrays).items():
            file[key] = values
    return f"hdf5:{folder}"


def minari(folder: Path, arrays: Arrays) -> str:
    """Of T frames, T - 1 actions: the last row's is not there."""
    names = {"action": "actions", "reward": "rewards", "image": "observations"}
    arrays = {"terminations": np.zeros(T, bool), "truncations": LAST} | arrays
    (folder / "data").mkdir()
    with h5py.File(folder / "data/main_data.hdf5", "w") as file:
        for key, values in arrays.items():
            file[f"episode_0/{names.get(key, key)}"] = values if key == "image" else values[:-1]
    return f"minari:{folder}"


def lerobot(folder: Path, arrays: Arrays) -> str:
    names = {"reward": "next.reward"}
    rest = {names.get(key, key): values for key, values in arrays.items() if key not in ("image", "action")}
    root = lerobot_set(folder / "set", (T,), in_film=False, action=arrays["action"].tolist(), **rest)
    (root / "meta/stats.json").unlink()
    return f"lerobot:{root}"


BUILD: dict[str, Callable[[Path, Arrays], str]] = {
    "npz": npz,
    "groups": groups,
    "table": table,
    "minari": minari,
    "lerobot": lerobot,
}
WHOLE = {"image": FRAMES, "action": ACTION, "reward": REWARD}


def fresh(folder: Path) -> Path:
    """Another folder."""
    (folder / "fresh").mkdir()
    return folder / "fresh"


def read(uri: str, options: str = ""):
    reader = open_reader(uri + options)
    got = list(reader.trajectories())
    if not got:
        raise FormatError(reader.problems[0].reason)
    return got[0], reader


@pytest.mark.parametrize("build", BUILD)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_no_action_that_is_no_number_passes_a_range_check(tmp_path, build, bad):
    """Of actions far out of range one is NaN; and of good ones, one in the middle."""
    for k, (scale, row) in enumerate(((9.0, T - 2), (1.0, 2))):
        action = ACTION * scale
        action[row] = bad
        folder = tmp_path / str(k)
        folder.mkdir()
        with pytest.raises(FormatError, match=r"action: expected (finite|within)"):
            read(BUILD[build](folder, WHOLE | {"action": action}))
    with pytest.raises(FormatError, match="action: expected finite"):
        read(BUILD[build](_new(tmp_path), WHOLE | {"action": action}), "?low=-10&high=10")


def _new(folder: Path) -> Path:
    (folder / "new").mkdir()
    return folder / "new"


def test_an_action_that_is_left_out_may_be_nan(tmp_path):
    """Recorders by departure put NaN beside the last frame, those by arrival beside the first."""
    got, _ = read(groups(tmp_path, WHOLE | {"action": np.where(LAST[:, None], np.nan, ACTION)}))
    assert np.allclose(got.action[1:], ACTION[:-1])
    got, _ = read(npz(tmp_path, WHOLE | {"action": np.where(np.arange(T)[:, None] == 0, np.nan, ACTION)}))
    assert np.allclose(got.action[1:], ACTION[1:]) and not got.action[0].any()


@pytest.mark.parametrize("build", ["npz", "table"])
@pytest.mark.parametrize("key", ["is_terminal", "discount", "done", "env_steps"])
def test_flags_are_numbers(tmp_path, build, key):
    with pytest.raises(FormatError, match=rf"{key}: expected finite"):
        read(BUILD[build](tmp_path, WHOLE | {key: np.full(T, np.nan)}))


@pytest.mark.parametrize("build", BUILD)
def test_missing_rewards_are_zeros_and_said(tmp_path, build):
    got, reader = read(BUILD[build](tmp_path, {"image": FRAMES, "action": ACTION}))
    assert not got.reward.any() and any("no rewards" in note for note in reader.notes.texts()), reader.notes.texts()


def test_rewards_missing_from_one_of_many_are_refused(tmp_path):
    np.savez(tmp_path / "0.npz", **WHOLE)
    np.savez(tmp_path / "1.npz", image=FRAMES, action=ACTION)
    reader = open_reader(f"npz:{tmp_path}")
    assert len(list(reader.trajectories())) == 1 and "expected key 'reward'" in reader.problems[0].reason


@pytest.mark.parametrize("build", ["npz", "groups", "table", "minari"])
def test_float_frames_are_refused_until_their_scale_is_said(tmp_path, build):
    uri = BUILD[build](tmp_path, WHOLE | {"image": (FRAMES / 255).astype(np.float32)})
    with pytest.raises(FormatError, match=r"uint8.*float.*image_scale"):
        read(uri)
    got, _ = read(uri, "?image_scale=255")
    shown = T - (build == "groups")
    assert np.array_equal(got.pixels[:shown], FRAMES[:shown].transpose(0, 3, 1, 2))
    with pytest.raises(FormatError, match=r"expected 0\.\.255 after image_scale"):
        read(BUILD[build](_new(tmp_path), WHOLE | {"image": FRAMES.astype(np.float32)}), "?image_scale=255")


@pytest.mark.parametrize("build", ["npz", "groups", "table"])
def test_numbers_of_actions_become_one_hot(tmp_path, build):
    taken = np.array([2, 0, 1, 2, 0, 1])
    uri = BUILD[build](tmp_path, WHOLE | {"action": taken})
    with pytest.raises(FormatError, match=r"got int64 \(\d,\); .* discrete=3 "):
        read(uri)
    column = BUILD[build](fresh(tmp_path), WHOLE | {"action": taken[:, None]})
    with pytest.raises(FormatError, match=r"\?low=..&high=..; numbers of actions become one-hot with discrete=3 "):
        read(column)
    assert np.array_equal(read(column, "?discrete=3")[0].action, read(uri, "?discrete=3")[0].action)
    got, reader = read(uri, "?discrete=3")
    led = taken[:-1] if build == "groups" else taken[1:]
    assert np.array_equal(got.action[1:], np.eye(3)[led]) and not got.action[0].any()
    assert reader.spec.discrete and reader.spec.action_dim == 3
    with pytest.raises(FormatError, match=r"expected 2 actions, got 0\.\.2"):
        read(uri, "?discrete=2")


SYNONYMS = ["is_terminal", "terminal", "terminals", "terminated", "terminations", "done", "dones"]


@pytest.mark.parametrize("build", ["npz", "table"])
@pytest.mark.parametrize("key", SYNONYMS)
def test_a_termination_is_read_under_its_usual_names(tmp_path, build, key):
    got, reader = read(BUILD[build](tmp_path, WHOLE | {key: LAST}))
    assert got.terminal and not any("not read" in note for note in reader.notes.texts())
    assert ("done" in key) == any("terminal_key=none" in note for note in reader.notes.texts())
    assert not read(BUILD[build](tmp_path, WHOLE | {key: LAST}), "?terminal_key=none")[0].terminal
    # beside time-outs a done that is one is no termination
    got, _ = read(BUILD[build](tmp_path, WHOLE | {key: LAST, "timeouts": LAST}))
    assert got.terminal == ("done" not in key)


def test_a_table_without_first_rows_is_split_at_its_ends(tmp_path):
    """As D4RL has it: terminals and timeouts, by departure."""
    ends = np.array([0, 0, 1, 0, 0, 0], bool)
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        for key, values in {"observations": FRAMES, "actions": ACTION, "rewards": REWARD}.items():
            file[key] = values
        file["terminals"], file["timeouts"] = np.zeros(T), ends
    found = list(open_reader(f"hdf5:{tmp_path}?alignment=departure").trajectories())
    assert [len(one) for one in found] == [3, 3] and found[1].reward.tolist() == [0, 4, 5]


@pytest.mark.parametrize("build", BUILD)
def test_what_nobody_reads_is_named(tmp_path, build):
    uri = BUILD[build](tmp_path, WHOLE | {"battery": np.zeros(T, np.float32)})
    notes = read(uri)[1].notes.texts()
    assert any(note.startswith("not read:") and "battery" in note for note in notes), notes
    clean = BUILD[build](_new(tmp_path), WHOLE)
    assert not any(note.startswith("not read:") for note in read(clean)[1].notes.texts())


def test_other_observations_are_named(tmp_path):
    uri = groups(tmp_path, WHOLE | {"obs/joints": np.zeros((T, 3)), "dones": LAST})
    (note,) = [note for note in read(uri)[1].notes.texts() if note.startswith("not read")]
    assert "obs/joints" in note and "dones (terminations with terminal_key=dones)" in note


@pytest.mark.parametrize("build", ["npz", "groups", "lerobot"])
def test_what_no_frame_shows_is_counted_and_can_be_kept(tmp_path, build):
    """The last of as many actions as frames: its reward of 6 and its termination."""
    ended = {"next.terminated" if build == "lerobot" else "terminal": LAST}
    uri, sign = BUILD[build](tmp_path, WHOLE | ended), "?alignment=departure"
    got, reader = read(uri, sign)
    assert got.reward.tolist() == [0, 1, 2, 3, 4, 5] and not got.terminal
    (note,) = reader.notes.texts()
    assert "1 episodes end" in note and "in sum 6" in note and "1 terminations" in note and "last=repeat" in note
    got, reader = read(uri, f"{sign}&last=repeat")
    assert got.reward.tolist() == [0, 1, 2, 3, 4, 5, 6] and got.terminal and not reader.notes.texts()
    assert np.array_equal(got.pixels[6], got.pixels[5]) and np.allclose(got.action[6], 0.5)
    if build != "npz":  # which are by departure where nothing is said
        assert read(uri, "?last=repeat")[0].terminal
    with pytest.raises(
        FormatError, match="last: expected drop, for repeat says what to do with an action by departure"
    ):
        read(uri, "?alignment=arrival&last=repeat")


@pytest.mark.parametrize("ends", ["terminal", "dones", "discount"])
def test_one_more_frame_than_actions_needs_no_more_ends(tmp_path, ends):
    """As a buffer has them: T + 1 observations, and T of what an action led to."""
    flags = (np.arange(T - 1) == T - 2).astype(np.float32)
    arrays = {key: values if key == "image" else values[:-1] for key, values in WHOLE.items()}
    got, reader = read(
        npz(tmp_path, arrays | {ends: 1 - flags if ends == "discount" else flags}), "?alignment=departure"
    )
    assert got.terminal and len(got) == T and got.reward.tolist() == [0, 1, 2, 3, 4, 5]
    assert not any("left out" in note for note in reader.notes.texts())
    got, _ = read(npz(tmp_path, arrays | {"terminal": 0 * flags, "truncated": flags}), "?alignment=departure")
    assert not got.terminal and len(got) == T
    cut = {"terminal": 0 * flags, "truncated": np.arange(T - 1) == 1}
    with pytest.raises(FormatError, match="expected one episode of 6 frames and 5 actions, got several"):
        read(npz(tmp_path, arrays | cut), "?alignment=departure")


@pytest.mark.parametrize("build", ["npz", "groups", "table", "minari"])
def test_numbers_for_an_observation_are_read_by_name_and_the_error_says_so(tmp_path, build):
    """As D4RL and most of Minari's data sets have them."""
    state = np.arange(4 * T, dtype=np.float32).reshape(T, 4)
    named = {"npz": "observations", "groups": "obs/eef", "table": "observations", "minari": "image"}[build]
    arrays = {"action": ACTION, "reward": REWARD * (np.arange(T) > 0), named: state}
    uri, name = BUILD[build](tmp_path, arrays), named.removeprefix("obs/").replace("image", "observations")
    with pytest.raises(FormatError, match="numbers are read by name"):
        read(uri)
    for query, key in ((name, name), (f"state:{name}", "state")):
        got, reader = read(uri, f"?observe={query}")
        assert reader.spec.vectors == {key: 4} and not reader.spec.images
        assert np.array_equal(got.observation[key], state)
        assert not any("not read" in note for note in reader.notes.texts()), reader.notes.texts()


def test_floats_that_look_like_frames_are_said_to_be_numbers(tmp_path):
    frames = np.random.default_rng(0).random((T, 16, 20, 3)).astype(np.float32)
    uri = groups(tmp_path, WHOLE | {"image": frames})
    got, reader = read(uri, "?observe=camera")
    assert got.observation["camera"].shape == (T, 960)
    (note,) = [text for text in reader.notes.texts() if "image_scale=255" in text]
    assert note.startswith("camera float32 (16, 20, 3) are read as numbers (in 1 episodes)")
    got, reader = read(uri, "?observe=camera&image_scale=255")
    assert got.observation["camera"].shape == (T, 3, 16, 20) and not any("scale" in n for n in reader.notes.texts())


def test_actions_alone_can_be_by_departure(tmp_path):
    """As DreamerV3 stores them: frame, reward and flags arrive together, the action is the one taken there."""
    reward = REWARD * (np.arange(T) > 0)
    got, reader = read(npz(tmp_path, WHOLE | {"reward": reward, "is_terminal": LAST}), "?actions=departure")
    assert got.reward.tolist() == reward.tolist() and got.terminal and reader.notes.texts() == []
    assert np.allclose(got.action[1:], ACTION[:-1]) and not got.action[0].any()
    got, reader = read(npz(tmp_path, WHOLE), "?actions=arrival&alignment=departure")
    assert got.reward.tolist() == [0, 1, 2, 3, 4, 5] and np.allclose(got.action[1:], ACTION[1:])


def test_a_reward_before_any_action_is_said(tmp_path):
    _, reader = read(npz(tmp_path, WHOLE))
    assert any("in their first row (in sum 1)" in note for note in reader.notes.texts())


@pytest.mark.parametrize("option", ["image_scale=nan", "image_scale=-1", "discrete=-1", "last=no", "actions=x"])
def test_options_are_checked(tmp_path, option):
    with pytest.raises(FormatError, match=rf"{option.partition('=')[0]}: expected"):
        read(npz(tmp_path, WHOLE), f"?{option}")


def test_the_page_names_every_key_and_option():
    page = (Path(__file__).parents[3] / "docs/offline.md").read_text()
    words = set(re.findall(r"[A-Za-z_.]+", page))
    names = {name for field in FIELDS.values() for name in field} | {option.name for option in fields(RowOptions)}
    assert names <= words, names - words
