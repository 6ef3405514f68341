"""Commands that one process runs say so where a launcher starts several of them."""

import pytest

from trainers import distill, export, sweep
from worldmodel.errors import BadValue

TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "4"}
SRUN = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_NUM_NODES": "2"}


@pytest.mark.parametrize("environ", [TORCHRUN, SRUN])
def test_several_processes_are_refused_before_anything_starts(environ, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    for name, main, words in (
        ("distill", distill.main, ["checkpoint=x"]),
        ("export", export.main, ["checkpoint=x", "out=y"]),
        ("sweep", sweep.main, ["experiment=toy", "out=y"]),
    ):
        with pytest.raises(BadValue, match=f"^{name}: expected one process, got 4 of a launcher"):
            main(words)
    assert not [*tmp_path.iterdir()]


def test_one_process_of_a_launcher_is_one(monkeypatch):
    for name, value in (TORCHRUN | {"LOCAL_WORLD_SIZE": "1", "WORLD_SIZE": "1"}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Exception, match="checkpoint: expected a run folder"):
        distill.main([])
