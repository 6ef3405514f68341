"""Runs on nodes of Ray: placed, stopped, killed, lost with their node; a sweep that loses one ends complete."""

import csv
import os
import re
import subprocess
import sys
import time

import pytest

from datamodules.envs.errors import MissingPackage
from tests.trainers.conftest import TOY, until
from trainers.command.configuration import BadConfig
from trainers.sweeping.engine import Job, JobLost
from trainers.sweeping.engines import ray as engine

TIMES = re.compile("time|second|memory|_ms")


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingPackage, match=r"pip install 'worldmodel\[ray\]'"):
        make()


@pytest.mark.parametrize("options", [{"cpus": "0"}, {"gpus": "-1"}, {"gpus": "half"}])
def test_what_no_node_can_give_is_refused(options):
    with pytest.raises(BadConfig, match=f"engine.{next(iter(options))}: expected a finite number"):
        make(**options)


def make(**options):
    return engine.make(**{"runs": 3, "jobs": None, "devices": 1, "accelerator": "cpu", **options})


@pytest.fixture(scope="module")
def nodes():
    pytest.importorskip("ray")
    from tests.ray_nodes import ray_nodes

    with ray_nodes(2) as nodes:
        yield nodes


@pytest.fixture
def start(nodes, stand_in):
    """Start a stand-in's run, which is found by the path that nodes get told."""

    def started(name="x", **options):
        one = make(**options)
        one._environ = {**one._environ, "PYTHONPATH": str(stand_in.folder)}
        folder = stand_in.folder / name
        job = one.start(Job(name=name, folder=folder, overrides=("a=1",), log=stand_in.log.with_name(f"{name}.log")))
        jobs.append(job)
        return job

    jobs = []
    yield started
    for job in jobs:
        job.kill()


def trains(folder):
    return not subprocess.run(["pgrep", "-f", f"run_dir={folder}"], stdout=subprocess.DEVNULL).returncode


def ended(job):
    codes = []
    until(lambda: codes.append(job.poll()) or codes[-1] is not None, timeout_s=60, what="the end of the job")
    return codes[-1]


def test_a_run_has_its_share_and_says_how_it_ended(start, stand_in):
    assert make().describe() == "2 at once on 3 nodes of Ray, 1 CPU each"
    assert (make(runs=1).slots, make(jobs=3).slots, make(cpus="0.25", runs=9).slots) == (1, 3, 8)
    waits = "1 at once on 3 nodes of Ray, 64 CPU each; no node has as much: runs wait until one comes"
    assert make(cpus="64").describe() == waits
    job = start()
    stand_in.wait_for("ready")
    said = stand_in.said()
    assert said["arguments"] == ["a=1", f"run_dir={stand_in.folder / 'x'}"]
    assert said["environ"]["OMP_NUM_THREADS"] == "1" and said["cores"] == sorted(os.sched_getaffinity(0))
    assert job.poll() is None
    (stand_in.folder / "x" / "end").touch()
    assert ended(job) == 0


def test_a_run_that_is_asked_to_end_saves_and_one_that_waits_is_given_up(start, stand_in):
    job, other, waiting = (start(name, cpus="1") for name in ("x", "y", "z"))
    stand_in.wait_for("ready")
    waiting.stop()
    assert waiting.poll() == -9 and not (stand_in.folder / "z").exists()
    job.stop()
    assert ended(job) == 143 and "saved" in stand_in.text()
    other.kill()
    assert other.poll() == -9


@pytest.mark.slow
def test_a_run_is_lost_with_its_node_alone(start, stand_in, nodes):
    jobs = {name: start(name, cpus="1") for name in "xy"}
    until(lambda: all((stand_in.folder / name / "config.yaml").exists() for name in jobs), timeout_s=60, what="runs")
    nodes.kill(nodes.nodes[0])
    lost = []
    end = time.monotonic() + 60
    while not lost and time.monotonic() < end:
        for name, job in jobs.items():
            try:
                assert job.poll() is None
            except JobLost as error:
                lost.append((name, str(error)))
        time.sleep(0.05)
    ((name, why),) = lost
    assert "actor" in why and "\n" not in why
    until(lambda: not trains(stand_in.folder / name), timeout_s=60, what="the end of the lost run")
    (other,) = jobs.keys() - {name}
    assert trains(stand_in.folder / other) and jobs[other].poll() is None
    until(lambda: make().slots == 1, timeout_s=60, what="a cluster of one node")
    nodes.nodes.append(nodes.add())


def swept(runs, root, *words):
    """The results of a sweep of two seeds."""
    run = runs.cli("trainers.sweep", *TOY, "seed=0,1", *words, f"out={root}")
    assert run.wait() == 0, run.err.read_text()
    return run.results()


def metrics(folder):
    """What a run measured but how long it took, and what it came to."""
    rows = list(csv.DictReader((folder / "metrics.csv").open()))
    return [{name: value for name, value in row.items() if not TIMES.search(name)} for row in rows]


@pytest.mark.slow
def test_a_sweep_is_the_same_as_without_ray(nodes, runs, tmp_path):
    here, there = (swept(runs, tmp_path / name, f"engine={name}") for name in ("local", "ray"))
    assert here["return_mean"] == there["return_mean"] and there["finished"] == 2
    for seed in (0, 1):
        local, ray = (metrics(tmp_path / name / f"toy_point-seed={seed}") for name in ("local", "ray"))
        assert len(local) > 3 and local == ray


@pytest.mark.slow
def test_a_sweep_that_loses_a_node_ends_complete(nodes, runs, tmp_path):
    root = tmp_path / "x"
    folders = [root / f"toy_point-seed={seed}" for seed in (0, 1)]
    sweep = runs.cli("trainers.sweep", *TOY, "seed=0,1", "engine=ray", "task.env_steps=400", f"out={root}")
    for folder in folders:
        sweep.wait_for_rows(folder, 2)
    nodes.kill(nodes.nodes[0])
    assert sweep.wait() == 0, sweep.err.read_text()
    nodes.nodes.append(nodes.add())
    results = sweep.results()
    assert (results["runs"], results["finished"], results["failed"]) == (2, 2, 0)
    assert sum((folder / "config_0.yaml").exists() for folder in folders) == 1, "one was resumed"
    assert sweep.err.read_text().count("lost toy_point-seed=") == 1
    assert all(metrics(folder)[-1]["env_steps"] == "400" for folder in folders)
