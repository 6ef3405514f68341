import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from datamodules.envs.errors import MissingPackage
from tests.rigs.tiny_bundle import tiny_bundle
from trainers import drive
from trainers.deployment.rerun_recording import FileInTheWay, RerunRecording
from trainers.deployment.status import Status


def status(number: int, **changes) -> Status:
    facts = {"source": "plan", "observation": "ok", "late": False, "latency_ms": 7.25, "filter_ms": 1.0, "plan_age": 0}
    numbers = {
        "faults": 0,
        "limited": False,
        "predicted_return": 3.5,
        "prediction_error": float("nan"),
        "margin_ms": 27.75,
    }
    return Status(number=number, **(facts | numbers | changes))


def printed(path: Path, *, entity: str) -> str:
    """What the package's own reader shows of an entity's chunks."""
    command = [Path(sys.executable).parent / "rerun", "rrd", "print", "-vvv", "--entity", entity, path]
    if not Path(command[0]).exists():
        command[:1] = [sys.executable, "-m", "rerun"]
    environ = os.environ | {"RERUN_ANALYTICS_DISABLED": "1", "NO_COLOR": "1"}
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60, env=environ).stdout


def test_every_decision_is_read_back(tmp_path):
    path = tmp_path / "new" / "drive.rrd"
    frame = np.full((8, 8, 3), 200, np.uint8)
    with RerunRecording(path) as recording:
        recording.add({"pixels": frame, "joints": np.float32([0.5, -0.5])}, np.float32([0.25, -1.5]), status(0))
        recording.add(frame, 3, status(1, prediction_error=0.125, late=True))
        recording.add(None, np.float32([0.0, 0.0]), status(0, source="safe", message="no frame", faults=1))
    actions = printed(path, entity="/action")
    assert "0.25, -1.5" in actions and "3.0" in actions
    assert "3 rows" in actions
    assert "2 rows" in printed(path, entity="/observation/pixels")
    assert "0.5, -0.5" in printed(path, entity="/observation/joints")
    assert "7.25" in printed(path, entity="/controller/latency_ms")
    errors = printed(path, entity="/controller/prediction_error")
    assert "1 rows" in errors and "0.125" in errors
    events = printed(path, entity="/controller/events")
    assert "safe: no frame" in events and "WARN" in events and "2 rows" in events
    with pytest.raises(FileInTheWay, match=r"expected a new file, got .*drive\.rrd"):
        RerunRecording(path)


def test_what_is_driven_is_recorded(tmp_path):
    folder = tiny_bundle(tmp_path / "b", what="policy")
    path = tmp_path / "drive.rrd"
    task = ("env=toy_point", "task.env.episode_steps=20", "hz=20")
    driven = drive.main([f"bundle={folder}", *task, f"out={tmp_path / 'out'}", f"rerun={path}"])
    rows = printed(path, entity="/action")
    assert sum(int(part.split()[0]) for part in rows.split("with ")[1:]) == driven["decisions"]
    with pytest.raises(FileInTheWay):
        drive.main([f"bundle={folder}", *task, f"out={tmp_path / 'other'}", f"rerun={path}"])


FIRST = """
import sys
import numpy as np
from tests.trainers.deployment.test_rerun_recording import status
from trainers.deployment.rerun_recording import RerunRecording

seen = {"pixels": np.zeros((8, 8, 3), np.uint8), "stack": np.zeros((8, 8, 9), np.uint8), "joints": np.zeros(2)}
with RerunRecording(sys.argv[1]) as recording:
    before = set(sys.modules)
    recording.add(seen, np.zeros(2), status(0, late=True, prediction_error=1.0, message="slow"))
    print(*sorted(sys.modules.keys() - before))
"""


def test_the_first_decision_waits_for_no_import(tmp_path):
    """Half a second: of 20 decisions at 10 Hz the robot would miss 5."""
    root = Path(__file__).resolve().parents[3]
    command = [sys.executable, "-c", FIRST, tmp_path / "drive.rrd"]
    loaded = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True, timeout=120)
    assert loaded.stdout.strip() == ""
    assert "1 rows" in printed(tmp_path / "drive.rrd", entity="/action")
    assert "nothing" not in printed(tmp_path / "drive.rrd", entity="/controller/events")


def test_a_place_that_cannot_be_written_is_said():
    with pytest.raises(FileInTheWay, match=r"rerun: expected a file that can be written, got /dev/null/x\.rrd"):
        RerunRecording("/dev/null/x.rrd")


def test_without_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(MissingPackage, match="pip install rerun-sdk"):
        RerunRecording(tmp_path / "drive.rrd")
