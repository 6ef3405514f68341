import json
import re
import subprocess
import sys

import numpy as np
import pytest
import yaml

from trainers.run_folder.read_metrics import read_metrics


@pytest.fixture(scope="module")
def smoke(runs, tmp_path_factory):
    """The command of the README, as a user types it."""
    folder = tmp_path_factory.mktemp("smoke") / "run"
    run = runs.cli("trainers.fit", "experiment=smoke", "trainer.accelerator=cpu", f"run_dir={folder}")
    assert run.wait() == 0, run.err.read_text()
    return run, folder


def test_results_are_the_only_line_on_stdout(smoke):
    run, folder = smoke
    results = run.results()
    assert {"return_mean", "return_ci95", "env_steps", "seconds", "run_dir"} <= results.keys()
    assert results["return_mean"] == pytest.approx(np.mean(results["returns"]))
    assert results["return_ci95"] is None  # of two episodes there is no interval
    assert (results["status"], results["env_steps"], results["decisions"]) == ("finished", 300, 300)
    assert results["updates"] == 30 and results["episodes"] == 6 and results["run_dir"] == str(folder)
    assert json.loads((folder / "results.json").read_text()) == {k: v for k, v in results.items() if k != "report"}


def test_stderr_speaks_to_the_user_only(smoke):
    lines = smoke[0].err.read_text().splitlines()
    assert lines[0].startswith("replay: 2000 rows")
    assert all(" env steps" in line for line in lines[1:]), lines
    # the time left stands there as well where the run took more than a minute
    assert re.search(r" gone( · \S+ left)? \| ", lines[-1]) and "eval" in lines[-1]


def test_files(smoke):
    folder = smoke[1]
    for name in ("config.yaml", "metrics.csv", "spec.json", "versions.json", "results.json", "report.html"):
        assert (folder / name).stat().st_size > 100, name
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert (config["data"]["batch"], config["task"]["name"], config["run_dir"]) == (4, "toy_point", str(folder))
    assert json.loads((folder / "spec.json").read_text())["images"] == {"pixels": [3, 16, 16]}
    assert json.loads((folder / "versions.json").read_text())["torch"]
    films = {path.name for path in (folder / "videos").iterdir()}
    names = ("000000100", "000000200", "final")
    kinds = ("evaluation", "open_loop")
    assert films == {f"{kind}_{name}.{end}" for kind in kinds for name in names for end in ("mp4", "png")}
    assert len(list((folder / "checkpoints").iterdir())) == 2
    assert list((folder / "replay" / "rank_00" / "stream_00").iterdir())
    assert list(folder.rglob("*.tmp")) == []


def test_every_row_has_the_counters_and_none_goes_back(smoke):
    columns = read_metrics(smoke[1] / "metrics.csv")
    for name in ("env_steps", "decisions", "updates", "seconds"):
        assert np.isfinite(columns[name]).all() and (np.diff(columns[name]) >= 0).all(), name
    positions = list(zip(columns["env_steps"], columns["updates"], strict=True))
    assert len(set(positions)) == len(positions)
    assert columns["env_steps"].tolist() == [100, 100, 150, 200, 200, 250, 300, 300]
    assert columns["updates"].tolist() == [0, 10, 10, 15, 20, 20, 25, 30]
    evaluated = np.isfinite(columns["eval/return_mean"])
    assert columns["env_steps"][evaluated].tolist() == [100, 200, 300]
    # losses were averaged over the updates that came before
    assert np.isfinite(columns["loss/image"]).sum() == 5


def test_time_is_accounted_for(smoke):
    results = smoke[0].results()
    assert sum(results["time"].values()) == pytest.approx(results["seconds"], abs=0.5)
    assert results["time"]["update"] > 0 and results["time"]["plan"] > 0
    # starting processes and reading checkpoints is set-up, which the rest must not hide
    assert results["time"]["rest"] <= 0.35 * results["seconds"]


def test_answers_before_torch_is_loaded():
    code = (
        "import sys; sys.argv[1:] = ['task=walker_wlak']; import trainers.fit as f; "
        "from trainers.command.entry import run; code = run(f.main, usage=''); "
        "assert not {'torch', 'pytorch_lightning'} & set(sys.modules); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    said = "BadConfig: task: no task 'walker_wlak', did you mean walker_walk, walker_stand, walker_run?"
    assert (done.returncode, done.stderr) == (2, f"{said}\n")
    assert json.loads(done.stdout) == {"status": "failed", "error": said, "exit_code": 2}


@pytest.mark.parametrize("module", ["trainers.fit", "trainers.evaluate"])
def test_help(runs, module):
    run = runs.cli(module, "--help")
    assert run.wait() == 0, run.err.read_text()
    assert f"python -m {module}" in run.out.read_text() and run.err.read_text() == ""


def test_flags_of_lightning(runs, toy, tmp_path):
    """Each stops the run early, cleanly, with a checkpoint; the run goes on when the flag is taken away."""
    stopped = {
        "fast": (["trainer.fast_dev_run=true"], 1),
        "steps": (["trainer.max_steps=3", "trainer.precision=bf16-mixed"], 3),
        "batches": (["trainer.limit_train_batches=2", "+trainer.max_epochs=2"], 4),
        "time": (["trainer.max_time=00:00:00:01", "task.env_steps=100000", "data.update_ratio=100"], None),
    }
    for name, (flags, updates) in stopped.items():
        run = runs.fit(*toy, f"run_dir={tmp_path / name}", *flags)
        assert run.wait() == 0, run.err.read_text()
        results = run.results()
        assert (results["status"], results["return_mean"]) == ("stopped", None), name
        assert results["updates"] == updates or (updates is None and results["updates"] >= 1), name
        names = [path.name for path in (tmp_path / name / "checkpoints").iterdir()]
        assert names == [f"step_{results['env_steps'] + results['updates']:010d}"], name
    again = runs.fit(f"resume={tmp_path / 'steps'}")
    assert again.wait() == 0, again.err.read_text()
    stood = {"status": "stopped", "env_steps": 40, "decisions": 40, "updates": 3, "episodes": 2}
    assert {name: again.results()[name] for name in stood} == stood
    resumed = runs.fit(f"resume={tmp_path / 'steps'}", "trainer.max_steps=-1")
    assert resumed.wait() == 0, resumed.err.read_text()
    assert (resumed.results()["status"], resumed.results()["updates"]) == ("finished", 24)


def test_a_real_task(runs, tmp_path):
    run = runs.fit(
        "experiment=small",
        "task=cartpole_balance",
        "task.env_steps=2000",
        "data.seed_episodes=1",
        "data.batch=4",
        "data.length=8",
        "data.update_ratio=0.1",
        "data.capacity=1000",
        "evaluation.final_episodes=1",
        "trainer.accelerator=cpu",
        "render=fast",
        f"run_dir={tmp_path / 'run'}",
    )
    assert run.wait() == 0, run.err.read_text()
    results = run.results()
    assert (results["env_steps"], results["decisions"], results["updates"]) == (2000, 250, 25)
    assert 0 < results["return_mean"] <= 1000 and results["look"] == "fast"
    assert results["backend"] in ("egl", "osmesa", "glfw")
