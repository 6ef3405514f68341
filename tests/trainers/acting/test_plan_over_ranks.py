"""`torchrun -m trainers.evaluate`: the first rank acts, all ranks plan, and the episodes are those of one process."""

import json

import pytest

LAUNCH = ("torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "trainers.evaluate")
OPTIONS = ("episodes=2", "envs=2", "planner.candidates=33", "planner.elites=4")


def test_the_episodes_of_one_process(runs, finished, tmp_path):
    alone = runs.cli("trainers.evaluate", str(finished), *OPTIONS, f"out={tmp_path / 'alone'}")
    together = runs.cli(*LAUNCH, str(finished), *OPTIONS, f"out={tmp_path / 'together'}", OMP_NUM_THREADS="1")
    assert (alone.wait(), together.wait()) == (0, 0), together.err.read_text()[-2000:]
    one, both = alone.results(), together.results()
    assert (one["ranks"], both["ranks"]) == (1, 2)
    assert both["returns"] == pytest.approx(one["returns"], rel=1e-4)
    assert "2 ranks plan together" in together.err.read_text()
    assert len([*(tmp_path / "together").glob("results_*.json")]) == 1


def test_nothing_to_share_out(runs, finished, tmp_path):
    run = runs.cli(*LAUNCH, str(finished), "planner=uct", f"out={tmp_path}", OMP_NUM_THREADS="1")
    assert run.wait() != 0
    assert "planner: expected one that scores sequences" in run.err.read_text()
    assert json.loads(run.out.read_text().splitlines()[0])["exit_code"] == 2
