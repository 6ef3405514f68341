"""Recording episodes, looking at them, and learning from a copy of them."""

import json

import numpy as np
import pytest
from datamodules.envs.counting import decode
from PIL import Image

from datamodules.alignment import Alignment
from datamodules.envs.seeds import SeedRank, episode_seed
from datamodules.formats.uri import open_reader
from datamodules.importer import import_once
from tests.rigs import PARTS
from trainers import collect_data, evaluate, fit, inspect_data
from trainers.command.configuration import BadConfig, load_config
from trainers.command.preflight import check

TOY = ("task=toy_point", "task.env.episode_steps=20", "envs=2")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Five episodes of random actions, as npz, and what was said of them."""
    path = tmp_path_factory.mktemp("recorded") / "toy"
    return f"npz:{path}", path, collect_data.main([*TOY, "episodes=5", f"out=npz:{path}"])


def test_what_was_recorded_is_what_is_said(recorded):
    uri, _, results = recorded
    counted = {name: results[name] for name in ("task", "policy", "episodes", "rows", "env_steps", "faults")}
    expected = {"task": "toy_point", "policy": "random", "episodes": 5, "rows": 105, "env_steps": 100, "faults": 0}
    assert counted == expected
    episodes = list(open_reader(uri).trajectories())
    assert [len(one) for one in episodes] == [21] * 5 and not any(one.terminal for one in episodes)
    assert results["return_mean"] == pytest.approx(np.mean([one.reward.sum() for one in episodes]))
    assert len({one.action.tobytes() for one in episodes}) == len({one.pixels.tobytes() for one in episodes}) == 5


def test_the_seed_alone_decides_and_not_the_number_of_environments(recorded, tmp_path):
    collect_data.main([*TOY[:2], "envs=1", "episodes=2", f"out=npz:{tmp_path / 'again'}"])
    again = open_reader(f"npz:{tmp_path / 'again'}").trajectories()
    for one, two in zip(again, open_reader(recorded[0]).trajectories(), strict=False):
        assert np.array_equal(one.action, two.action) and np.array_equal(one.pixels, two.pixels)


def test_an_agent_records_too(finished, tmp_path):
    asked = {"planner": ["policy=planner"], "actor": ["policy=actor"], "checkpoint": ["policy=checkpoint"]}
    asked["checkpoint by its actor"] = [*asked["checkpoint"], "agent.act_with=actor"]
    actions = {}
    for name, words in asked.items():
        out = f"segments:{tmp_path / name}"
        results = collect_data.main([*words, f"model={finished}", "episodes=1", f"out={out}"])
        assert (results["rows"], results["policy"]) == (21, name.split()[0])
        assert results["act_with"] == ("actor" if "actor" in name else "planner")
        one = next(open_reader(out).trajectories())
        assert len(one) == 21
        actions[name] = one.action.tobytes()
    assert actions["checkpoint"] == actions["planner"] != actions["actor"] == actions["checkpoint by its actor"]


def test_an_episode_that_a_fault_cuts_short_is_kept_and_counted(tmp_path):
    """The environment dies in the second of three episodes, whose seed is known before."""
    seed = episode_seed(0, SeedRank.RECORDING, 0, 1)
    out = f"npz:{tmp_path / 'data'}"
    task = {"fault": "kill", "fault_at": 4, "fault_seed": seed, "episode_steps": 10, "terminal": "true"}
    source = [
        f"parts={PARTS}",
        "task=counting",
        "task.env.action_repeat=1",
        *(f"++task.env.{key}={task[key]}" for key in task),
    ]
    results = collect_data.main([*source, "episodes=3", f"out={out}"])
    counts = {name: results[name] for name in ("episodes", "rows", "env_steps", "faults")}
    assert counts == {"episodes": 3, "rows": 11 + 4 + 11, "env_steps": 10 + 3 + 10, "faults": 1}
    reader = open_reader(out)
    episodes = list(reader.trajectories())
    assert [(len(one), one.terminal) for one in episodes] == [(11, True), (4, False), (11, True)]
    assert [decode(row)[0] for row in episodes[1].pixels] == [0, 1, 2, 3] and reader.problems == []


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["task=toy_point"], ("out",)),
        (["task=toy_point", "out=npz:x", "policy=best"], ("policy", "checkpoint", "planner", "'best'")),
        (["task=toy_point", "out=npz:x", "policy=planner"], ("model",)),
        (["task=toy_point", "out=npz:x", "policy=checkpoint"], ("model",)),
        (["task=toy_point", "out=npz:x", "episodes=0"], ("episodes", "at least 1", "'0'")),
        (["task=toy_point", "out=nzp:x"], ("nzp", "npz")),
        (["task=toy_point", "out=no/scheme"], ("say a scheme", "npz:no/scheme")),
        (["task=toy_pont", "out=npz:x"], ("toy_point",)),
        (["task=toy_point", "out=TAKEN"], ("out", "nothing is yet")),
    ],
)
def test_a_wrong_word_is_answered_in_one_line(refused, recorded, arguments, named):
    line = refused(collect_data.main, *(text.replace("TAKEN", recorded[0]) for text in arguments)).splitlines()[-1]
    assert all(name in line for name in named), line


def test_an_inspection(recorded, tmp_path, capsys):
    uri = recorded[0]
    out = tmp_path / "out"
    found = inspect_data.main([uri, f"out={out}"])
    assert (found["episodes"], found["rows"], found["skipped"], found["terminated"]) == (5, 105, 0, 0)
    returns = [one.reward.sum() for one in open_reader(uri).trajectories()]
    assert found["returns"]["max"] == pytest.approx(max(returns)) and sum(found["returns"]["histogram"]["counts"]) == 5
    assert found["lengths"] == {"min": 21.0, "mean": 21.0, "max": 21.0}
    assert -1 <= min(found["action_low"]) < max(found["action_high"]) <= 1
    assert {name.name for name in out.iterdir()} == {"episodes.png", "best.mp4", "findings.json"}
    assert json.loads((out / "findings.json").read_text())["rows"] == 105
    # five rows of tiles, of which each is a frame of an episode
    sheet = np.asarray(Image.open(out / "episodes.png"))
    assert sheet.shape[0] == 24 + 5 * (96 + 4)
    best = list(open_reader(uri).trajectories())[int(np.argmax(returns))]
    tile = sheet[24 : 24 + 96, 120 : 120 + 96][::6, ::6]
    assert np.array_equal(tile, best.pixels[0].transpose(1, 2, 0))
    said = capsys.readouterr().err
    assert "alignment" in said and "warning" not in said.lower()


def test_an_unreadable_file_is_left_out_and_named(recorded, tmp_path):
    bad = tmp_path / "data"
    bad.mkdir()
    for file in recorded[1].iterdir():
        (bad / file.name).write_bytes(file.read_bytes())
    (bad / "20200101T000000F000000-x-5.npz").write_bytes(b"PK\x03\x04 not an archive")
    found = inspect_data.main([f"npz:{bad}", f"out={tmp_path / 'out'}"])
    assert (found["episodes"], found["skipped"]) == (5, 1) and "npz file" in found["problems"][0]


def test_names_with_brackets_are_shown_as_they_are(recorded, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    folder = tmp_path / "data [red]"
    folder.mkdir()
    for file in recorded[1].iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "2020 [bold].npz").write_bytes(b"PK\x03\x04 not an archive")
    inspect_data.main([f"npz:{folder}", f"out={tmp_path / 'out'}"])
    said = capsys.readouterr().err
    assert "data [red]" in said and "2020 [bold].npz" in said


def test_a_copy_is_made_once_and_learned_from(runs, recorded, tmp_path):
    small = ("experiment=small", "data.batch=4", "data.length=8", "data.updates=4", "trainer.accelerator=cpu")
    arguments = ("data=offline", f"data.uri={recorded[0]}", f"data.cache={tmp_path / 'cache'}", *small)
    for name in ("one", "two"):
        run = runs.fit(*arguments, f"run_dir={tmp_path / name}")
        assert run.wait() == 0, run.err.read_text()
        assert ("importing" in run.err.read_text()) == (name == "one")
        data = run.results()["data"]
        assert (data["rows"], data["skipped"], data["held_out"]) == (105, 0, 1) and data["alignment"]["verdict"]
    copies = [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]
    assert len(copies) == 1


def test_departures_stop_a_run_until_somebody_insists(recorded, tmp_path, monkeypatch, refused):
    """As the check finds them: what it finds in data is its own tests' business."""
    from datamodules import importer

    found = importer.check_alignment([])
    monkeypatch.setattr(importer, "check_alignment", lambda _: type(found)(found.scores, -1, 9.0, 100))
    arguments = ("data=offline", f"data.uri={recorded[0]}", f"data.cache={tmp_path / 'cache'}", "data.length=8")
    line = refused(fit.main, *arguments, "experiment=small", f"run_dir={tmp_path / 'run'}").splitlines()[-1]
    assert "data.alignment=departure" in line and "data.alignment: expected" in line
    for alignment in ("arrival", "departure"):
        folder, facts = import_once(recorded[0], tmp_path / alignment, alignment=alignment, say=lambda _: None)
        assert facts["skipped"] == 0 and folder.is_dir()


def test_a_model_of_other_frames_leaves_nothing_behind(refused, finished, tmp_path):
    words = ("policy=planner", f"model={finished}", "task.env.size=24", f"out=npz:{tmp_path / 'data'}")
    line = refused(collect_data.main, *words).splitlines()[-1]
    assert "model: expected observed 3x16x16 as in training, got 3x24x24" in line
    assert not (tmp_path / "data").exists()
    line = refused(evaluate.main, f"checkpoint={finished}", "task.env.size=24").splitlines()[-1]
    assert "checkpoint: expected observed 3x16x16 as in training, got 3x24x24" in line


@pytest.mark.parametrize(
    ("shift", "given", "words"),
    [
        (0, None, "it fits"),
        (0, "departure", "it fits"),
        (-1, None, "paired as departure, read as arrival: add ?alignment=departure"),
        (1, None, "paired as arrival, read as departure: add ?alignment=arrival"),
        (-1, "departure", "one row further off"),
        (None, None, "undecided"),
    ],
)
def test_a_verdict_in_words(shift, given, words):
    assert words in Alignment({}, shift, 9.0, 100).in_words(given=given, remedy="add ?alignment=")


def test_what_cannot_be_read_otherwise_is_not_advised_to_be():
    words = Alignment({}, -1, 9.0, 100).in_words(given=None, remedy=None)
    assert "paired as departure, which these files cannot be" in words and "alignment=" not in words


def test_a_model_without_a_task_is_not_evaluated():
    config = load_config(["data=imagined", "data.model=x", "task=none", "data.evaluate=true"])
    with pytest.raises(BadConfig, match=r"task: expected task=NAME to act in for data\.evaluate=true"):
        check(config)
    check(config | {"data": config["data"] | {"evaluate": False}})


def test_a_wrong_option_is_said_once(recorded, refused):
    uri = recorded[0]
    for option, named in (("image_key=nope", "expected key nope"), ("alignment=foo", "got 'foo'")):
        line = refused(inspect_data.main, f"{uri}?{option}").splitlines()[-1]
        assert line.count(named) == 1
