"""A run that goes on with another number of ranks: no row is lost or doubled, and all counters go on."""

import shutil
import signal

import numpy as np
import pytest

from datamodules.recorded import Recorded
from trainers.run_folder.checkpoint import load_checkpoint, newest
from trainers.run_folder.read_metrics import read_metrics

DDP = ("trainer.strategy=ddp", "trainer.accelerator=cpu")


def checkpoint(folder):
    return load_checkpoint(newest(folder / "checkpoints"))


def rows(folder):
    """Every row of the published shards, by its bytes."""
    recorded = Recorded(folder / "replay")
    found = []
    for episode in recorded.trajectories():
        for t in range(len(episode)):
            found.append((episode.pixels[t].tobytes(), episode.action[t].tobytes(), float(episode.reward[t])))
    recorded.close()
    return found


def go_on(runs, ranks, folder, *arguments):
    """Resume with so many ranks, to the end; the results."""
    options = (*DDP, f"trainer.devices={ranks}", *arguments)
    first, *others = runs.ranks(ranks, f"resume={folder}", *options, OMP_NUM_THREADS="1")
    assert first.wait() == 0, first.err.read_text()
    assert all(other.wait() == 0 for other in others), [other.err.read_text() for other in others]
    return first.results()


def test_one_rank_then_two_then_one(runs, finished, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    before = [rows(folder)]
    for ranks, env_steps, generation in ((2, 200, 1), (1, 260, 2)):
        results = go_on(runs, ranks, folder, f"task.env_steps={env_steps}")
        assert (results["env_steps"], results["episodes"]) == (env_steps, env_steps // 20)
        assert results["updates"] == env_steps // 5  # 0.2 for a decision, over all ranks
        state = checkpoint(folder)["callbacks"]["loop"]
        assert (len(state["ranks"]), state["generation"]) == (ranks, generation)
        shards = sorted(path.name for path in (folder / "replay").rglob("rank_*"))
        assert shards == [f"rank_{rank:02d}" for rank in range(ranks)]
        found = rows(folder)
        # 20 steps and the frame before them; no seed is played twice
        assert len(found) == len(set(found)) == env_steps // 20 * 21
        assert set(before[-1]) < set(found)
        before.append(found)
    steps = read_metrics(folder / "metrics.csv")["env_steps"]
    assert (np.diff(steps) >= 0).all() and steps[-1] == 260


def test_killed_between_the_shards_and_their_first_checkpoint(runs, finished, tmp_path, gone):
    """The shards of the checkpoint's ranks stay until no checkpoint needs them."""
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    before = rows(folder)
    arguments = (f"resume={folder}", *DDP, "trainer.devices=2", "task.env_steps=100000", "data.update_ratio=50")
    first, second = runs.ranks(2, *arguments)
    first.wait_for(folder / "replay" / "generation_01" / "rank_01" / "stream_00" / "manifest.json")
    # a round was played and its two thousand updates are under way
    first.wait_for_rows(folder, len(read_metrics(folder / "metrics.csv")["env_steps"]) + 1)
    first.send(signal.SIGKILL)
    assert (first.wait(), second.wait()) == (-signal.SIGKILL, -signal.SIGKILL) and gone(first.pid)
    assert rows(folder) == before and (folder / "replay" / "generation_01").exists()
    # as before, and what the killed attempt left behind goes
    results = go_on(runs, 1, folder, "task.env_steps=180", "data.update_ratio=0.2")
    assert results["env_steps"] == 180 and set(before) < set(rows(folder))
    assert [path.name for path in (folder / "replay").iterdir()] == ["rank_00"]


@pytest.mark.slow
def test_offline_with_more_ranks_and_fewer(runs, finished, tmp_path):
    folder = tmp_path / "run"
    arguments = ("experiment=small", "data=offline", f"data.uri={finished / 'replay'}", "data.batch=4")
    options = ("data.length=8", "data.updates=4", "data.save_every=2", "trainer.accelerator=cpu", f"run_dir={folder}")
    run = runs.fit(*arguments, *options)
    assert run.wait() == 0, run.err.read_text()
    draws = []
    for ranks, updates in ((2, 8), (4, 12), (1, 16)):
        assert go_on(runs, ranks, folder, f"data.updates={updates}")["updates"] == updates
        states = checkpoint(folder)["callbacks"]["loop"]["ranks"]
        assert len(states) == ranks
        draws += [state["recorded"]["sampler"]["rng"]["state"]["state"] for state in states]
    assert len(set(draws)) == 7
