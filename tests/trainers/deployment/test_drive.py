import csv
import json
import re
import shutil
from dataclasses import replace

import pytest

from datamodules.envs.errors import UnknownTask
from tests.rigs.tiny_bundle import tiny_bundle
from trainers import drive, evaluate, export
from trainers.bundle import files
from trainers.bundle.bundle import read_bundle
from trainers.bundle.control_spec import DeviceDiffers
from trainers.bundle.files import BundleDamaged
from trainers.command.configuration import BadConfig
from trainers.deployment.drive import require_fits
from worldmodel.spec import EnvSpec

TOY = ("env=toy_point", "task.env.episode_steps=20", "task.env.random_goal=false")


@pytest.fixture(scope="module")
def bundle(finished, tmp_path_factory):
    out = tmp_path_factory.mktemp("driven") / "bundle"
    export.main([f"checkpoint={finished}", f"out={out}", "what=policy", "format=none", "frozen=0", "max_age_s=5"])
    return out


def test_in_real_time_it_earns_what_the_evaluation_earns(bundle, finished, tmp_path):
    out = tmp_path / "out"
    driven = drive.main([f"bundle={bundle}", *TOY, "hz=4", "budget_ms=240", "episodes=1", f"out={out}", "seed=5"])
    evaluated = evaluate.main([f"checkpoint={finished}", "episodes=1", "agent.act_with=actor", "seed=5"])
    assert driven["decisions"] == 20 and driven["sources"]["policy"] >= 19
    if driven["missing"] == 0:  # a machine this busy is told, not hidden
        assert driven["return_mean"] == pytest.approx(evaluated["return_mean"], rel=1e-3)
    assert {"late", "missing", "fallbacks", "p50_ms", "p99_ms", "p999_ms"} <= driven.keys()
    assert len((out / "decisions.csv").read_text().splitlines()) == driven["decisions"] + 1
    page = (out / "report.html").read_text()
    assert "Latency" in page and page.count("<svg") >= 3
    assert json.loads((out / "drive.json").read_text())["sha256"] == driven["sha256"]


def test_every_decision_has_its_episode_and_no_report_is_overwritten(bundle, tmp_path, monkeypatch):
    reads, read = [], files.read_files
    monkeypatch.setattr("trainers.bundle.bundle.read_files", lambda folder: (reads.append(folder), read(folder))[1])
    own = tmp_path / "robot"
    shutil.copytree(bundle, own)
    arguments = (f"bundle={own}", *TOY, "hz=40", "episodes=2")
    driven = drive.main([*arguments])
    assert reads == [own]
    with (tmp_path / "robot_drive" / "decisions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    episodes = [int(row["episode"]) for row in rows]
    assert set(episodes) == {0, 1} and episodes == sorted(episodes) and len(rows) == driven["decisions"]
    assert [row["number"] for row in rows].count("0") == 2 and max(len(row["latency_ms"]) for row in rows) <= 11
    assert all(-1 <= float(row[f"action_{dim}"]) <= 1 for row in rows for dim in range(2)) and "action_2" not in rows[0]
    assert len({row["action_0"] for row in rows}) > 5
    page = (tmp_path / "robot_drive" / "report.html").read_text()
    assert re.search(r'class="hero"><b>[0-9.]{2,4}</b><span>return, .*2 episodes<', page)
    assert {file.name for file in (tmp_path / "robot_drive").glob("drive.*")} == {
        "drive.json",
        "drive.mp4",
        "drive.png",
    }
    assert page.count("data:image/png") == page.count("data:video/mp4") == 1
    before = (tmp_path / "robot_drive" / "report.html").read_bytes()
    assert drive.main([*arguments, "episodes=1"])["report"] == str(tmp_path / "robot_drive_2" / "report.html")
    with pytest.raises(BadConfig, match="out: expected a folder without an earlier report, got"):
        drive.main([*arguments, f"out={tmp_path / 'robot_drive'}"])
    assert (tmp_path / "robot_drive" / "report.html").read_bytes() == before


def test_a_late_actuator_and_a_large_camera(bundle, tmp_path):
    driven = drive.main(
        [f"bundle={bundle}", *TOY, "hz=10", "episodes=1", f"out={tmp_path}", "delay=2", "camera=640x480"]
    )
    assert driven["decisions"] >= 20 and driven["faults"] == 0


def test_frames_are_seen_as_in_training(tmp_path):
    spec = EnvSpec(
        **{"task": "toy_point", "images": {"pixels": (2, 16, 16)}, "action_dim": 2, "action_repeat": 1},
        **{"episode_steps": 20, "visuals": {"grayscale": {}, "frame_stack": {"count": 2}}},
    )
    folder = tiny_bundle(tmp_path / "b", what="policy", spec=spec)
    driven = drive.main([f"bundle={folder}", *TOY, "hz=10", f"out={tmp_path / 'out'}"])
    assert driven["decisions"] >= 20 and driven["frames_missing"] == 0
    with pytest.raises(DeviceDiffers, match=r"env\.observed: the bundle has 2x16x16, the environment 3x16x16"):
        drive.main([f"bundle={folder}", *TOY, "task.visuals={}"])


def test_other_bounds_of_actions_are_another_robot(tmp_path):
    spec = EnvSpec("x", images={"pixels": (3, 16, 16)}, action_dim=2, action_repeat=1, episode_steps=20)
    wide, narrow = (replace(spec, action_low=(-n, -n), action_high=(n, n)) for n in (2.0, 1.0))
    control = read_bundle(tiny_bundle(tmp_path / "b", what="policy", spec=wide)).control
    require_fits(control, wide)
    require_fits(control, spec)  # whose bounds are not known
    with pytest.raises(DeviceDiffers, match=r"env\.action_low: the bundle has \(-2\.0, -2\.0\), .*\(-1\.0, -1\.0\)"):
        require_fits(control, narrow)


def test_a_run_is_no_bundle(tmp_path):
    (tmp_path / "config.yaml").touch()
    with pytest.raises(BundleDamaged, match=r"got the run .*trainers\.export checkpoint="):
        drive.main([f"bundle={tmp_path}", *TOY])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["env=toy_point", "task.env.size=32"], DeviceDiffers, "env.observed: the bundle has 3x16x16"),
        (["env=no_such_task"], BadConfig, "^env: no task 'no_such_task'"),
        (["env=dmc:walker_wlk"], UnknownTask, "^env: expected a control suite task such as walker_walk"),
        (["env=toy_point", "camera=big"], BadConfig, "camera: expected WIDTHxHEIGHT"),
        (["env=toy_point", "hz=-1"], BadConfig, "hz: expected a finite number"),
        (["env=toy_point", "api_key_file=key"], BadConfig, "api_key_file: expected none without server="),
        (["env=toy_point", "out=/dev/null/x"], BadConfig, "out: expected a folder that can be written"),
    ],
)
def test_what_does_not_fit_is_refused(bundle, arguments, error, message):
    with pytest.raises(error, match=message):
        drive.main([f"bundle={bundle}", *arguments])
