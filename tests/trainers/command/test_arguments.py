"""One form of arguments for all commands: help, a run wherever one is meant, and one line for a wrong word."""

import importlib
import os
import sys

import pytest

from trainers import collect_data, convert_data, evaluate, fit, inspect_data, report, sweep
from trainers.command.arguments import BadArguments, Command, Key, configuration_words
from trainers.command.configuration import load_config
from trainers.command.entry import run
from trainers.run_folder.find import data_uri, find_checkpoint, find_run

COMMANDS = (
    "fit",
    "evaluate",
    "distill",
    "report",
    "doctor",
    "benchmark",
    "collect_data",
    "inspect_data",
    "convert_data",
)
EXAMPLE = Command(
    name="example",
    summary="Does something.",
    keys={"run": Key("a run", required=True, aliases=("checkpoint",)), "episodes": Key("how many", "10")},
    first="run",
    overrides="of the configuration",
    switches={"--fast": "at once"},
)


def test_words_keys_switches_and_overrides_are_told_apart():
    parsed = EXAMPLE.parse(["--fast", "planner.horizon=3", "runs/x", "episodes=2", "++task.env.a=b=c"])
    assert parsed.own == {"run": "runs/x", "episodes": "2"}
    assert parsed.switches == {"--fast"} and parsed.overrides == ["planner.horizon=3", "++task.env.a=b=c"]
    assert EXAMPLE.parse(["run=x", "run=y"]).own["run"] == "y"
    for way in ("runs/x", "run=runs/x", "checkpoint=runs/x"):
        assert EXAMPLE.parse([way]).own == {"run": "runs/x", "episodes": "10"}


@pytest.mark.parametrize("word", ["episods=3", "epsiodes=3", "episode=3", "chekpoint=x"])
def test_a_misspelt_key_is_no_override(word):
    with pytest.raises(BadArguments, match=r"did you mean (episodes|checkpoint)=\?"):
        EXAMPLE.parse(["x", word])


def test_a_word_of_the_configuration_is_never_taken_for_a_misspelt_key():
    likely = Command(name="x", summary="", keys={"seeds": Key(""), "tasks": Key("")}, overrides="of it")
    assert likely.parse(["seed=3", "task=toy_point", "+task.x=1"]).overrides == [
        "seed=3",
        "task=toy_point",
        "+task.x=1",
    ]
    assert {"seed", "task", "data", "evaluation", "run_dir"} <= configuration_words()


def test_the_folder_of_a_run_has_one_name_more_where_another_command_says_it(tmp_path, monkeypatch):
    config, paths = fit._configure(["experiment=smoke", f"out={tmp_path / 'run'}"])
    assert paths.root == tmp_path / "run" and config["run_dir"] == str(paths.root)
    for command in (evaluate, report, collect_data):
        first = command.COMMAND.first
        assert command.COMMAND.parse(["run_dir=runs/x", "out=y"]).own[first] == "runs/x"
    asked = {}
    monkeypatch.setattr("trainers.sweeping.start.sweep", lambda overrides, **own: asked.update(own) or {})
    sweep.main(["task=toy_point", "run_dir=x"])
    assert asked["out"] == "x"


@pytest.mark.parametrize(
    "address", ["npz:a?alignment=departure", "lerobot:arm?camera=top,wrist&size=64", "a/b=c/x", "x"]
)
def test_an_address_may_have_an_equals_sign(address):
    assert EXAMPLE.parse([address]).own["run"] == address


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "run: expected run=RUN, got none"),
        (["x", "--fats"], "got '--fats'"),
        (["x", "y"], "run: expected one, got 'x' and 'y'"),
        (["x", "run=y"], "run: expected one, got 'x' and 'y'"),
        (["x", "--episodes=3"], "got '--episodes=3'"),
    ],
)
def test_wrong_words(arguments, said):
    with pytest.raises(BadArguments) as raised:
        EXAMPLE.parse(arguments)
    assert said in str(raised.value) and "\n" not in str(raised.value)


def test_a_command_without_overrides_names_the_nearest_key():
    with pytest.raises(BadArguments, match=r"got 'oot=y'; did you mean out=\?"):
        convert_data.COMMAND.parse(["npz:x", "oot=y"])


@pytest.mark.parametrize("flag", ["-h", "--help"])
@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_one_layout(name, flag, monkeypatch, capsys):
    module = importlib.import_module(f"trainers.{name}")
    usage = module.usage if name == "benchmark" else module.COMMAND.help()
    monkeypatch.setattr(sys, "argv", [name, flag])
    assert run(module.main, usage=usage) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0].startswith(f"python -m trainers.{name}") and lines[1] == "" and err == ""
    assert lines[-1] == "The last line of standard output is one JSON object with the results."
    assert max(map(len, lines)) <= 140 or name == "fit"  # tasks are one long line


def test_a_benchmark_has_help_of_its_own(monkeypatch, capsys):
    from trainers import benchmark

    monkeypatch.setattr(sys, "argv", ["benchmark", "swing_up", "--help"])
    assert run(benchmark.main, usage=benchmark.usage) == 0
    told = capsys.readouterr().out
    assert told.startswith("python -m trainers.benchmark swing_up ") and "episodes=1" in told


def test_help_names_the_program_that_runs_it():
    from trainers import benchmark

    assert benchmark.usage(package="tests.rigs").startswith("python -m tests.rigs NAME ")
    assert benchmark.usage().startswith("python -m trainers.benchmark NAME ")
    assert benchmark.usage(["controller"], package="tests.rigs").startswith("python -m tests.rigs controller ")


@pytest.mark.parametrize("name", COMMANDS)
def test_a_word_that_is_no_argument_is_one_line(name, refused):
    main = importlib.import_module(f"trainers.{name}").main
    line = refused(main, "--nope")
    assert "'--nope'" in line and "--help" in line and "\n" not in line, line


@pytest.fixture
def folder(tmp_path):
    """What a run folder looks like from outside, in runs/task/x."""
    root = tmp_path / "runs" / "task" / "x"
    (root / "replay" / "rank_00").mkdir(parents=True)
    (root / "config.yaml").write_text("data: {uri: null}\n")
    return root


@pytest.mark.parametrize("main", [report.main, evaluate.main])
def test_what_is_no_run_is_one_line_and_gets_no_file(main, refused, folder):
    runs = folder.parents[1]
    wanted = "a run folder or a folder of runs" if main is report.main else "a run folder"
    assert f"expected {wanted}, got {runs / 'nope'}" in refused(main, str(runs / "nope"))
    if main is evaluate.main:  # of a folder of runs there is a report, but no agent
        line = refused(main, str(runs))
        assert f"got {runs}; 1 runs are in it, the newest is {folder}" in line and "\n" not in line
    assert [path.name for path in runs.rglob("*") if path.is_file()] == ["config.yaml"]


def test_a_run_is_meant_by_its_folder_or_a_checkpoint_in_it(folder, tmp_path, monkeypatch):
    checkpoint = folder / "checkpoints" / "step_10"
    checkpoint.mkdir(parents=True)
    (checkpoint / "manifest.json").touch()
    assert find_run(folder, key="run") == folder
    assert find_run(checkpoint, key="run") == folder
    assert find_checkpoint(checkpoint, key="run") == (folder, checkpoint)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_run(tmp_path.__class__("~/runs/task/x"), key="run") == folder


def test_the_data_of_a_run_are_its_replay_or_what_it_learned_from(folder):
    assert data_uri(str(folder)) == data_uri(f"segments:{folder}") == f"segments:{folder / 'replay'}"
    assert data_uri("npz:data/x?a=b") == "npz:data/x?a=b"
    (folder / "replay" / "rank_00").rmdir()
    (folder / "replay").rmdir()
    groups = [
        "agent",
        "checkpoint",
        "dynamics",
        "encoder",
        "evaluation",
        "logger",
        "optimizer",
        "planner",
        "policy",
        "sampler",
        "task",
        "trainer",
    ]
    (folder / "config.yaml").write_text("data: {uri: 'npz:y'}\n" + "".join(f"{name}: {{}}\n" for name in groups))
    assert data_uri(str(folder)) == "npz:y"


def test_a_run_s_episodes_are_inspected_and_converted(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert inspect_data.main([str(finished)])["episodes"] == 6
    assert (tmp_path / "inspect" / finished.name / "findings.json").exists()
    assert convert_data.main([str(finished), f"out=npz:{tmp_path / 'copy'}"])["episodes"] == 6


def test_a_run_that_acts_needs_no_policy_named(finished, tmp_path):
    results = collect_data.main([str(finished), "episodes=1", f"out=npz:{tmp_path / 'x'}"])
    assert results["policy"] == "checkpoint" and results["episodes"] == 1


def test_a_read_only_run_is_reported_and_evaluated_elsewhere(finished, tmp_path, refused, capsys, monkeypatch):
    before = sorted(os.listdir(finished))
    page = report.main([str(finished), f"out={tmp_path / 'page.html'}"])["report"]
    assert page == str(tmp_path / "page.html") and "<html" in (tmp_path / "page.html").read_text()
    results = evaluate.main([str(finished), "episodes=1", f"out={tmp_path / 'results'}"])
    assert results["results_file"].startswith(str(tmp_path / "results")) and len(results["files"]) == 4
    assert sorted(os.listdir(finished)) == before
    shown = capsys.readouterr().err
    assert "none below four episodes" in shown and "not over training seeds" in shown
    (tmp_path / "file").touch()
    for main in (report.main, evaluate.main):
        assert "out: expected a" in refused(main, str(finished), f"out={tmp_path / 'file' / 'x'}")


@pytest.mark.parametrize(("text", "meant"), [("~/x", "{}/x"), ("npz:~/x?low=~", "npz:{}/x?low=~"), ("a~b", "a~b")])
def test_a_tilde_is_home(monkeypatch, tmp_path, text, meant):
    monkeypatch.setenv("HOME", str(tmp_path))
    for words in ([text], [f"run={text}"]):
        assert EXAMPLE.parse(words).own["run"] == meant.format(tmp_path)


def test_what_a_run_saves_means_the_same_everywhere(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    config, paths = fit._configure(["data=offline", "data.uri=npz:data/toy?low=-2&high=2", "run_dir=~/run"])
    assert config["data"]["uri"] == f"npz:{tmp_path}/data/toy?low=-2&high=2"
    assert config["data"]["cache"] == f"{tmp_path}/cache"
    assert config["run_dir"] == str(paths.root) == f"{tmp_path}/home/run" and not paths.root.exists()
    config, _ = fit._configure(["data=offline", "data.uri=npz:~/toy", "data.cache=c"])
    assert (config["data"]["uri"], config["data"]["cache"]) == (f"npz:{tmp_path}/home/toy", f"{tmp_path}/c")
    assert "uri" not in fit._configure(["task=toy_point"])[0]["data"] and load_config([])["run_dir"] is None
