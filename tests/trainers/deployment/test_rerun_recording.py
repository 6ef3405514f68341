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


def test_without_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(MissingPackage, match="pip install rerun-sdk"):
        RerunRecording(tmp_path / "drive.rrd")
