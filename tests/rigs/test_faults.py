"""The fault runs find what is wrong: each is shown a system that breaks its promise, and the real one."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from datamodules.envs.protocol import Step
from datamodules.replay import Replay
from tests.rigs import flips, io_points, kills
from tests.rigs.forked import Forked
from tests.rigs.io_calls import EXIT_CODE, NthCall, failing
from tests.rigs.marked_rows import SPEC, Mark, row, served
from trainers.run_folder.checkpoint import newest
from worldmodel.spec import EnvSpec


def in_place(checkpoint, path) -> None:
    """How a checkpoint must not be written: under its own name from the first byte on."""
    path.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"number": checkpoint["number"]}).encode()
    handle = os.open(path / "state.json", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.write(handle, text)
    os.close(handle)


def read_in_place(folder: Path) -> frozenset:
    files = sorted(folder.glob("step_*/state.json"))
    return frozenset({json.loads(files[-1].read_bytes())["number"]}) if files else frozenset()


def points(scenario, folder: Path, kind: str) -> list[str]:
    """Complaints about every operation of one scenario under one kind of failure."""
    complaints = []
    for n in range(1, 200):
        hit, complaint = io_points._try(scenario, kind, n, folder / f"{kind}-{n}")
        if not hit:
            return complaints
        complaints.append(complaint)
    raise AssertionError("the work never ends")


@pytest.mark.parametrize("kind", ["EIO", "exit"])
def test_a_durable_save_has_two_states(tmp_path, kind):
    complaints = points(io_points.checkpoint_save(), tmp_path, kind)
    assert len(complaints) > 10 and not any(complaints)


def test_a_save_in_place_is_caught(tmp_path, monkeypatch):
    monkeypatch.setattr(io_points, "save_checkpoint", in_place)
    monkeypatch.setattr(io_points, "_numbers", read_in_place)
    assert any(points(io_points.checkpoint_save(), tmp_path, "exit"))


@pytest.mark.slow
def test_rows_survive_the_end_of_the_process_at_any_operation(tmp_path):
    assert not any(points(io_points.replay_rollback(), tmp_path, "exit"))


@pytest.mark.slow
def test_every_damage_is_noticed(tmp_path):
    result = flips.run(tmp_path, flips=25, seed=1)
    assert result["flips_wrong_rows"] == result["flips_training_stopped"] == 0, result


def test_marks_catch_a_row_in_the_wrong_place(tmp_path):
    replay = Replay(spec=SPEC, capacity=20)
    for n in range(6):
        replay.append(0, *row(Mark(n, n == 0, False, False)))
    assert {mark.number for mark in served(replay)} == set(range(6))
    step, action = row(Mark(6, False, False, False))
    step.reward = 7.0
    replay.append(0, step, action)
    with pytest.raises(AssertionError, match="reward"):
        served(replay)


@pytest.mark.parametrize(("kind", "left"), [("EIO", b""), ("short", b"ab"), ("ENOSPC", b"")])
def test_the_third_operation_fails_as_told(tmp_path, kind, left):
    with failing(kind, 2) as fault, pytest.raises(OSError, match="write: failed on purpose"):
        handle = os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT)
        os.write(handle, b"abcd")
    assert fault.hit and (tmp_path / "file").read_bytes() == left
    with pytest.raises(ValueError, match="kind"):
        NthCall("EWHAT", 1)


def test_an_exit_ends_the_child_without_cleaning_up(tmp_path):
    def act() -> int:
        with failing("exit", 1):
            (tmp_path / "never").mkdir()
        return 0

    assert Forked(act, log=tmp_path / "log").wait(timeout_s=120) == EXIT_CODE
    assert not (tmp_path / "never").exists()


@pytest.mark.slow
def test_runs_survive_kills(tmp_path):
    result = kills.run(tmp_path / "kills", kills=3, seed=5)
    assert result["kills"] == 3
    assert result["failed_restarts"] == result["corrupt_reads"] == result["orphans"] == 0, result
    assert result["rows_lost_max"] <= result["rows_lost_bound"]


def test_a_start_tells_how_many_rows_it_drops(tmp_path, monkeypatch):
    def main(arguments):
        spec = EnvSpec(task="count", images={"pixels": (1, 2, 2)}, action_dim=1, action_repeat=1, episode_steps=20)
        replay = Replay(spec=spec, capacity=100, streams=kills.ENVS)
        state = replay.state_dict()
        for n in range(10):
            step = Step({"pixels": np.zeros(spec.pixels, np.uint8)}, 0.0, n < 2, False, False, 1)
            replay.append(n % 2, step, np.zeros(1, np.float32))
            state = replay.state_dict() if n == 2 else state
        replay.load_state_dict(state)
        return {}

    monkeypatch.setattr(kills.fit, "main", main)
    with kills._counter(tmp_path / "count") as count:
        assert Forked(lambda: kills._train([], count), log=tmp_path / "log").wait(timeout_s=120) == 0
        assert kills._COUNT.unpack(count[:]) == (5, 5, 7)


def test_a_run_that_cannot_be_resumed_is_a_failed_restart(tmp_path, monkeypatch):
    monkeypatch.setattr(kills, "_train", lambda arguments, count: 2)
    result = kills.run(tmp_path / "kills", kills=0, seed=0)
    assert result["failed_restarts"] == 0
    toll = kills.Toll()
    assert kills._life(tmp_path / "run_001", np.random.default_rng(0), toll, seed=1)
    assert toll.failed_restarts == 1 and newest(tmp_path) is None
