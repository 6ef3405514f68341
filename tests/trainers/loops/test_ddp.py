import json
import os
import signal

import numpy as np
import pytest
import torch

from datamodules.envs.seeds import episode_seed
from datamodules.replay import Replay
from trainers.process.distributed import fingerprint
from trainers.run_folder.checkpoint import load_checkpoint, newest
from trainers.run_folder.read_metrics import read_metrics
from worldmodel.spec import EnvSpec

DDP = ("trainer.devices=2", "trainer.strategy=ddp")
# a posterior over the reward is made of each rank's own rows
MEASURED = ("agent.heads.name=laplace", "data.update_ratio=0.5")
SPEC = EnvSpec(task="toy_point", images={"pixels": (3, 16, 16)}, action_dim=2, action_repeat=1, episode_steps=20)


def checkpoint(folder):
    return load_checkpoint(newest(folder / "checkpoints"))


@pytest.fixture(scope="module")
def trained(runs, toy, tmp_path_factory):
    """Two ranks, launched by the command that a user types."""
    folder = tmp_path_factory.mktemp("ddp") / "run"
    run = runs.cli("trainers.fit", *toy, *DDP, *MEASURED, f"run_dir={folder}", OMP_NUM_THREADS="1")
    assert run.wait() == 0, run.err.read_text()
    return run, folder


def test_one_run_of_two_ranks(trained, gone):
    run, folder = trained
    results = run.results()
    # rounds of two episodes: 40 steps a round, 20 updates due for them
    assert (results["env_steps"], results["decisions"], results["episodes"]) == (120, 120, 6)
    assert results["updates"] == 60 and results["status"] == "finished" and len(results["returns"]) == 2
    assert [path.name for path in folder.parent.iterdir()] == ["run"]
    assert read_metrics(folder / "metrics.csv")["env_steps"].tolist() == [80, 80, 120, 120]
    lines = run.err.read_text().splitlines()
    assert lines[0].startswith("replay: 1000 rows")
    warnings = [line for line in lines if line.startswith("warning: 2 ranks are")]
    assert all(" env steps" in line for line in lines[1:] if line not in warnings), lines
    assert len(warnings) == (results["rank_times"]["speedup"] <= 1), lines
    assert gone(run.pid)


def test_each_rank_has_its_own_rows(trained, tmp_path):
    states = checkpoint(trained[1])["callbacks"]["loop"]["ranks"]
    batches = []
    for rank, state in enumerate(states):
        replay = Replay(spec=SPEC, capacity=1000, folder=trained[1] / "replay" / f"rank_{rank:02d}")
        replay.load_state_dict(state["replay"])
        batches.append(replay._stream_table.gather(np.zeros((1, 3), int), replay.rows))
        replay.close()
    assert [batch.reward.shape[1] for batch in batches] == [63, 63]
    first, second = (state["replay"]["sampler"]["rng"] for state in states)
    assert first["state"] != second["state"] and first["state"]["inc"] != second["state"]["inc"]
    assert not torch.equal(batches[0].action, batches[1].action)
    assert not torch.equal(batches[0].pixels, batches[1].pixels)
    assert not torch.equal(states[0]["torch_rng"], states[1]["torch_rng"])
    assert episode_seed(0, 0, 0, 0) != episode_seed(0, 1, 0, 0)


def test_diverged_weights_are_seen():
    first, second = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)
    assert fingerprint(first) != fingerprint(second)
    second.load_state_dict(first.state_dict())
    assert fingerprint(first) == fingerprint(second)
    with torch.no_grad():
        second.bias[0] += 1e-7
    assert fingerprint(first) != fingerprint(second)


def test_diverged_statistics_are_seen():
    first, second = torch.nn.BatchNorm1d(2), torch.nn.BatchNorm1d(2)
    assert fingerprint(first) == fingerprint(second)
    second.running_mean[0] += 1e-7
    assert fingerprint(first) != fingerprint(second)


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_ends_both_and_the_run_resumes(runs, toy, trained, tmp_path, gone, number):
    folder = tmp_path / "run"
    endless = ["task.env_steps=100000"] if number == signal.SIGINT else []
    first, second = runs.ranks(2, *toy, *DDP, *MEASURED, f"run_dir={folder}", *endless)
    first.wait_for_rows(folder, 2)  # before the trial that compares ranks with one, which the resumed run has not
    first.send(number)
    assert first.wait() == 128 + number, first.err.read_text()
    # the launcher would kill rank 0 while it still writes if another rank's code were not 0
    assert second.wait() == 0, second.err.read_text()
    assert gone(first.pid)
    assert first.results()["status"] == "interrupted" and second.out.read_text() == ""
    assert json.loads((folder / "results.json").read_text())["status"] == "interrupted"
    if endless:
        return
    first, second = runs.ranks(2, f"resume={folder}")
    assert first.wait() == 0, first.err.read_text()
    assert second.wait() == 0, second.err.read_text()
    ours, theirs = checkpoint(folder), checkpoint(trained[1])
    assert first.results()["updates"] == 60
    for name, weight in theirs["state_dict"].items():
        assert torch.equal(ours["state_dict"][name], weight), name


@pytest.mark.parametrize("lost", [0, 1])
def test_one_rank_killed(runs, toy, tmp_path, gone, lost):
    """The other must not wait for it forever."""
    folder = tmp_path / "run"
    both = runs.ranks(2, *toy, *DDP, f"run_dir={folder}", "task.env_steps=100000")
    both[0].wait_for_rows(folder, 1)
    os.kill(both[lost].pid, signal.SIGKILL)
    assert both[1 - lost].wait() not in (0, None)
    assert both[lost].wait() == -signal.SIGKILL
    assert gone(both[0].pid)
