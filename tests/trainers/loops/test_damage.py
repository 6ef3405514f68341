"""What the disk lost of a replay is in the metrics and the results of whatever learns from the rest."""

import shutil

import numpy as np
import pytest

from datamodules.storage.log_format import HEADER_BYTES
from trainers.run_folder.read_metrics import read_metrics

LOST = {"replay/damaged_blocks": 1, "replay/lost_rows": 21}
NAMES = tuple(LOST)


@pytest.fixture
def damaged(finished, tmp_path):
    """A finished run that lost the block of its first episode."""
    folder = tmp_path / "damaged"
    shutil.copytree(finished, folder)
    segment = min(folder.glob("replay/rank_00/stream_00/segment_*.bin"))
    content = bytearray(segment.read_bytes())
    content[HEADER_BYTES + 100] ^= 1
    segment.write_bytes(content)
    return folder


def assert_counted(run, folder):
    assert run.wait() == 0, run.err.read_text()
    assert {name: run.results()[name] for name in NAMES} == LOST
    columns = read_metrics(folder / "metrics.csv")
    assert [columns[name][-1] for name in NAMES] == list(LOST.values())


def test_a_run_that_goes_on_without_what_was_lost(runs, damaged, finished):
    assert_counted(runs.fit(f"resume={damaged}", "task.env_steps=140", "data.damage_limit=0.2"), damaged)
    columns = read_metrics(damaged / "metrics.csv")
    lost = columns["replay/lost_rows"][columns["env_steps"] == 140]
    assert len(lost) and (lost == 21).all() and np.isnan(columns["replay/lost_rows"][0])
    assert not set(NAMES) & read_metrics(finished / "metrics.csv").keys()


def test_a_run_that_learns_from_the_rest(runs, damaged, tmp_path):
    short = (
        "experiment=small",
        "data.batch=4",
        "data.length=8",
        "data.updates=4",
        "data.damage_limit=0.2",
        "trainer.accelerator=cpu",
    )
    where = (f"data.uri={damaged / 'replay'}", f"run_dir={tmp_path / 'run'}")
    assert_counted(runs.fit("data=offline", *short, *where), tmp_path / "run")
