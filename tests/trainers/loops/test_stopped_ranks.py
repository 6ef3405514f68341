"""A rank is stopped in the middle of a run, or waits for ever: the run ends with its name, and goes on when resumed."""

import os
import signal

import pytest

from trainers.command.configuration import load_config
from trainers.command.preflight import check

DDP = ("trainer.strategy=ddp", "trainer.accelerator=cpu")
# as long as an environment may take
SOON = ("data.step_timeout_s=3", "data.reset_timeout_s=8", "trainer.rank_timeout_s=12")


@pytest.mark.parametrize("stopped", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_a_stopped_rank_ends_the_run_which_then_resumes(runs, toy, tmp_path, gone, stopped):
    folder = tmp_path / "run"
    words = (*DDP, *SOON, "trainer.devices=2")
    both = runs.ranks(2, *toy, *words, f"run_dir={folder}", "task.env_steps=100000", OMP_NUM_THREADS="1")
    both[0].wait_for_rows(folder, 3)
    os.kill(both[stopped].pid, signal.SIGSTOP)
    other = both[1 - stopped]
    assert other.wait(60.0) == 1, other.err.read_text()
    os.kill(both[stopped].pid, signal.SIGKILL)
    assert both[stopped].wait() == -signal.SIGKILL and gone(both[0].pid)
    line = other.err.read_text().splitlines()[-1]
    assert line.startswith(f"RankLost: rank {stopped} gave no sign of life for 12 s")
    if stopped:
        assert other.results() == {"status": "failed", "error": line, "exit_code": 1}
        resumed = runs.fit(f"resume={folder}", "trainer.devices=1", "task.env_steps=160", OMP_NUM_THREADS="1")
        assert resumed.wait() == 0, resumed.err.read_text()
        assert resumed.results()["env_steps"] >= 160


def test_a_limit_that_an_environment_may_need_is_refused(refused):
    from trainers.fit import main

    line = refused(main, "experiment=smoke", "trainer.rank_timeout_s=100", "trainer.devices=2")
    assert line.endswith(
        "trainer.rank_timeout_s: expected more than data.step_timeout_s + data.reset_timeout_s = 150, got 100"
    )


def test_a_single_process_may_wait_for_its_environment_as_long_as_it_likes():
    check(load_config(["experiment=smoke", "data.reset_timeout_s=900"]))
