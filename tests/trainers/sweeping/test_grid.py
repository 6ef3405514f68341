"""What comma lists mean, and that nothing starts where a combination cannot."""

import pytest
import yaml

from trainers.command.configuration import BadConfig, choices
from trainers.command.same_run import require_same_run
from trainers.sweeping.grid import plan_runs

SMALL = ("experiment=smoke", "trainer.accelerator=cpu")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("seed=0,1", ["seed=0", "seed=1"]),
        ("seed=range(2)", ["seed=0", "seed=1"]),
        ("seed=3", ["seed=3"]),
        ("task=gym:CartPole-v1,toy_point", ["task=gym:CartPole-v1", "task=toy_point"]),
        ("x=[1,2]", ["x=[1,2]"]),
        ("x=[1,2],[3]", ["x=[1,2]", "x=[3]"]),
        ("x='a,b',c", ["x='a,b'", "x=c"]),
        ("data.uri=npz:a?b=c,d", ["data.uri=npz:a?b=c,d"]),  # an address, whatever is in it
    ],
)
def test_commas_are_choices(override, expected):
    assert choices(override) == expected


def test_what_is_no_list_of_values_is_refused():
    with pytest.raises(BadConfig, match=r"optimizer.eps: expected a value or several"):
        choices("optimizer.eps=interval(0,1)")


def test_every_combination_is_one_run_and_first_seeds_come_first():
    runs = plan_runs([*SMALL, "task=toy_point,cartpole_balance", "seed=0,1", "planner=cem,icem"], group="x")
    assert len({run.name for run in runs}) == len(runs) == 8
    assert [run.seed for run in runs] == [0] * 4 + [1] * 4
    assert [run.task for run in runs[:4]] == ["toy_point", "cartpole_balance"] * 2
    assert [run.variant for run in runs[:4]] == ["planner=cem"] * 2 + ["planner=icem"] * 2
    assert runs[0].name == "toy_point-planner=cem-seed=0"
    assert runs[3].config["planner"]["name"] == "icem" and runs[3].config["task"]["name"] == "cartpole_balance"
    assert runs[0].overrides[0] == "experiment=smoke"  # as typed, since an experiment's choices come before others


def test_what_is_the_same_for_all_is_in_no_name():
    (run,) = plan_runs([*SMALL, "data.batch=8"], group="x")
    assert (run.name, run.variant) == ("toy_point-seed=0", "") and run.config["data"]["batch"] == 8


def test_names_are_file_names_and_not_too_long():
    first, second = plan_runs([*SMALL, "data.sampler={name: recent},{name: uniform}"], group="x")
    assert first.name != second.name
    for run in (first, second):
        assert not set("/: {}") & set(run.name), run.name
    long = ",".join(f"{'project_' * 30}{name}" for name in "ab")
    names = {run.name for run in plan_runs([*SMALL, "logger=wandb", f"logger.project={long}"], group="x")}
    assert len(names) == 2 and all(len(name) < 140 for name in names)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["task=toy_point,nowhere_run"], "nowhere_run.*in the combination .*task=nowhere_run"),
        (["planner=cem,icemm"], "icem.*planner=icemm"),
        (["data.batch=4,0"], "data.batch: expected a whole number of at least 1, got 0; in the combination"),
        (["planner.horizon=5", "planner.elites=2,9999"], "elites"),
        (["run_dir=x"], "run_dir: expected no such key"),
        (["resume=x"], "resume: expected no such key"),
        (["seed=0,0"], "every run once"),
    ],
)
def test_a_combination_that_cannot_start_is_named(words, message):
    with pytest.raises(BadConfig, match=message):
        plan_runs([*SMALL, *words], group="x")


def test_runs_of_a_sweep_are_a_group_in_wandb():
    assert plan_runs([*SMALL, "logger=wandb"], group="x")[0].config["logger"]["group"] == "x"
    assert plan_runs([*SMALL, "logger=wandb", "logger.group=mine"], group="x")[0].config["logger"]["group"] == "mine"


@pytest.mark.parametrize("group", ["20261005", "a,b", "a(b)", "x=1", "true"])
def test_a_sweep_s_folder_may_have_any_name(group):
    pytest.importorskip("wandb")
    (run,) = plan_runs([*SMALL, "logger=wandb"], group=group)
    assert run.config["logger"]["group"] == group


def test_copies_of_data_may_lie_elsewhere(tmp_path, monkeypatch):
    words = [*SMALL, "data=offline", f"data.uri=npz:{tmp_path}"]
    (run,) = plan_runs(words, group="x")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(run.config))
    monkeypatch.chdir(tmp_path)
    (other,) = plan_runs([*words, "data.batch=6"], group="x")
    assert other.config["data"]["cache"] != run.config["data"]["cache"]
    with pytest.raises(BadConfig, match=r"data\.batch: expected 4"):
        require_same_run(tmp_path, other.config, words=[], hint="")
