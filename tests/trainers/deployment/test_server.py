import asyncio
import gc
import json
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tests.rigs.tiny_bundle import HIGH, LOW, tiny_bundle
from trainers import serve
from trainers.bundle.bundle import read_bundle
from trainers.bundle.control_spec import DeviceDiffers
from trainers.command.configuration import BadConfig
from trainers.deployment.controller import Controller
from trainers.deployment.openpi_codec import BadMessage, pack, unpack
from trainers.deployment.remote_controller import RemoteController
from trainers.deployment.server import PolicyServer, Session
from trainers.process import garbage
from worldmodel.errors import BadValue


@contextmanager
def serving(folder, **options):
    """The port of a server in a thread."""
    server = PolicyServer(folder, hz=5.0, port=options.pop("port", 0), planner="inline", **options)
    ports, loop, ready = [], asyncio.new_event_loop(), threading.Event()
    stop = asyncio.Event()

    def run():
        loop.run_until_complete(server.run(lambda port: (ports.append(port), ready.set()), stop))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(30)
    try:
        yield ports[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(30)
        server.close()


def frame(t=0, size=16):
    return np.random.default_rng(t).integers(0, 256, (size, size, 3), np.uint8)


def client(port, **headers):
    connection = connect(f"ws://127.0.0.1:{port}", compression=None, max_size=None, additional_headers=headers or None)
    return connection, unpack(connection.recv())


def infer(connection, message):
    connection.send(pack(message))
    return unpack(connection.recv())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_bundle(tmp_path_factory.mktemp("served") / "b", what="policy")


@pytest.fixture(scope="module")
def port(folder):
    with serving(folder, clients=3) as port:
        yield port


def test_the_protocol(port, folder):
    connection, metadata = client(port)
    assert metadata["observation"] == {"pixels": {"dtype": "uint8", "shape": [16, 16, 3]}}
    assert metadata["action"]["shape"] == [2] and metadata["hz"] == 5.0 and metadata["horizon"] == 5
    for t, key in enumerate(("observation/image", "observation/pixels", "pixels", "image")):
        reply = infer(connection, {key: frame(t), "prompt": "go"})
        actions = reply["actions"]
        assert actions.shape == (5, 2) and actions.dtype == np.float32
        assert (actions >= LOW).all() and (actions <= HIGH).all()
        assert reply["server_timing"]["infer_ms"] > 0 and reply["status"]["number"] == t
    assert reply["server_timing"]["prev_total_ms"] > 0
    connection.close()


def test_handshakes_at_once_do_not_let_more_clients_in(folder, monkeypatch):
    monkeypatch.setattr(PolicyServer, "_answer_http", lambda *_: None)  # as if each had been the first to ask
    with serving(folder, clients=1) as port:
        first, _ = client(port)
        with pytest.raises(ConnectionClosed, match="1013"):
            client(port)
        infer(first, {"image": frame()})
        first.close()


def test_clients_have_an_episode_each(port, folder):
    (one, _), (two, _) = client(port), client(port)
    local = Controller(folder, planner="inline")
    for t in range(4):
        first = infer(one, {"image": frame(t)})["actions"][0]
        infer(two, {"image": frame(50 + t)})
        np.testing.assert_array_equal(first, local.step(frame(t))[0])
    again = infer(one, {"image": frame(0), "reset": True})
    local.reset()
    np.testing.assert_array_equal(again["actions"][0], local.step(frame(0))[0])
    assert again["status"]["number"] == 0
    one.close(), two.close()


def test_a_wrong_frame_is_answered_with_a_status(port):
    connection, _ = client(port)
    infer(connection, {"image": frame(0)})
    reply = infer(connection, {"image": frame(1).astype(np.float32)})
    assert reply["status"]["observation"] == "shape" and reply["status"]["source"] == "policy"
    connection.close()


def test_rows_of_several_lengths_are_a_frame_that_is_bridged(port):
    connection, _ = client(port)
    infer(connection, {"image": frame(0)})
    status = infer(connection, {"image": [[1, 2], [3]]})["status"]
    assert (status["observation"], status["source"], status["faults"]) == ("shape", "policy", 0)
    connection.close()


def test_numpy_s_numbers_number_frames(port):
    connection, _ = client(port)
    for t, sequence in enumerate([np.int64(3), np.uint8(4)]):
        status = infer(connection, {"image": frame(t), "sequence": sequence, "reset": np.bool_(t == 0)})["status"]
        assert (status["observation"], status["number"]) == ("ok", t)
    assert infer(connection, {"image": frame(2), "sequence": np.int32(4)})["status"]["observation"] == "order"
    connection.send(pack({"image": frame(), "sequence": np.float32(5)}))
    assert connection.recv() == "sequence: expected a whole number, got float32"


@pytest.mark.parametrize("wrong", [b"junk", "text", pack({"image": frame(), "sequence": "one"})])
def test_what_is_no_message_is_told_and_hung_up(port, wrong):
    connection, _ = client(port)
    connection.send(wrong)
    said = connection.recv()
    assert isinstance(said, str) and "expected" in said and "Traceback" not in said
    with pytest.raises(ConnectionClosed) as closed:
        connection.recv()
    assert closed.value.rcvd.code == 1011


def test_health_size_and_number_of_clients(port):
    assert urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=10).read() == b"OK\n"
    connection, _ = client(port)
    connection.send(b"\0" * 30_000_000)
    with pytest.raises(ConnectionClosed) as closed:
        connection.recv()
    assert closed.value.rcvd.code == 1009
    several = [client(port)[0] for _ in range(3)]
    with pytest.raises(InvalidStatus, match="503"):
        client(port)
    for one in several:
        one.close()


def test_an_api_key(folder):
    with serving(folder, api_key="secret") as port:
        for headers in ({}, {"Authorization": "Api-Key wrong"}, {"Authorization": "secret"}):
            with pytest.raises(InvalidStatus, match="401"):
                client(port, **headers)
        twice = [("Authorization", "Api-Key secret"), ("Authorization", "Api-Key secret")]
        with pytest.raises(InvalidStatus, match="401"):
            connect(f"ws://127.0.0.1:{port}", additional_headers=twice)
        connection, _ = client(port, Authorization="Api-Key secret")
        assert infer(connection, {"image": frame()})["actions"].shape == (5, 2)
        connection.close()
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10)


def test_a_message_may_be_as_large_as_is_allowed(folder):
    session = Session(Controller(folder, planner="inline"), max_bytes=100_000_000)
    padding = np.zeros((7, 10_000_000), np.uint8)
    assert unpack(session.answer(pack({"image": frame(), "more": padding})))["status"]["observation"] == "names"
    with pytest.raises(BadMessage, match="message: expected at most 64000000 bytes"):
        Session(Controller(folder, planner="inline")).answer(pack({"image": frame(), "more": padding}))


def test_an_empty_host_does_not_open_the_server_to_everybody(folder):
    with pytest.raises(BadConfig, match=r"host: expected a name or an address, .* got none"):
        serve.main([str(folder), "port=0", "host="])


def test_the_robot_s_side_survives_a_server_that_goes_away(folder):
    control = read_bundle(folder).control
    with serving(folder) as port:
        robot = RemoteController(f"ws://127.0.0.1:{port}", control, hz=2.0)
        assert [robot.step(frame(t))[1].source for t in range(3)] == ["policy"] * 3
        actions = robot._chunk
    with robot:
        gone = [robot.step(frame(t)) for t in range(9)]
    sources = [status.source for _, status in gone]
    assert sources[:2] == ["shifted_plan"] * 2 and sources[2:5] == ["safe", "safe", "stopped"]
    np.testing.assert_array_equal(gone[0][0], actions[1])
    assert all(np.isfinite(action).all() for action, _ in gone)
    assert gone[-1][1].message.startswith("server: "), "what is wrong is said, not only that something is"


def test_the_robot_s_decisions_meet_no_full_collection_of_garbage(folder, monkeypatch):
    monkeypatch.setattr(garbage, "_open", 0)  # of controllers that other tests did not close
    gc.unfreeze()
    with serving(folder) as port:
        robot = RemoteController(f"ws://127.0.0.1:{port}", read_bundle(folder).control, hz=2.0)
    with robot:
        assert gc.get_freeze_count() > 0
    assert gc.get_freeze_count() == 0


def test_a_stop_of_the_server_ends_with_the_robot_s_release(folder):
    control = read_bundle(folder).control
    with serving(folder) as port, RemoteController(f"ws://127.0.0.1:{port}", control, hz=2.0) as robot:
        while robot.step(np.zeros((16, 16, 3), np.uint8))[1].source != "stopped":  # blank frames
            pass
        assert robot.step(frame())[1].source == "stopped"
        robot.release()
        robot.reset()
        assert [robot.step(frame(t))[1].source for t in range(2)] == ["policy"] * 2


def test_the_robot_s_side_looks_at_a_frame_s_age_and_number(folder):
    control = replace(read_bundle(folder).control, limits=replace(read_bundle(folder).control.limits, max_age_s=0.2))
    with serving(folder) as port, RemoteController(f"ws://127.0.0.1:{port}", control, hz=2.0) as robot:
        assert robot.step(frame(0), time.monotonic(), 7)[1].observation == "ok"
        assert robot.step(frame(1), time.monotonic(), 7)[1].observation == "order"
        _, status = robot.step(frame(2), time.monotonic() - 60, 8)
        assert (status.observation, status.source) == ("age", "policy")  # the server predicts what is not seen
        assert "expected 0 to 0.2 s" in status.message
        assert robot.step(frame(3), time.monotonic(), 9)[1].observation == "ok"


@pytest.mark.parametrize("reply", [{"actions": [[1.0], [1.0, 2.0]]}, {"actions": [1], "status": 5}, {}])
def test_a_reply_that_is_none_is_lived_through(folder, monkeypatch, reply):
    control, answer = read_bundle(folder).control, Session.answer
    replies = iter([pack(reply)])
    with serving(folder) as port, RemoteController(f"ws://127.0.0.1:{port}", control, hz=2.0) as robot:
        monkeypatch.setattr(Session, "answer", lambda self, got: next(replies, None) or answer(self, got))
        sources = [robot.step(frame(t))[1].source for t in range(6)]
    assert sources[0] == "safe" and sources[-1] == "policy"


def test_the_command_says_when_it_is_ready(folder):
    command = [sys.executable, "-m", "trainers.serve", f"bundle={folder}", "port=0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        said = json.loads(process.stdout.readline())
        assert said["status"] == "ready" and said["port"] > 0
        connection, _ = client(said["port"])
        assert infer(connection, {"image": frame()})["status"]["source"] == "policy"
        connection.close()
    finally:
        process.terminate()
        rest, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and json.loads(rest.splitlines()[-1])["status"] == "stopped"
    assert time.monotonic() > 0


def test_a_silent_camera_is_bridged_as_by_a_controller_beside_the_robot(folder):
    control = replace(read_bundle(folder).control, limits=replace(read_bundle(folder).control.limits, missing=5))
    local = Controller(folder)
    seen = [None if 2 <= t < 6 else frame(t) for t in range(9)]
    with serving(folder) as port, RemoteController(f"ws://127.0.0.1:{port}", control, hz=2.0) as robot:
        for t, given in enumerate(seen):
            (action, status), (expected, here) = robot.step(given), local.step(given)
            np.testing.assert_array_equal(action, expected)
            assert (status.source, status.observation) == (here.source, here.observation), t


def test_a_camera_that_stays_away_stops_both_sides_until_a_release(folder):
    """The server gives up; a robot that asks its own side alone learns of it, and ends it there."""
    control = read_bundle(folder).control
    local, silent = Controller(folder), control.limits.missing + control.limits.faults + 2
    with serving(folder) as port, RemoteController(f"ws://127.0.0.1:{port}", control, hz=2.0) as robot:
        for t in range(2 + silent + 1):
            given = frame(t) if t < 2 or t == 2 + silent else None
            (action, status), (expected, here) = robot.step(given), local.step(given)
            np.testing.assert_array_equal(action, expected)
            assert (status.source, robot.stopped) == (here.source, local.stopped), t
        assert robot.stopped, "a frame does not end it"
        robot.release()
        local.release()
        assert not robot.stopped
        for t in range(3):
            (action, status), (expected, _) = robot.step(frame(t)), local.step(frame(t))
            np.testing.assert_array_equal(action, expected)
            assert (status.source, robot.stopped) == ("policy", False)


def test_a_robot_faster_than_its_server_is_refused(port, folder):
    control = read_bundle(folder).control
    with pytest.raises(DeviceDiffers, match="hz: expected at most the server's 5, got 20"):
        RemoteController(f"ws://127.0.0.1:{port}", control, hz=20.0)


def test_a_server_that_says_nothing_is_told(folder, monkeypatch):
    control = read_bundle(folder).control
    with serving(folder) as port, RemoteController(f"ws://127.0.0.1:{port}", control, hz=5.0) as robot:
        monkeypatch.setattr(Session, "answer", lambda self, got: time.sleep(1))
        assert robot.step(frame())[1].message.startswith("server: no reply in 1")  # 160 ms, of a period of 200


def test_the_robot_s_budget_is_the_caller_s(folder, monkeypatch):
    control = read_bundle(folder).control
    with serving(folder) as port, RemoteController(f"ws://127.0.0.1:{port}", control, hz=5.0, budget_s=0.9) as robot:
        monkeypatch.setattr(Session, "answer", lambda self, got: time.sleep(2))
        assert robot.budget_s == 0.9
        assert 800 < robot.step(frame())[1].latency_ms < 2000


@pytest.mark.parametrize(("wrong", "key"), [({"hz": 0.0}, "hz"), ({"hz": 5.0, "budget_s": -0.1}, "budget_s")])
def test_a_rate_that_cannot_be_is_refused(folder, wrong, key):
    with pytest.raises(BadValue, match=f"{key}: expected a finite number above 0"):
        RemoteController("ws://127.0.0.1:1", read_bundle(folder).control, **wrong)
