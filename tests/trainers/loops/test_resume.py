import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules.replay import Replay
from trainers import fit
from trainers.run_folder.checkpoint import load_checkpoint, newest
from trainers.run_folder.read_metrics import read_metrics
from worldmodel.spec import EnvSpec

OF_THE_MACHINE = ("seconds", "time/", "memory/", "eval/decision_ms")


def differences(a, b, path=""):
    """Places at which two trees differ in anything but the clock."""
    if isinstance(a, np.ndarray):
        return differences(torch.from_numpy(a), torch.from_numpy(b), path)
    if isinstance(a, torch.Tensor):
        return [] if a.dtype == b.dtype and torch.equal(a, b) else [path]
    if isinstance(a, dict):
        assert a.keys() == b.keys(), path
        return [d for key in a if key != "clock" for d in differences(a[key], b[key], f"{path}/{key}")]
    if isinstance(a, list | tuple):
        assert len(a) == len(b), path
        return [d for i, (x, y) in enumerate(zip(a, b, strict=True)) for d in differences(x, y, f"{path}/{i}")]
    return [] if a == b else [path]


def checkpoint(folder):
    return load_checkpoint(newest(folder / "checkpoints"))


def curves(folder):
    columns = read_metrics(folder / "metrics.csv")
    return {name: column for name, column in columns.items() if not name.startswith(OF_THE_MACHINE)}


def rows(folder, copy):
    """Every window of one row of a copy of the replay, in order of its numbers."""
    shutil.copytree(folder / "replay", copy)
    state = checkpoint(folder)["callbacks"]["loop"]["ranks"][0]["replay"]
    spec = EnvSpec(task="toy_point", images={"pixels": (3, 16, 16)}, action_dim=2, action_repeat=1, episode_steps=20)
    replay = Replay(spec=spec, capacity=2000, folder=copy / "rank_00")
    replay.load_state_dict({**state, "sampler": replay.state_dict()["sampler"]})
    batch = replay._stream_table.gather(np.zeros((1, 3), int), replay.rows)
    replay.close()
    return batch


def assert_same_run(folder: Path, reference: Path, scratch: Path) -> None:
    assert differences(checkpoint(folder), checkpoint(reference)) == []
    ours, theirs = curves(folder), curves(reference)
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
    mine, yours = rows(folder, scratch / "a"), rows(reference, scratch / "b")
    assert mine.reward.shape[1] == 6 * 21
    for name in ("pixels", "action", "reward", "is_first", "is_last"):
        assert torch.equal(getattr(mine, name), getattr(yours, name)), name


def test_a_comparison_that_bites(finished):
    found = checkpoint(finished)
    assert differences(found, checkpoint(finished)) == []
    weight = next(w for w in found["state_dict"].values() if w.numel() > 1)
    weight.view(-1)[0] += 1e-6
    assert len(differences(found, checkpoint(finished))) == 1
    # what is restored, so what is compared
    algorithm = found["callbacks"]["loop"]
    assert algorithm["counters"]["env_steps"] == 120
    assert found["optimizer_states"][0]["state"]
    assert algorithm["ranks"][0]["torch_rng"].numel() > 1000


@pytest.mark.slow
def test_killed_twice_at_random_moments(runs, toy, finished, tmp_path, gone):
    folder, dice = tmp_path / "run", random.Random()
    run = runs.fit(*toy, f"run_dir={folder}")
    for row in (1, 4):
        run.wait_for_rows(folder, dice.randint(row, row + 2))
        time.sleep(dice.uniform(0, 0.3))
        os.kill(run.pid, signal.SIGKILL)
        assert run.wait() == -signal.SIGKILL
        assert gone(run.pid)
        run = runs.fit(f"resume={folder}")
    assert run.wait() == 0, run.err.read_text()
    assert run.results()["status"] == "finished"
    assert_same_run(folder, finished, tmp_path)


def test_interrupted_by_ctrl_c(runs, toy, finished, tmp_path, gone):
    folder = tmp_path / "run"
    run = runs.fit(*toy, f"run_dir={folder}")
    run.wait_for_rows(folder, 3)
    run.send(signal.SIGINT)
    assert run.wait() == 130, run.err.read_text()
    assert gone(run.pid)
    results = run.results()
    assert (results["status"], results["return_mean"]) == ("interrupted", None)
    assert 0 < results["env_steps"] < 120 and newest(folder / "checkpoints")
    assert f"resume={folder}" in run.err.read_text()
    resumed = runs.fit(f"resume={folder}")
    assert resumed.wait() == 0, resumed.err.read_text()
    assert_same_run(folder, finished, tmp_path)


@pytest.mark.parametrize("sampler", ["uniform", "prioritised"])
def test_batches_prepared_ahead_change_nothing(runs, toy, finished, tmp_path, sampler):
    """Stopped with a batch prepared, and continued, as without."""
    folder, reference = tmp_path / "run", finished
    toy = (*toy, f"data.sampler.name={sampler}")
    if sampler != "uniform":
        reference = tmp_path / "reference"
        assert runs.fit(*toy, f"run_dir={reference}").wait() == 0
        weights = [checkpoint(path)["state_dict"] for path in (reference, finished)]
        assert differences(*weights) != []
    run = runs.fit(*toy, "data.prefetch=true", f"run_dir={folder}")
    run.wait_for_rows(folder, 2)
    run.send(signal.SIGINT)
    assert run.wait() == 130, run.err.read_text()
    resumed = runs.fit(f"resume={folder}")
    assert resumed.wait() == 0, resumed.err.read_text()
    assert_same_run(folder, reference, tmp_path)


def test_terminated_during_the_last_evaluation(runs, toy, finished, tmp_path, gone):
    folder = tmp_path / "run"
    run = runs.fit(*toy, f"run_dir={folder}", "evaluation.final_episodes=1000")
    run.wait_for_rows(folder, 7)
    time.sleep(1.0)
    run.send(signal.SIGTERM)
    assert run.wait() == 143, run.err.read_text()
    assert gone(run.pid)
    assert run.results()["env_steps"] == 120 and run.results()["return_mean"] is None
    resumed = runs.fit(f"resume={folder}", "evaluation.final_episodes=2")
    assert resumed.wait() == 0, resumed.err.read_text()
    assert_same_run(folder, finished, tmp_path)


def test_terminated_during_the_seed_episodes(runs, toy, finished, tmp_path, gone):
    folder = tmp_path / "run"
    run = runs.fit(*toy, f"run_dir={folder}", "data.seed_episodes=1000000")
    run.wait_for(folder / "config.yaml")
    run.send(signal.SIGTERM)
    assert run.wait() == 143, run.err.read_text()
    assert gone(run.pid) and run.results()["env_steps"] == 0
    assert not any((folder / "checkpoints").glob("*"))
    resumed = runs.fit(f"resume={folder}", "data.seed_episodes=2")
    assert resumed.wait() == 0, resumed.err.read_text()
    assert_same_run(folder, finished, tmp_path)


def test_killed_before_the_first_checkpoint(runs, toy, finished, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    shutil.rmtree(folder / "checkpoints")
    run = runs.fit(f"resume={folder}")
    assert run.wait() == 0, run.err.read_text()
    assert_same_run(folder, finished, tmp_path)


def test_damaged_newest_checkpoint(runs, finished, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    weights = newest(folder / "checkpoints") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    run = runs.fit(f"resume={folder}")
    assert run.wait() == 0, run.err.read_text()
    assert "warning: checkpoint left out" in run.err.read_text()
    assert_same_run(folder, finished, tmp_path)


def test_only_damaged_checkpoints(refused, finished, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    for path in folder.glob("checkpoints/step_*/model.safetensors"):
        path.write_bytes(b"")
    with pytest.warns(UserWarning, match="left out"):
        line = refused(fit.main, f"resume={folder}")
    assert line.startswith("BadConfig: resume: expected an intact checkpoint") and "\n" not in line
    assert (folder / "results.json").exists()


def test_finished_run(runs, finished, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    before = json.loads((folder / "results.json").read_text())
    again = runs.fit(f"resume={folder}")
    assert again.wait() == 0, again.err.read_text()
    results = again.results()
    assert {k: results[k] for k in ("status", "returns", "env_steps", "updates", "return_ci95")} == {
        k: before[k] for k in ("status", "returns", "env_steps", "updates", "return_ci95")
    }
    assert_same_run(folder, finished, tmp_path)
    longer = runs.fit(f"resume={folder}", "task.env_steps=140")
    assert longer.wait() == 0, longer.err.read_text()
    assert (longer.results()["env_steps"], longer.results()["updates"]) == (140, 28)
    steps = read_metrics(folder / "metrics.csv")["env_steps"]
    assert steps.tolist() == [*curves(finished)["env_steps"], 140, 140]


def test_other_parts_than_the_checkpoint_has(refused, finished, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    before = {path.name: path.read_bytes() for path in sorted(folder.glob("*.*"))}
    for override, names in {
        "dynamics.hidden=32": ("BadConfig: dynamics.hidden: expected 64 as in the run to resume, got 32",),
        "policy=none": ("BadConfig: policy: expected backprop as in the run to resume, got None",),
        "data.envs=2": ("data.envs", "expected 1", "got 2"),
        "task.env.size=32": ("task.env.size: expected 16 as in the run to resume, got 32",),
        "experiment=toy": ("experiment=toy: expected no experiment",),
        "data.bacth=3": ("did you mean data.batch",),
    }.items():
        line = refused(fit.main, f"resume={folder}", "task.env_steps=200", override).splitlines()[-1]
        assert all(name in line for name in names), line
        assert {path.name: path.read_bytes() for path in sorted(folder.glob("*.*"))} == before, override
    assert differences(checkpoint(folder), checkpoint(finished)) == []


def test_every_resume_keeps_the_earlier_configuration(runs, finished, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    texts = [(folder / "config.yaml").read_text()]
    for key in ("checkpoint.keep=3", "checkpoint.keep=4"):
        assert runs.fit(f"resume={folder}", key).wait() == 0
        texts.append((folder / "config.yaml").read_text())
    assert [(folder / f"config_{n}.yaml").read_text() for n in (0, 1)] == texts[:2] and len(set(texts)) == 3
