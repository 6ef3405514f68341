"""Runs that learn from recorded episodes alone."""

import json
import os
import re
import shutil
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.trainers.loops.test_resume import checkpoint, curves, differences
from trainers import evaluate, fit
from trainers.command.configuration import BadConfig
from trainers.loops.offline import _require_most
from trainers.run_folder.read_metrics import read_metrics

OFFLINE = (
    *("data=offline", "experiment=small", "data.batch=4", "data.length=8", "data.updates=24"),
    *("data.log_every=5", "data.validate_every=10", "data.save_every=6", "trainer.accelerator=cpu"),
)
TOY_OF_32 = ("data.length=8", "task=toy_point", "task.env.size=32")
# what an environment would import cannot be imported, and every Python process leaves its number
BLOCKED = "raise ImportError('blocked by a test')"
STAMP = "import os, pathlib; pathlib.Path(os.environ['STAMPS'], str(os.getpid())).touch()"


@pytest.fixture(scope="module")
def learned(runs, finished, tmp_path_factory):
    """A run on the six episodes that another run recorded, where no environment could be made."""
    root = tmp_path_factory.mktemp("offline")
    path, stamps = root / "path", root / "stamps"
    path.mkdir(), stamps.mkdir()
    for name in ("dm_control", "mujoco", "gymnasium"):
        (path / f"{name}.py").write_text(BLOCKED)
    (path / "sitecustomize.py").write_text(STAMP)
    environ = {"PYTHONPATH": str(path), "STAMPS": str(stamps)}
    arguments = (*OFFLINE, f"data.uri={finished / 'replay'}", f"run_dir={root / 'run'}")
    run = runs.cli("trainers.fit", *arguments, **environ)
    assert run.wait() == 0, run.err.read_text()
    assert len(list(stamps.iterdir())) == 1
    return run, root / "run"


def test_what_was_learned_from_is_said(learned):
    run, folder = learned
    results = run.results()
    assert (results["status"], results["updates"], results["task"]) == ("finished", 24, "toy_point")
    assert (results["episodes"], results["env_steps"], results["decisions"]) == (6, 120, 120)
    assert results["data"] == {"rows": 126, "held_out": 1, "damaged_blocks": 0, "short": 0}
    assert {"image", "reward", "image_1", "image_5", "image_15", "reward_15", "still_15"} <= results["held_out"].keys()
    assert results["return_mean"] is None and results["time"]["env"] == results["time"]["plan"] == 0
    assert json.loads((folder / "results.json").read_text()) == {k: v for k, v in results.items() if k != "report"}
    first, *others = run.err.read_text().splitlines()
    assert first.startswith("recorded: 126 rows of 6 episodes from ") and first.endswith("; 1 held out")
    assert others and all(" updates " in line for line in others), others


def test_curves_are_drawn_over_updates(learned):
    columns = read_metrics(learned[1] / "metrics.csv")
    assert columns["updates"].tolist() == [5, 10, 15, 20, 24]
    assert set(columns["env_steps"]) == {120}
    assert np.isfinite(columns["loss/image"]).all()
    assert columns["updates"][np.isfinite(columns["held_out/image"])].tolist() == [10, 20, 24]
    page = (learned[1] / "report.html").read_text()
    assert "Held-out episodes" in page and "open_loop_final" in page


def test_files(learned):
    names = ("000000010", "000000020", "final")
    films = {path.name for path in (learned[1] / "videos").iterdir()}
    assert films == {f"open_loop_{name}.{end}" for name in names for end in ("mp4", "png")}
    steps = sorted(path.name for path in (learned[1] / "checkpoints").iterdir())
    assert steps == [f"step_{updates:010d}" for updates in (18, 24)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_stopped_and_continued_is_the_same(runs, learned, tmp_path, number):
    folder = tmp_path / "run"
    saved = fit.read_yaml(learned[1] / "config.yaml")["data"]["uri"]
    run = runs.fit(*OFFLINE, f"data.uri={saved}", f"run_dir={folder}")
    run.wait_for_rows(folder, 2)
    os.kill(run.pid, number)
    assert run.wait() in (130, -signal.SIGKILL, 0), run.err.read_text()
    resumed = runs.fit(f"resume={folder}")
    assert resumed.wait() == 0, resumed.err.read_text()
    assert resumed.results()["held_out"] == learned[0].results()["held_out"]
    assert differences(checkpoint(folder), checkpoint(learned[1])) == []
    ours, theirs = curves(folder), curves(learned[1])
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


def test_batches_prepared_ahead_change_nothing(runs, finished, tmp_path):
    """By errors of the model, stopped with a batch prepared, and continued, as without."""
    arguments = (*OFFLINE, "data.sampler.name=prioritised", f"data.uri={finished / 'replay'}")
    reference, folder = runs.fit(*arguments, f"run_dir={tmp_path / 'reference'}"), tmp_path / "run"
    assert reference.wait() == 0, reference.err.read_text()
    run = runs.fit(*arguments, "data.prefetch=true", f"run_dir={folder}")
    run.wait_for_rows(folder, 2)
    os.kill(run.pid, signal.SIGINT)
    assert run.wait() in (130, 0), run.err.read_text()
    resumed = runs.fit(f"resume={folder}")
    assert resumed.wait() == 0, resumed.err.read_text()
    assert resumed.results()["held_out"] == reference.results()["held_out"]
    assert differences(checkpoint(folder), checkpoint(tmp_path / "reference")) == []


def test_more_updates_continue(runs, learned, tmp_path):
    shutil.copytree(learned[1], tmp_path / "run")
    resumed = runs.fit(f"resume={tmp_path / 'run'}", "data.updates=30")
    assert resumed.wait() == 0, resumed.err.read_text()
    assert (resumed.results()["updates"], resumed.results()["status"]) == (30, "finished")
    assert read_metrics(tmp_path / "run" / "metrics.csv")["updates"].tolist() == [5, 10, 15, 20, 24, 25, 30]


def test_two_ranks_draw_apart_and_learn_alike(runs, finished, tmp_path):
    ranks = ("trainer.devices=2", "trainer.strategy=ddp", "data.updates=6", f"run_dir={tmp_path / 'run'}")
    arguments = (*OFFLINE, *ranks, f"data.uri={finished / 'replay'}")
    run = runs.cli("trainers.fit", *arguments, OMP_NUM_THREADS="1")
    assert run.wait() == 0, run.err.read_text()
    assert (run.results()["updates"], run.results()["status"]) == (6, "finished")
    states = checkpoint(tmp_path / "run")["callbacks"]["loop"]["ranks"]
    assert len(states) == 2 and states[0]["recorded"] != states[1]["recorded"]


def test_a_named_task_is_acted_in(runs, finished, tmp_path):
    task = ("task=toy_point", "task.env.episode_steps=20", "evaluation.every=4", "evaluation.final_episodes=2")
    light = ("planner.iterations=1", "evaluation.episodes=1", "data.updates=8", f"run_dir={tmp_path / 'run'}")
    run = runs.fit(*OFFLINE, *task, *light, f"data.uri={finished / 'replay'}")
    assert run.wait() == 0, run.err.read_text()
    results = run.results()
    assert len(results["returns"]) == 2 and results["status"] == "finished"
    columns = read_metrics(tmp_path / "run" / "metrics.csv")
    assert columns["updates"][np.isfinite(columns["eval/return_mean"])].tolist() == [4, 8]
    # and is what the run can be evaluated in later
    evaluated = runs.start("evaluate", f"checkpoint={tmp_path / 'run'}", "episodes=1", "planner.iterations=1")
    assert evaluated.wait() == 0, evaluated.err.read_text()
    assert evaluated.results()["task"] == "toy_point"


@pytest.mark.parametrize(
    ("arguments", "named"),
    {
        ("data=offline",): ("data.uri",),
        ("data=offline", "data.uri=/no/such"): ("/no/such", "no such file"),
        ("data=offline", "data.uri=SEGMENTS", "data.length=22"): ("data.length", "21 rows", "22"),
        ("data=offline", "data.uri=SEGMENTS", "data.updates=0"): ("data.updates", "at least 1"),
        ("data=offline", "data.uri=SEGMENTS", "data.validation_share=1"): ("data.validation_share", "below 1"),
        ("data=offline", "data.uri=SEGMENTS", "data.length=8", "task=toy_point", "task.env.size=32"): (
            "observed 3x16x16",
            "32",
        ),
        ("data=online", "task=none"): ("task", "data=offline"),
        ("data=imagined", "data.model=/no/such"): ("/no/such", "run folder"),
        ("data=imagined",): ("data.model",),
        ("data=imagined", "data.model=RUN", "policy=none"): ("policy", "policy=backprop"),
    }.items(),
)
def test_what_cannot_be_learned_from_is_said_in_one_line(refused, finished, tmp_path, arguments, named):
    places = {"SEGMENTS": str(finished / "replay"), "RUN": str(finished)}
    texts = [re.sub("SEGMENTS|RUN", lambda found: places[found.group()], text) for text in arguments]
    small = [] if "data=imagined" in arguments else ["experiment=small"]
    line = refused(fit.main, *texts, *small, f"run_dir={tmp_path / 'run'}").splitlines()[-1]
    assert all(name in line for name in named), line
    assert not (tmp_path / "run").exists()


def test_a_run_does_not_begin_where_most_episodes_are_left_out():
    recorded = SimpleNamespace(episodes=7)
    _require_most(recorded, {"skipped": 3, "short": 2}, limit=0.5, length=8)
    facts = {"skipped": 3, "short": 3, "problems": ["a.npz: torn", "b.npz: torn"]}
    with pytest.raises(
        BadConfig, match=r"got 6 of 10: 3 cannot be read \(a.npz: torn\), 3 are shorter than data.length=8"
    ):
        _require_most(recorded, facts, limit=0.5, length=8)
    _require_most(recorded, facts, limit=0.6, length=8)


def test_a_run_without_a_task_says_what_evaluation_needs(refused, learned):
    assert "task: expected task=NAME" in refused(evaluate.main, f"checkpoint={learned[1]}")


def test_imagination_moves_the_policy_and_never_the_model(runs, finished, tmp_path):
    folder = tmp_path / "run"
    short = ("data.updates=12", "data.batch=4", "data.length=8", "data.log_every=5", f"run_dir={folder}")
    run = runs.fit("data=imagined", f"data.model={finished}", *short)
    assert run.wait() == 0, run.err.read_text()
    assert (run.results()["updates"], run.results()["status"]) == (12, "finished")
    before, after = (checkpoint(path)["state_dict"] for path in (finished, folder))
    assert before.keys() == after.keys()
    parts = {}
    for name, weight in before.items():
        parts.setdefault(name.split(".")[1], []).append(torch.equal(weight, after[name]))
    assert all(all(parts[part]) for part in ("norm", "encoder", "decoder", "dynamics", "reward")), parts
    assert not all(parts["policy"])
    optimiser = checkpoint(folder)["optimizer_states"][0]
    assert len(optimiser["param_groups"]) == 2
    resumed = runs.fit(f"resume={folder}", "data.updates=14", "data.model=/gone")
    assert resumed.wait() == 0, resumed.err.read_text()
    again = checkpoint(folder)["state_dict"]
    assert all(torch.equal(again[name], weight) for name, weight in before.items() if "dynamics" in name)
    evaluated = runs.start("evaluate", f"checkpoint={folder}", "episodes=1", "agent.act_with=actor")
    assert evaluated.wait() == 0, evaluated.err.read_text()
    assert evaluated.results()["act_with"] == "actor"
