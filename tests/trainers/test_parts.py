"""A new part is three files and no edit: one of each kind comes from outside the tree, and is trained with."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from datamodules import parts
from datamodules.parts import PartsMissing
from trainers import convert_data, evaluate, fit, inspect_data
from trainers.build.check_parts import fit_options
from trainers.command.configuration import groups, load_config
from trainers.command.registry import BadOption, DoesNotFit, UnknownComponent, make
from trainers.run_folder.read_metrics import read_metrics
from worldmodel.parts import module_names

OUTSIDE = Path(__file__).parent / "outside"
PARTS = f"parts={OUTSIDE}"
TINY = (
    *("experiment=smoke", "trainer.accelerator=cpu", "task.env_steps=40", "data.seed_episodes=1", "data.length=6"),
    *("evaluation.every=100000", "evaluation.final_episodes=1", "data.update_ratio=0.1"),
)


@pytest.fixture(autouse=True)
def apart(monkeypatch):
    """What a test activates is gone after it."""
    monkeypatch.setenv(parts.VARIABLE, "")
    monkeypatch.setenv(fit.RUN_DIR, "")


def test_a_run_of_parts_from_outside_is_continued_and_evaluated(runs, tmp_path):
    folder = tmp_path / "run"
    chosen = ("planner=halving", "dynamics=leashed", "objective=variance", "policy=patient", "task=corridor")
    run = runs.fit(*TINY, PARTS, *chosen, "data.sampler.name=newest", "data.sampler.share=0.7", f"run_dir={folder}")
    assert run.wait() == 0, run.err.read_text()
    assert run.results()["task"] == "corridor" and run.results()["updates"] > 0
    columns = read_metrics(folder / "metrics.csv")
    assert {"loss/leash", "loss/variance", "loss/kl", "loss/value"} <= columns.keys() and "loss/image" not in columns
    saved = yaml.safe_load((folder / "config.yaml").read_text())
    assert saved["parts"] == [str(OUTSIDE)] and saved["planner"]["name"] == "halving"
    resumed = runs.fit(f"resume={folder}", "task.env_steps=60")
    assert resumed.wait() == 0, resumed.err.read_text()
    evaluated = evaluate.main([f"checkpoint={folder}", "episodes=1", "planner.horizon=2"])
    assert (
        evaluated["planner"]["name"] == "halving"
        and evaluated["planner"]["horizon"] == 2
        and 0 < evaluated["return_mean"] < 50
    )


@pytest.mark.parametrize(
    "overrides",
    [
        (
            "planner=ensemble",
            "planner.search=halving",
            "dynamics=ensemble",
            "dynamics.members=2",
            "planner.particles=2",
        ),
        ("planner=confidence", "planner.search=halving", "agent.heads.name=laplace"),
    ],
)
def test_a_planner_from_outside_searches_for_others(runs, tmp_path, overrides):
    run = runs.fit(*TINY, PARTS, *overrides, "planner.candidates=8", f"run_dir={tmp_path / 'run'}")
    assert run.wait() == 0, run.err.read_text()


def test_folders_named_later_take_the_place_of_earlier_ones(tmp_path):
    for name in ("one", "two"):
        folder = tmp_path / name / "worldmodel" / "planners"
        folder.mkdir(parents=True)
        (folder / "same_name.py").write_text(f"def make(): return {name!r}\n")
        (folder / f"only_{name}.py").write_text("def make(): return 0\n")

    def found(*folders):
        parts.activate(folders)
        same = make("worldmodel.planners", {"name": "same_name"})
        return same, {n for n in module_names("worldmodel.planners") if n.startswith("only")}

    assert found(tmp_path / "one") == ("one", {"only_one"})
    assert found(tmp_path / "two") == ("two", {"only_two"})
    assert found(tmp_path / "two", tmp_path / "one") == ("two", {"only_one", "only_two"})
    assert found() == ("two", {"only_one", "only_two"}), "a configuration without parts leaves what is in use"


def test_a_format_from_outside_is_learned_from(runs, tmp_path):
    (tmp_path / "x.dots").write_text("1 2 3 4 5 6")
    options = (f"data.uri=dots:{tmp_path}/x.dots?rows=15", "data.updates=2", "data.length=6", "data.batch=2")
    arguments = ("experiment=small", "data=offline", PARTS, *options, f"data.cache={tmp_path / 'cache'}")
    run = runs.fit(*arguments, "trainer.accelerator=cpu", f"run_dir={tmp_path / 'run'}")
    assert run.wait() == 0, run.err.read_text()
    assert run.results()["data"]["rows"] > 0 and run.results()["task"] == "dots"


def test_a_format_from_outside_is_inspected_and_converted(tmp_path):
    (tmp_path / "x.dots").write_text("1 2 3")
    uri = f"dots:{tmp_path}/x.dots?rows=15"
    found = inspect_data.main([uri, PARTS, f"out={tmp_path / 'found'}"])
    assert (found["task"], found["episodes"], found["rows"]) == ("dots", 3, 45)
    converted = convert_data.main([uri, PARTS, f"out=npz:{tmp_path / 'npz'}"])
    assert (converted["episodes"], converted["rows"]) == (3, 45)


def test_a_run_remembers_where_its_format_was(tmp_path):
    """In processes of their own: what this one has found stays found."""
    (tmp_path / "x.dots").write_text("1 2 3")
    uri, run = f"dots:{tmp_path}/x.dots?rows=15", tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(yaml.safe_dump(load_config(["data=offline", PARTS, f"data.uri={uri}"])))

    def convert(source: str, name: str) -> subprocess.CompletedProcess[str]:
        words = ("-m", "trainers.convert_data", source, f"out=npz:{tmp_path / name}")
        none = {**os.environ, parts.VARIABLE: ""}
        return subprocess.run([sys.executable, *words], check=False, capture_output=True, text=True, env=none)

    known, unknown = convert(str(run), "known"), convert(uri, "unknown")
    assert known.returncode == 0 and json.loads(known.stdout)["rows"] == 45, known.stderr
    assert unknown.returncode == 2 and "expected a scheme of segments, npz" in unknown.stderr


def test_several_folders_stand_beside_each_other(tmp_path):
    (tmp_path / "configs/planner").mkdir(parents=True)
    (tmp_path / "configs/planner/mine.yaml").write_text("name: cem\nhorizon: 3\n")
    config = load_config([f"parts=[{OUTSIDE},{tmp_path}]", "planner=mine"])
    assert config["planner"] == {"name": "cem", "horizon": 3} and config["parts"] == [str(OUTSIDE), str(tmp_path)]
    assert {"mine", "halving", "cem"} <= set(groups()["planner"])
    assert "halving" not in (load_config([]) and groups()["planner"])


@pytest.mark.parametrize("folder", ["no/such", "."])
def test_a_folder_without_parts_is_refused(tmp_path, monkeypatch, folder):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        PartsMissing, match="parts: expected a folder with worldmodel, datamodules, configs, trainers in it, got"
    ):
        load_config([f"parts={folder}"])


def fitted(*arguments):
    return fit_options(load_config(arguments), arguments)


@pytest.mark.parametrize("experiment", ["toy", "small", "smoke"])
@pytest.mark.parametrize("planner", ["cem", "gradient", "gumbel", "icem", "ilqr", "mppi", "random", "seeded", "uct"])
def test_an_experiments_sizes_fit_any_planner(experiment, planner):
    options = fitted(f"experiment={experiment}", f"planner={planner}")["planner"]
    assert options["horizon"] == 5 and ("elites" in options) == (planner in ("cem", "icem", "mppi", "seeded"))


def test_an_experiments_sizes_fit_a_planner_from_outside():
    options = fitted(PARTS, "experiment=toy", "planner=halving")["planner"]
    assert options == {"name": "halving", "horizon": 5, "candidates": 48, "iterations": 2}


def test_what_dyna_is_made_of_comes_from_outside_too():
    assert fitted(PARTS, "policy=dyna", "policy.target.name=myopic")["policy"]["target"] == {"name": "myopic"}
    with pytest.raises(BadOption, match=r"policy\.target\.name: expected one of mve, myopic, steve, td, got 'sighted'"):
        fitted(PARTS, "policy=dyna", "policy.target.name=sighted")


def test_what_was_typed_is_refused_instead():
    with pytest.raises(
        UnknownComponent, match=r"planner\.elites: no option of planner=gradient; it takes candidates, "
    ):
        fitted("experiment=toy", "planner=gradient", "planner.elites=3")
    with pytest.raises(UnknownComponent, match=r"dynamics\.hiden: no option .*, did you mean hidden"):
        fitted("experiment=toy", "+dynamics.hiden=3")


def test_an_option_may_be_named_as_what_another_kind_of_part_is_built_from(tmp_path):
    code = ["from worldmodel.objectives import Objective", "class Inverse(Objective):"]
    code += ["    def __init__(self, *, encoder, dynamics, action_dim=2):", "        super().__init__(inverse=1.0)"]
    files = {"worldmodel/objectives/inverse.py": [*code, "make = Inverse"]}
    files["configs/objective/inverse.yaml"] = ["name: inverse", "action_dim: 2"]
    for name, lines in files.items():
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("\n".join(lines))
    config = fitted(f"parts={tmp_path}", "objective=inverse", "objective.action_dim=5")
    assert config["objective"] == {"name": "inverse", "action_dim": 5}


def test_what_a_part_cannot_be_built_for_is_told_by_its_class(tmp_path):
    parts = tmp_path / "datamodules" / "samplers"
    parts.mkdir(parents=True)
    for name, error in (("fact", "BadFact"), ("value", "BadValue"), ("bug", "ValueError")):
        lines = ["from worldmodel.errors import *", "def make(*, seed, width=3):", f"    raise {error}('width: wrong')"]
        (parts / f"{name}.py").write_text("\n".join(lines))
    load_config([f"parts={tmp_path}"])
    for name, error, message in (
        ("fact", DoesNotFit, r"^data\.sampler=fact: width: wrong$"),
        ("value", BadOption, r"^data\.sampler\.width: wrong$"),
        ("bug", ValueError, r"^width: wrong$"),
    ):
        with pytest.raises(error, match=message) as caught:
            make("datamodules.samplers", {"name": name}, key="data.sampler", seed=0)
        assert type(caught.value) is error


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("dynamics.reach=0", r"dynamics\.reach: expected a number above 0, got 0"),
        ("data.sampler.share=2", r"data\.sampler\.share: expected a number above 0 and at most 1, got 2"),
        ("+planner.horizon=0", r"planner\.horizon: expected .*at least 1, got 0"),
    ],
)
def test_a_part_refuses_its_own_options_before_anything_starts(override, message):
    with pytest.raises(BadOption, match=message):
        fitted(
            PARTS,
            "dynamics=leashed",
            "planner=halving",
            "+data.sampler.share=0.5",
            "data.sampler.name=newest",
            override,
        )


def test_the_settings_of_a_run_are_json(tmp_path):
    assert json.dumps(load_config([PARTS]))
