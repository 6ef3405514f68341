"""The command: one teacher, two teachers, a stop and a resume, and what is refused."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from trainers import collect_data, distill, drive, evaluate, export, fit, load_agent, report
from trainers.distillation import dagger
from trainers.distillation.teachers import load_teachers
from trainers.reporting.run_set import read_runs
from trainers.run_folder.checkpoint import load_checkpoint, newest
from trainers.run_folder.read_metrics import read_metrics
from trainers.training.progress import RunProgress

SMALL = ("env_steps=80", "rounds=2", "reanalyse=20", "updates=8", "batch=4", "length=6", "envs=2", "episodes=4")


@pytest.fixture(scope="module")
def student(finished, tmp_path_factory):
    """A run of one teacher: its folder and results."""
    root = tmp_path_factory.mktemp("student") / "run"
    return root, distill.main([str(finished), *SMALL, f"run_dir={root}"])


def weights(root):
    return load_checkpoint(newest(Path(root) / "checkpoints"))["state_dict"]


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_results(student, finished):
    root, results = student
    taught = evaluate.main([f"checkpoint={finished}", "episodes=4", "envs=2", f"out={root.parent / 'teacher'}"])
    assert results["teacher_return"] == pytest.approx(taught["return_mean"])
    assert results["teacher_ci95"] == pytest.approx(list(taught["return_ci95"]))
    low, high = results["student_ci95"]
    assert low <= results["student_return"] <= high and results["run_dir"] == str(root)
    assert 0 < results["student_ms"] < results["teacher_ms"] and results["student_params"] > 0
    assert results["env_steps"] == results["decisions"] == 80
    assert results["labels"] == 80 + 2 * 21  # an episode of 21 rows from the replay in each round
    assert json.loads((root / "results.json").read_text())["student_return"] == results["student_return"]
    metrics = read_metrics(root / "metrics.csv")
    assert len(metrics["held_out/student"]) == 2 and np.isfinite(metrics["held_out/student"]).all()
    assert metrics["eval/return_mean"][-1] == pytest.approx(results["student_return"], rel=1e-6)
    assert results["teacher"] == "planner=cem"
    assert read_runs(root.parent).runs[0].return_mean == pytest.approx(results["student_return"])
    lines = (root / "distillation.csv").read_text().splitlines()
    assert [line.split(",")[:2] for line in lines[1:]] == [["toy_point", "teacher"], ["toy_point", "student"]]
    page = (root / "report.html").read_text()
    for policy, ms in (("teacher", results["teacher_ms"]), ("student", results["student_ms"])):
        low, high = results[f"{policy}_ci95"]
        mean = results[f"{policy}_return"]
        row = re.search(rf"<tr><th>toy_point: {policy}</th>(.*?)</tr>", page)[1]
        assert f"<td>{mean:.3g}</td><td>{low:.3g} to {high:.3g}</td>" in row and f"<td>{ms:.2f}</td>" in row


def test_other_commands_take_the_student(student, tmp_path):
    root, results = student
    copied = tmp_path / "run"
    shutil.copytree(root, copied)
    evaluated = evaluate.main([str(copied), "episodes=4", "envs=2"])
    assert evaluated["return_mean"] == pytest.approx(results["student_return"], rel=1e-5)
    assert evaluated["files"] and all(Path(path).stat().st_size for path in evaluated["files"])
    recorded = collect_data.main(
        [
            "policy=checkpoint",
            f"model={copied}",
            "episodes=1",
            f"out=npz:{tmp_path / 'data'}",
        ]
    )
    assert recorded["env_steps"] == 20
    agent = load_agent(copied)
    action = agent.act(np.zeros((16, 16, 3), np.uint8))
    assert action.shape == (2,) and (np.abs(action) <= 1).all()
    assert Path(report.main([str(copied)])["report"]).stat().st_size
    bundled = export.main([str(copied), f"out={tmp_path / 'bundle'}", "format=torch", "frames=20"])
    assert bundled["what"] == "policy" and bundled["parity_max"] <= 1e-4
    assert json.loads((tmp_path / "bundle" / "parity.json").read_text())["frames"] == "recorded"  # by its teacher
    short = ["task.env.episode_steps=20", "hz=10", f"out={tmp_path / 'driven'}"]
    driven = drive.main([str(tmp_path / "bundle"), "env=toy_point", *short])
    assert driven["fallbacks"] == driven["sources"]["safe"] + driven["sources"]["stopped"]  # its policy is none
    assert driven["faults"] == 0 and driven["sources"]["policy"] > 10  # a busy machine misses some


def test_a_run_that_was_stopped_continues_as_if_it_had_not_been(student, finished, tmp_path, monkeypatch):
    root, results = student
    stopped, learn, rounds = tmp_path / "run", dagger.Dagger._learn, []

    def stop_in_the_second(self):
        rounds.append(self.progress.round)
        if len(rounds) == 2:
            self._interrupt.received = 2
            self._turn()
        learn(self)

    with monkeypatch.context() as patch:
        patch.setattr(dagger.Dagger, "_learn", stop_in_the_second)
        partial = distill.main([str(finished), *SMALL, f"run_dir={stopped}"])
    assert partial == {"status": "interrupted", "run_dir": str(stopped), "exit_code": 130}
    continued = distill.main([f"resume={stopped}"])
    assert continued["student_return"] == results["student_return"] and continued["labels"] == results["labels"]
    assert same(weights(stopped), weights(root))
    whole, again = (read_metrics(folder / "metrics.csv") for folder in (root, stopped))
    for name in ("env_steps", "updates", "held_out/student", "loss/student"):
        np.testing.assert_array_equal(whole[name], again[name])


def test_a_run_that_was_stopped_before_its_first_checkpoint_begins_again(
    student, finished, tmp_path, monkeypatch, capfd
):
    root, stopped, shown = student[0], tmp_path / "run", []

    def stop(self):
        self._interrupt.received = 2
        self._turn()

    with monkeypatch.context() as patch:
        patch.setattr(dagger.Dagger, "_learn", stop)
        assert distill.main([str(finished), *SMALL, f"run_dir={stopped}"])["status"] == "interrupted"
    assert not any(stopped.glob("checkpoints/*")) and any((stopped / "labels").rglob("*.*"))
    capfd.readouterr()
    update = RunProgress.update
    with monkeypatch.context() as patch:
        seen = lambda self, **known: (shown.append(known.get("phase")), update(self, **known))  # noqa: E731
        patch.setattr(RunProgress, "update", seen)
        distill.main([f"resume={stopped}"])
    for text in (
        "round 1 of 2: 2 decisions of the teacher's evaluation",
        "round 1 of 2: 1 labelled decisions of the replay",
        "round 2 of 2: 40 played and labelled decisions",
        "round 2 of 2: 8 updates",
        "round 2 of 2: 2 decisions of the student's evaluation",
    ):
        assert text in shown, text
    assert same(weights(stopped), weights(root))
    said = capfd.readouterr().err
    assert "stopped before its first checkpoint: begins again" in said
    assert "round 1 of 2 | " in said and "round 2 of 2 | " in said
    distill.main([f"resume={stopped}"])
    assert "2 of 2 rounds were finished" in capfd.readouterr().err


def test_two_teachers_give_one_student_of_both_tasks(finished, tmp_path):
    other, root = tmp_path / "other", tmp_path / "both"
    fit.main(
        [
            "experiment=smoke",
            "task.env_steps=40",
            "task.env.episode_steps=20",
            "evaluation.final_episodes=1",
            "task.env.size=32",
            "agent.encoder.channels=[8,16]",
            "data.update_ratio=0.02",
            "data.seed_episodes=1",
            f"run_dir={other}",
            "trainer.accelerator=cpu",
        ]
    )
    results = distill.main(
        [
            f"checkpoint=[{finished},{other}]",
            *SMALL,
            "rounds=1",
            "env_steps=20",
            "student.encoder=own",
            f"run_dir={root}",
        ]
    )
    assert results["task"] == ["toy_point", "toy_point-2"]
    for name in ("teacher_return", "teacher_ci95", "student_return", "student_ci95", "teacher_ms", "student_ms"):
        assert len(results[name]) == 2, name
    for number, folder in enumerate((root, root / "tasks" / "toy_point-2")):
        evaluated = evaluate.main([str(folder), "episodes=4", "envs=2"])
        assert evaluated["return_mean"] == pytest.approx(results["student_return"][number], rel=1e-5)
        assert load_agent(folder).spec.pixels == ((3, 16, 16), (3, 32, 32))[number]
        page = (folder / "report.html").read_text()  # the first has the rows of all
        assert [name in page for name in ("toy_point: student", "toy_point-2: teacher")] == [not number, True]


def test_a_run_that_acts_with_its_actor_teaches_with_its_planner(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["agent"] |= {"act_with": "actor", "replan": 1}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    (teacher,) = load_teachers([str(run)], device="cpu")
    assert teacher.acts_with == "planner=cem" and teacher.agent.act_with == "planner"


def test_refused(refused, finished, student, tmp_path):
    root, damaged = student[0], tmp_path / "damaged"
    shutil.copytree(root, damaged)
    for file in (damaged / "checkpoints").glob("*/*"):
        file.write_bytes(b"")
    cases = {
        (): ("checkpoint", "got neither"),
        ("/no/such/run",): ("checkpoint", "/no/such/run"),
        (str(finished), "student.size=huge"): ("student.size", "small, medium, large", "'huge'"),
        (str(finished), "student.sise=small"): ("did you mean student.size",),
        (str(finished), "student.encoder=mine"): ("student.encoder", "filter, teacher, own", "'mine'"),
        (str(finished), "rounds=0"): ("rounds", "at least 1", "'0'"),
        (str(finished), "teacher_share=1.5"): ("teacher_share", "at most 1", "'1.5'"),
        (str(finished), "learning_rate=0"): ("learning_rate", "above 0", "'0'"),
        (str(finished), "length=2", "student.stack=3"): ("length", "student.stack=3", "2"),
        (str(finished), "device=abacus"): ("device", "'abacus'"),
        (str(finished), f"run_dir={root}"): ("run_dir", f"resume={root}"),
        (str(root),): ("checkpoint", "expected agents that plan", str(root)),
        (f"resume={finished}",): ("resume", "expected a run of trainers.distill", str(finished)),
        (f"resume={damaged}",): ("resume", "intact checkpoint", "damaged ones only"),
        (f"resume={root}", "rounds=3"): ("resume", "no other key", "rounds=3"),
    }
    for arguments, parts in cases.items():
        line = refused(distill.main, *arguments)
        assert "\n" not in line and all(part in line for part in parts), (arguments, line)
    line = refused(export.main, str(root), f"out={tmp_path / 'bundle'}", "format=none", "what=planner")
    assert "what: expected policy, since a student has no planner" in line
    line = refused(fit.main, f"resume={root}")
    assert f"trainers.distill resume={root} continues it" in line, line
