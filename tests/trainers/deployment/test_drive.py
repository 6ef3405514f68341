import json

import pytest

from tests.rigs.tiny_bundle import tiny_bundle
from trainers import drive, evaluate, export
from trainers.bundle.control_spec import DeviceDiffers
from trainers.command.configuration import BadConfig
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


def test_a_late_actuator_and_a_large_camera(bundle, tmp_path):
    driven = drive.main(
        [f"bundle={bundle}", *TOY, "hz=20", "episodes=1", f"out={tmp_path}", "delay=2", "camera=640x480"]
    )
    assert driven["decisions"] >= 20 and driven["faults"] == 0


def test_frames_are_seen_as_in_training(tmp_path):
    spec = EnvSpec(
        **{"task": "toy_point", "images": {"pixels": (2, 16, 16)}, "action_dim": 2, "action_repeat": 1},
        **{"episode_steps": 20, "visuals": {"grayscale": {}, "frame_stack": {"count": 2}}},
    )
    folder = tiny_bundle(tmp_path / "b", what="policy", spec=spec)
    driven = drive.main([f"bundle={folder}", *TOY, "hz=20", f"out={tmp_path / 'out'}"])
    assert driven["decisions"] >= 20 and driven["frames_missing"] == 0
    with pytest.raises(DeviceDiffers, match=r"env\.observation: the bundle has pixels 2x16x16|env\.observation"):
        drive.main([f"bundle={folder}", *TOY, "task.visuals={}"])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["env=toy_point", "task.env.size=32"], DeviceDiffers, "env.observation: the bundle has 3x16x16"),
        (["env=no_such_task"], BadConfig, "task: no task 'no_such_task'"),
        (["env=toy_point", "camera=big"], BadConfig, "camera: expected WIDTHxHEIGHT"),
        (["env=toy_point", "hz=-1"], BadConfig, "hz: expected a number"),
    ],
)
def test_what_does_not_fit_is_refused(bundle, arguments, error, message):
    with pytest.raises(error, match=message):
        drive.main([f"bundle={bundle}", *arguments])
