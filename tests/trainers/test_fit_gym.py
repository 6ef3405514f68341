"""The whole pipeline on environments that are not dm_control's: collect, learn, plan, evaluate, film."""

from pathlib import Path

import numpy as np
import pytest

from datamodules.recorded import Recorded

pytest.importorskip("gymnasium")

ENVS = Path(__file__).resolve().parents[1] / "datamodules" / "envs"
QUICK = (
    *("experiment=smoke", "task.env_steps=120", "evaluation.every=1000", "trainer.accelerator=cpu"),
    *("task.env.size=16", "planner.iterations=1", "data.seed_episodes=3"),
)
DICT = "{observation:dict,lengths:[9]}"


@pytest.mark.parametrize(
    ("task", "options", "terminates"),
    [
        ("gym:Pendulum-v1", ["task.env.episode_steps=20"], False),
        ("gym:CartPole-v1", ["task.env.kwargs.sutton_barto_reward=true"], True),
        (
            "gym:gym_envs:Watermarked",
            ["task.env.episode_steps=30", f"task.env.kwargs={DICT}"],
            True,
        ),
        ("vector:CartPole-v1", ["data.envs=2"], True),
    ],
)
def test_a_run_from_the_first_row_to_the_report(runs, tmp_path, task, options, terminates):
    folder = tmp_path / "run"
    run = runs.fit(*QUICK, f"task={task}", *options, f"run_dir={folder}", PYTHONPATH=str(ENVS))
    assert run.wait(240) == 0, run.err.read_text()
    results = run.results()
    assert (results["status"], results["faults"], results["task"]) == ("finished", 0, task.partition(":")[2])
    assert results["env_steps"] >= 120 and results["updates"] >= 10 and np.isfinite(results["return_mean"])
    assert (folder / "report.html").stat().st_size > 100
    recorded = Recorded(folder / "replay")
    ends = {episode.terminal for episode in recorded.trajectories()}
    assert (True in ends) == terminates and recorded.spec.discrete == ("CartPole" in task)
    recorded.close()


def test_episodes_shorter_than_a_window_are_said_when_the_seed_episodes_are_over(runs, tmp_path):
    task = ("task=gym:gym_envs:Watermarked", "task.env.episode_steps=30", f"task.env.kwargs={DICT}", "data.length=12")
    run = runs.fit(*QUICK, *task, f"run_dir={tmp_path / 'run'}", PYTHONPATH=str(ENVS))
    assert run.wait() == 2
    *_, line = run.err.read_text().splitlines()
    assert line.startswith("ReplayEmpty: rows: expected 12 consecutive rows of an episode, got 30 rows in all")
    assert line.endswith("10 of them in the longest episode: set data.length=10 or less")
    assert not (tmp_path / "run/metrics.csv").exists()


@pytest.mark.parametrize(
    ("rounds", "at", "expected"),
    [
        (1, 2, "WorkerFault: no seed episode was long enough to learn from: environment 0: exception"),
        (5, 1, "WorkerLost: environment 0 failed 4 times in 300 s; the last time: exception"),
    ],
)
def test_an_error_in_an_environments_own_code_is_the_last_word(runs, tmp_path, rounds, at, expected):
    task = ("task=gym:gym_envs:Keyless", "task.env.episode_steps=30", f"task.env.kwargs={{at:{at}}}")
    folder = tmp_path / "run"
    run = runs.fit(*QUICK, *task, f"data.seed_episodes={rounds}", f"run_dir={folder}", PYTHONPATH=str(ENVS))
    assert run.wait() == 2
    *shown, line = run.err.read_text().splitlines()
    assert line == f"{expected}: KeyError: 'gripper'"
    for text in ("\n".join(shown), (folder / "faults.log").read_text()):
        assert "gym_envs.py" in text and "in step" in text and "KeyError: 'gripper'" in text
