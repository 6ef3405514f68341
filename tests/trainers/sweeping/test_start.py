"""Which runs a sweep goes on with, and which it refuses."""

import pytest
import yaml

from datamodules.parts import VARIABLE
from trainers.command.configuration import BadConfig
from trainers.command.registry import UnknownComponent
from trainers.command.same_run import require_same_run
from trainers.sweeping.grid import plan_runs
from trainers.sweeping.record import SweepRecord
from trainers.sweeping.start import _again, _engine, _options

WORDS = ("experiment=smoke", "task=cartpole_balance", "trainer.accelerator=cpu")


@pytest.fixture
def begun(tmp_path):
    """The configuration of a run that has begun, as a run writes it, after a change that a test makes."""

    def write(change=lambda config: None, words=WORDS):
        (run,) = plan_runs(words, group="x")
        config = yaml.safe_load(yaml.safe_dump(dict(run.config))) | {"run_dir": str(tmp_path)}
        change(config)
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
        require_same_run(tmp_path, run.config, words=run.overrides, hint="name another out=")

    return write


def test_what_a_run_chose_for_itself_is_no_other_configuration(begun):
    begun()
    begun(lambda config: config["task"]["env"].update(look="fast"))  # render=auto


def test_a_key_of_later_versions_is_no_other_configuration_unless_it_was_typed(begun):
    forget = lambda config: config["data"].pop("prefetch")  # noqa: E731
    begun(forget)
    with pytest.raises(BadConfig, match=r"data.prefetch: expected None as in the run in .*, got False"):
        begun(forget, words=(*WORDS, "data.prefetch=false"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config: config["data"].update(batch=5), "data.batch: expected 5"),
        (lambda config: config["planner"].update(name="icem"), "planner: expected icem"),
        (lambda config: config["task"].update(env_steps=1), "task.env_steps: expected 1"),
        (lambda config: config.update(seed=9), "seed: expected 9"),
    ],
)
def test_another_configuration_under_a_name_is_refused(begun, change, message):
    with pytest.raises(BadConfig, match=message):
        begun(change)


def test_a_sweep_that_is_continued_has_the_same_runs(tmp_path):
    record, runs = SweepRecord(tmp_path), plan_runs([*WORDS, "seed=0,1", "planner=cem,icem"], group="x")
    for run in runs:
        record.add(run)
    record.write()
    assert _again(SweepRecord(tmp_path)) == runs
    with pytest.raises(BadConfig, match="there is no sweep in"):
        _again(SweepRecord(tmp_path / "nowhere"))


def test_a_sweep_keeps_how_its_runs_are_started(tmp_path):
    record = SweepRecord(tmp_path)
    assert _options(record.options, jobs=None, engine={}) == {"jobs": None, "engine": {"name": "local"}}
    ray = {"name": "ray", "cpus": "2"}
    record.options = _options(record.options, jobs="3", engine=ray)
    record.write()
    kept = SweepRecord(tmp_path).options
    assert _options(kept, jobs=None, engine={}) == {"jobs": 3, "engine": ray}
    assert _options(kept, jobs="auto", engine={"gpus": "1"}) == {"jobs": None, "engine": {**ray, "gpus": "1"}}
    assert _options(kept, jobs=None, engine={"name": "local"})["engine"] == {"name": "local"}
    with pytest.raises(BadConfig, match="jobs: expected a whole number"):
        _options(kept, jobs="many", engine={})


ELSEWHERE = """
class Elsewhere:
    def __init__(self, **facts):
        self.facts, self.slots = facts, 3


make = Elsewhere
"""


def test_an_engine_can_be_one_file_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, "")  # as it is again after the test
    folder = tmp_path / "trainers" / "sweeping" / "engines"
    folder.mkdir(parents=True)
    (folder / "elsewhere.py").write_text(ELSEWHERE)
    runs = plan_runs([*WORDS, "seed=0,1", f"parts={tmp_path}"], group="x")
    engine = _engine({"name": "elsewhere"}, runs, jobs=None)
    assert engine.facts == {"runs": 2, "jobs": None, "devices": 1, "accelerator": "cpu"}
    with pytest.raises(UnknownComponent, match="did you mean elsewhere"):
        _engine({"name": "elsewere"}, runs, jobs=None)
