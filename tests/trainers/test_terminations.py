"""Agents in a world where the greedy way is over an edge: who learns where episodes end stays before it."""

from pathlib import Path

import pytest

from datamodules.recorded import Recorded
from trainers.command.configuration import read_yaml

pytest.importorskip("gymnasium")

ENVS = Path(__file__).resolve().parents[1] / "datamodules" / "envs"
EDGE = (
    *("experiment=small", "task=gym:edge_env:Edge", "task.env.episode_steps=40", "task.env.size=16"),
    *("task.env_steps=300", "trainer.accelerator=cpu", "data.length=6", "data.batch=16"),
    *("evaluation.every=100000", "evaluation.final_episodes=6", "evaluation.envs=6", "planner.iterations=1"),
)
ONLINE = ("task.env.observe=state", "data.seed_episodes=15", "data.update_ratio=0.7", "data.capacity=10000")


def fit(runs, *options):
    run = runs.fit(*EDGE, *options, PYTHONPATH=str(ENVS))
    assert run.wait(400) == 0, run.err.read_text()
    return run.results()


@pytest.mark.slow
def test_an_agent_learns_to_stay_alive_and_another_from_its_rows_alone(runs, tmp_path):
    """30 would be perfect; measured 25 here, 28 after three times as much, and 2 where ends are ignored."""
    online, offline = tmp_path / "online", tmp_path / "offline"
    assert fit(runs, *ONLINE, f"run_dir={online}")["return_mean"] > 15
    assert read_yaml(online / "config.yaml")["agent"]["continuation"] is True
    recorded = Recorded(online / "replay")
    assert recorded.terminates and recorded.spec.terminates
    recorded.close()
    data = ("data=offline", f"data.uri=segments:{online / 'replay'}", "data.updates=300", "task.env.observe=state")
    results = fit(runs, *data, f"run_dir={offline}")
    assert results["return_mean"] > 15 and results["held_out"]["continuation"] < 0.2
    assert read_yaml(offline / "config.yaml")["agent"]["continuation"] is True


@pytest.mark.slow
def test_an_agent_that_ignores_ends_goes_over_the_edge(runs, tmp_path):
    assert fit(runs, *ONLINE, "agent.continuation=false", f"run_dir={tmp_path / 'run'}")["return_mean"] < 6


@pytest.mark.slow
def test_from_pixels(runs, tmp_path):
    pixels = ("task.env.kwargs={image:true}", *ONLINE[1:], "task.env_steps=800")
    assert fit(runs, *pixels, f"run_dir={tmp_path / 'run'}")["return_mean"] > 15
