"""Data whose actions are stored the other way than its format has it: the check refuses, the override repairs."""

import csv
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from datamodules.envs import toy
from datamodules.formats.protocol import FormatError
from datamodules.formats.uri import open_writer
from datamodules.importer import import_once
from datamodules.recorded import Recorded
from datamodules.trajectory import Trajectory
from tests.datamodules.test_alignment import POLICIES, play
from trainers import fit

SPEC = toy.make(size=16, episode_steps=40).spec


@pytest.fixture(scope="module")
def truth() -> list[Trajectory]:
    """The point mass, by arrival."""
    return [replace(one, reward=np.append(0, one.reward[1:]).astype(np.float32)) for one in play(3, POLICIES["smooth"])]


def departing(values: np.ndarray) -> np.ndarray:
    """Of values by arrival: what came of each row, and of the last one nothing that is known."""
    return np.concatenate([values[1:], values[:1]])


def npz(root: Path, truth: list[Trajectory]) -> None:
    for path, one in zip(sorted(root.glob("*.npz")), truth, strict=True):
        arrays = dict(np.load(path))
        arrays |= {key: departing(getattr(one, key)) for key in ("action", "reward")}
        np.savez(path, **arrays)


def mp4(root: Path, truth: list[Trajectory]) -> None:
    for path, one in zip(sorted(root.glob("*.csv")), truth, strict=True):
        with path.open(newline="") as file:
            header, *rows = csv.reader(file)
        moved = np.column_stack([departing(one.action), departing(one.reward)])
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([header, *([*new, *old[3:]] for new, old in zip(moved, rows, strict=True))])


def lerobot(root: Path, truth: list[Trajectory]) -> None:
    for path, one in zip(sorted(root.glob("data/*/*.parquet")), truth, strict=True):
        table = parquet.read_table(path)
        for key, values in (("action", one.action), ("next.reward", one.reward)):
            number = table.schema.get_field_index(key)
            table = table.set_column(number, key, pa.array(values.tolist(), table.schema.field(key).type))
        parquet.write_table(table, path)


def minari(root: Path, truth: list[Trajectory]) -> None:
    with h5py.File(root / "data/main_data.hdf5", "a") as file:
        for k, one in enumerate(truth):
            file[f"episode_{k}/actions"][:] = one.action[:-1]
            file[f"episode_{k}/rewards"][:] = one.reward[:-1]


@pytest.mark.parametrize(
    ("rewrite", "options", "alignment", "lost"),
    [
        (npz, "", "departure", 0),
        (mp4, "", "departure", 0),
        (lerobot, "codec=png", "arrival", 0),
        (minari, "", "arrival", 1),
    ],
)
def test_the_override_repairs_what_the_check_refuses(truth, tmp_path, rewrite, options, alignment, lost):
    root = tmp_path / "data"
    writer = open_writer(f"{rewrite.__name__}:{root}{options and '?' + options}", SPEC)
    for one in truth:
        writer.write(one)
    writer.close()
    uri = f"{rewrite.__name__}:{root}"
    import_once(uri, tmp_path / "before", alignment=None, say=lambda _: None)
    rewrite(root, truth)
    with pytest.raises(FormatError, match=rf"data\.alignment: .*data\.alignment={alignment} "):
        import_once(uri, tmp_path / "cache", alignment=None, say=lambda _: None)
    folder, facts = import_once(uri, tmp_path / "cache", alignment=alignment, say=lambda _: None)
    assert (facts["alignment"]["verdict"], facts["skipped"]) == ("arrival", 0)
    recorded = Recorded(folder)
    for got, one in zip(recorded.trajectories(), truth, strict=True):
        kept = len(one) - lost
        assert len(got) == kept and np.array_equal(got.reward, one.reward[:kept])
        assert np.array_equal(got.action, one.action[:kept])
        assert rewrite is mp4 or np.array_equal(got.pixels, one.pixels[:kept])
    recorded.close()


def test_actions_alone_are_moved_where_rewards_are_right(truth, tmp_path):
    """As DreamerV3 stores them; what is refused leaves nothing behind."""
    root = tmp_path / "data"
    writer = open_writer(f"npz:{root}", SPEC)
    for one in truth:
        moved = departing(one.action)
        moved[0], first = 0, departing(one.action)[0]
        writer.write(replace(one, action=moved))
        path = max(root.glob("*.npz"))
        arrays = dict(np.load(path))
        arrays["action"][0] = first  # a writer by arrival has none there
        np.savez(path, **arrays)
    cache = tmp_path / "cache"
    with pytest.raises(FormatError, match=r"read as arrival, rewards as arrival: data\.actions=departure .*alignment="):
        import_once(f"npz:{root}", cache, alignment=None, say=lambda _: None)
    assert not cache.exists()
    folder, facts = import_once(f"npz:{root}", cache, alignment=None, actions="departure", say=lambda _: None)
    assert facts["alignment"]["verdict"] == "arrival" and not facts["problems"]
    with closing(Recorded(folder)) as recorded:
        for got, one in zip(recorded.trajectories(), truth, strict=True):
            assert np.array_equal(got.reward, one.reward) and np.array_equal(got.action, one.action)


def test_what_cannot_be_told_is_said_loudly(truth, tmp_path):
    writer = open_writer(f"npz:{tmp_path / 'data'}", SPEC)
    for one in truth:
        writer.write(replace(one, observation={"pixels": np.zeros_like(one.pixels)}))
    said: list[str] = []
    import_once(f"npz:{tmp_path / 'data'}", tmp_path / "cache", alignment=None, say=said.append)
    assert said[0].startswith("WARNING: alignment: undecided, no frame differs") and "data.alignment=" in said[0]
    said.clear()
    import_once(f"npz:{tmp_path / 'data'}", tmp_path / "cache", alignment="arrival", say=said.append)
    assert said[0].startswith("alignment: undecided, no frame differs") and "read by arrival, as was said" in said[0]


def test_a_path_that_is_not_there_leaves_no_cache(tmp_path):
    with pytest.raises(FormatError, match="no such file or folder"):
        import_once(f"npz:{tmp_path / 'no'}", tmp_path / "cache", alignment=None, say=lambda _: None)
    assert not (tmp_path / "cache").exists()


def test_segments_have_one_pairing(refused, finished, tmp_path):
    where = ("data=offline", "experiment=small", "data.length=8", f"run_dir={tmp_path / 'run'}")
    replay = finished / "replay"
    asked = [f"data.uri={replay}", "data.alignment=departure"], [f"data.uri='segments:{replay}?alignment=departure'"]
    for said in asked:
        line = refused(fit.main, *where, *said).splitlines()[-1]
        assert "data.alignment: expected none for segments" in line
