"""The loop of a sweep with an engine that a test controls."""

import json
import os
import signal
from types import SimpleNamespace

import pytest

from trainers.process.interrupt import Interrupt
from trainers.run_folder.paths import RunPaths, in_use
from trainers.sweeping import execute
from trainers.sweeping.engine import JobLost
from trainers.sweeping.execute import Execution
from trainers.sweeping.grid import PlannedRun
from trainers.sweeping.log_file import log_path
from trainers.sweeping.record import SweepRecord, locked, read_sweep


class Job:
    def __init__(self, folder, arguments, log, outcome):
        self.folder, self.arguments, self.log, self.outcome = folder, arguments, log, outcome
        self.polls, self.stopped, self.killed = 0, False, False

    def poll(self):
        self.polls += 1
        code = self.outcome(self)
        if code == 0 and not self.stopped:
            self.folder.mkdir(exist_ok=True)
            (self.folder / "results.json").write_text(json.dumps({"status": "finished", "return_mean": 5.0}))
        return code

    def stop(self):
        self.stopped = True

    def kill(self):
        self.killed = True


class Engine:
    """Starts jobs of this test's own; outcomes: what `poll` gives, by name."""

    slots = 2

    def __init__(self, root, outcomes=None):
        self.root, self.outcomes, self.jobs, self.most = root, outcomes or {}, {}, 0

    def start(self, job):
        outcome = self.outcomes.get(job.name, lambda job: 0 if job.polls > 1 else None)
        assert job.folder == self.root / job.name
        one = Job(job.folder, job.arguments, job.log, outcome)
        self.jobs[job.name] = one
        self.most = max(self.most, sum(not (other.folder / "results.json").exists() for other in self.jobs.values()))
        return one


class Display:
    def __init__(self):
        self.lines = []

    def update(self):
        pass

    def say(self, text):
        self.lines.append(text)


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(execute, "POLL_SECONDS", 0.0)


@pytest.fixture
def root(tmp_path):
    with locked(tmp_path / "x"):
        yield tmp_path / "x"


def planned(*names):
    facts = {"task": "t", "seed": 0, "variant": "", "config": {}}
    return [PlannedRun(name=name, overrides=(f"task={name}",), **facts) for name in names]


def play(root, runs, engine, interrupt=None):
    record, display = SweepRecord(root), Display()
    for run in runs:
        record.add(run)
    Execution(record, engine, display, interrupt or SimpleNamespace(is_set=lambda: False)).run(runs)
    assert {name: run.state for name, run in read_sweep(root).items()} == {
        name: run.state for name, run in record.runs.items()
    }
    return record, display


def test_all_run_with_as_many_at_once_as_there_are_slots(root):
    engine = Engine(root)
    record, display = play(root, planned(*"abcde"), engine)
    assert list(engine.jobs) == list("abcde") and engine.most == 2
    assert {(run.state, run.return_mean) for run in record.runs.values()} == {("finished", 5.0)}
    assert engine.jobs["a"].arguments == ("task=a", f"run_dir={root / 'a'}")
    assert sorted(display.lines) == [f"finished {name}: return 5" for name in "abcde"]


def test_what_is_finished_is_left_out_and_what_has_begun_is_resumed(root):
    for name, status in (("a", "finished"), ("b", "interrupted")):
        (root / name).mkdir()
        (root / name / "config.yaml").touch()
        (root / name / "results.json").write_text(json.dumps({"status": status, "return_mean": 1.0}))
    engine = Engine(root)
    record, _ = play(root, planned("a", "b", "c"), engine)
    assert list(engine.jobs) == ["b", "c"] and record.runs["a"].return_mean == 1.0
    assert engine.jobs["b"].arguments == (f"resume={root / 'b'}",)


def test_what_is_lost_is_started_again_before_others_and_at_last_given_up(root):
    began = []

    def lose(job):
        job.folder.mkdir(exist_ok=True)
        (job.folder / "config.yaml").touch()
        began.append((job.folder.name, job.arguments[-1]))
        if job.folder.name == "b" or len(began) < 2:
            raise JobLost("its node died")
        (job.folder / "results.json").write_text(json.dumps({"status": "finished"}))
        return 0

    engine = Engine(root, {"a": lose, "b": lose})
    engine.slots = 1
    record, display = play(root, planned("a", "b", "c"), engine)
    again = [("a", f"run_dir={root / 'a'}"), ("a", f"resume={root / 'a'}")]
    assert began[:2] == again and [name for name, _ in began[2:]] == ["b"] * (1 + execute.MOST_LOST)
    assert [run.state for run in record.runs.values()] == ["finished", "failed", "finished"]
    assert record.runs["b"].error == "lost 4 times: its node died" and "lost a: its node died" in display.lines


def test_what_is_lost_while_all_save_is_interrupted(root):
    def lose(job):
        if job.stopped:
            raise JobLost("its node died")

    engine = Engine(root, {"a": lose})
    record, _ = play(root, planned("a"), engine, SimpleNamespace(is_set=lambda: bool(engine.jobs)))
    assert record.runs["a"].state == "interrupted"


def test_a_failure_is_recorded_and_the_others_go_on(root):
    def fail(job):
        job.log.write_text('loading\nValueError: data: bad\n{"status": "failed", "error": "ValueError: data: bad"}\n')
        return 2

    def crash(job):
        job.log.write_text("loading\nSegmentation fault\n")
        return -signal.SIGSEGV

    record, display = play(root, planned("a", "b", "c"), Engine(root, {"a": fail, "b": crash}))
    assert [run.state for run in record.runs.values()] == ["failed", "failed", "finished"]
    a, b = (read_sweep(root)[name] for name in "ab")
    assert (a.exit_code, a.error, a.last_lines) == (2, "ValueError: data: bad", ("loading", "ValueError: data: bad"))
    assert (b.exit_code, b.error) == (-11, "ended by signal 11: Segmentation fault")
    assert "failed a: ValueError: data: bad" in display.lines
    again, _ = play(root, planned("a"), Engine(root))
    assert (again.runs["a"].state, again.runs["a"].error) == ("finished", None)


def test_a_run_that_ends_before_its_last_step_is_no_failure(root):
    record, _ = play(root, planned("a"), Engine(root, {"a": lambda job: setattr(job, "stopped", True) or 0}))
    assert record.runs["a"].state == "stopped"


def test_a_signal_lets_every_run_save_and_starts_no_other(root):
    interrupt = SimpleNamespace(is_set=lambda: bool(engine.jobs))
    engine = Engine(root)
    engine.outcomes = dict.fromkeys("abc", lambda job: 143 if job.stopped and job.polls > 4 else None)
    record, _ = play(root, planned("a", "b", "c"), engine, interrupt)
    assert [run.state for run in record.runs.values()] == ["interrupted", "interrupted", "waiting"]
    assert not any(job.killed for job in engine.jobs.values())


def test_a_second_signal_ends_all_at_once(root, monkeypatch):
    engine = Engine(root, {"a": lambda job: None})
    monkeypatch.setattr(execute.time, "sleep", lambda s: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        play(root, planned("a"), engine)
    assert engine.jobs["a"].killed and read_sweep(root)["a"].state == "interrupted"


def test_a_real_interrupt_is_what_the_loop_asks(root):
    engine = Engine(root, {"a": lambda job: 130 if job.stopped else (signal.raise_signal(signal.SIGINT) or None)})
    with Interrupt() as interrupt:
        record, _ = play(root, planned("a"), engine, interrupt)
    assert record.runs["a"].state == "interrupted" and log_path(root, "a").parent.is_dir()


def test_a_run_that_still_saves_is_waited_for(root):
    (root / "a").mkdir()
    handle = RunPaths(root / "a").lock()
    engine = Engine(root)
    engine.outcomes = {"b": lambda job: None if job.polls < 3 else os.close(handle) or 0}
    play(root, planned("a", "b"), engine)
    assert list(engine.jobs) == ["b", "a"] and not in_use(root / "a") and not in_use(root / "nowhere")
