"""Drives that are broken off, that fail, or that want the same folder: what was recorded is kept."""

import csv
import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from tests.rigs.tiny_bundle import tiny_bundle
from trainers import drive
from trainers.bundle.control_spec import DeviceDiffers
from trainers.command.configuration import BadConfig
from trainers.command.entry import print_json
from trainers.deployment import drive as drive_loop
from trainers.deployment.drive_folder import REPORT, report_folder
from trainers.deployment.robot import Robot
from trainers.deployment.status import Status
from trainers.deployment.telemetry import Telemetry
from worldmodel.errors import BadValue

TOY = ("env=toy_point", "task.env.episode_steps=20", "task.env.random_goal=false")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return tiny_bundle(tmp_path_factory.mktemp("driven") / "b", what="policy")


def signal_at(monkeypatch, number, *, decision):
    """Send this process a signal when so many decisions were made."""
    add = Telemetry.add

    def added(self, status, action):
        add(self, status, action)
        if self.counts["decisions"] == decision:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(Telemetry, "add", added)


def rows_of(folder):
    with (folder / "decisions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_was_driven_before_a_signal_is_kept(bundle, tmp_path, monkeypatch, number):
    before = signal.getsignal(number)
    signal_at(monkeypatch, number, decision=27)
    driven = drive.main([str(bundle), *TOY, "hz=10", "episodes=5", f"out={tmp_path}"])
    assert (driven["status"], driven["exit_code"]) == ("interrupted", 128 + number)
    assert driven["decisions"] == 27 and driven["episodes"] == len(driven["returns"]) == 1
    rows = rows_of(tmp_path)
    assert len(rows) == 27 and {row["episode"] for row in rows} == {"0", "1"}
    assert driven["return_mean"] == driven["returns"][0] > 0 and driven["faults"] == 0
    assert "<svg" in (tmp_path / REPORT).read_text() and json.loads((tmp_path / "drive.json").read_text())
    assert signal.getsignal(number) == before


def test_a_signal_ends_a_period_of_minutes_and_no_episode_has_no_return(bundle, tmp_path, monkeypatch):
    signal_at(monkeypatch, signal.SIGINT, decision=1)
    start = time.monotonic()
    driven = drive.main([str(bundle), *TOY, "hz=0.01", "episodes=5", f"out={tmp_path}"])
    assert time.monotonic() - start < 60
    assert (driven["return_mean"], driven["returns"], driven["decisions"]) == (None, [], 1)
    assert (tmp_path / REPORT).exists()


def test_a_signal_before_the_first_decision_has_its_line_too(bundle, tmp_path, monkeypatch):
    begin = drive_loop.open_pool

    def opened(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return begin(*arguments)

    monkeypatch.setattr(drive_loop, "open_pool", opened)
    driven = drive.main([str(bundle), *TOY, "episodes=5", f"out={tmp_path}"])
    assert (driven["status"], driven["exit_code"]) == ("interrupted", 128 + signal.SIGTERM)
    assert (driven["decisions"], driven["returns"], driven["p50_ms"]) == (0, [], None)
    assert rows_of(tmp_path) == [] and (tmp_path / REPORT).exists()


def test_decisions_are_kept_where_every_episode_was_cut_short(bundle, tmp_path, monkeypatch):
    step = Robot._answer

    def cut(self, ask):
        if self.played.decisions == 3:
            raise RuntimeError("the arm is gone")
        return step(self, ask)

    monkeypatch.setattr(Robot, "_answer", cut)
    with pytest.raises(BadConfig, match=r"env: every .* the last by RuntimeError: the arm is gone; decisions are in"):
        drive.main([str(bundle), *TOY, "hz=10", "episodes=2", f"out={tmp_path}"])
    assert {row["episode"] for row in rows_of(tmp_path)} == {"0", "1"} and not (tmp_path / REPORT).exists()


def test_drives_at_once_have_folders_of_their_own(tmp_path):
    with report_folder(None, tmp_path / "b") as one, report_folder(None, tmp_path / "b") as two:
        assert (one, two) == (tmp_path / "b_drive", tmp_path / "b_drive_2")
        (one / REPORT).touch()
    with report_folder(None, tmp_path / "b") as third:
        assert third == two  # which has no report, and nobody holds it any more
    with report_folder(f"{tmp_path}/own", tmp_path) as own:
        with pytest.raises(BadConfig, match=r"out: expected a folder of its own, got .*own, to which another drive"):
            report_folder(str(own), tmp_path).__enter__()
        (own / REPORT).touch()
    with pytest.raises(BadConfig, match="out: expected a folder without an earlier report"):
        report_folder(str(own), tmp_path).__enter__()


@pytest.mark.parametrize(
    ("argument", "error", "message"),
    [
        ("planner=threads", BadValue, "planner: expected one of process, inline, got 'threads'"),
        ("hz=20000", BadValue, "hz: expected a finite number above 0 and at most 10000, got 20000"),
        ("task.env.size=32", DeviceDiffers, "env.observed: the bundle has 3x16x16"),
    ],
)
def test_what_is_refused_leaves_nothing(tmp_path, monkeypatch, argument, error, message):
    monkeypatch.chdir(tmp_path)
    tiny_bundle(Path("b"), what="policy")
    with pytest.raises(error, match=message):
        drive.main(["b", *TOY, "rerun=drive.rrd", argument])
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_without_a_decision_there_is_no_latency(capsys):
    telemetry = Telemetry()
    times = {"latency_ms": 1.0, "margin_ms": 2.0, "filter_ms": 0.5}
    telemetry.add(
        Status(
            **{"number": 0, "source": "stopped", "observation": "ok", "late": False, "plan_age": -1, "faults": 1},
            **{"limited": False, "predicted_return": float("nan"), "prediction_error": float("nan")},
            **times,
        ),
        np.zeros(2, np.float32),
    )
    said = telemetry.summary()
    assert (said["p50_ms"], said["p999_ms"], said["margin_min_ms"]) == (None, None, 2.0)
    assert Telemetry().summary()["margin_min_ms"] is None


def test_the_last_line_is_json_whatever_the_numbers_are(capsys):
    print_json({"a": float("nan"), "b": [1.5, float("inf")], "c": {"d": (-float("inf"), "NaN")}, "e": True})
    line = capsys.readouterr().out
    assert json.loads(line, parse_constant=lambda name: pytest.fail(name)) == {
        **{"a": None, "b": [1.5, None]},
        **{"c": {"d": [None, "NaN"]}, "e": True},
    }
