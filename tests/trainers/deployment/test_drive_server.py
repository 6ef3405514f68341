"""A server that is not there is told in one line."""

import threading

import pytest

from tests.rigs.tiny_bundle import tiny_bundle
from trainers.bundle.bundle import read_bundle
from trainers.command.configuration import BadConfig
from trainers.deployment.drive import _remote

pytest.importorskip("websockets")


@pytest.mark.parametrize("server", ["ws://localhost:1", "foo"])
def test_no_server_is_refused_by_its_key(tmp_path, server):
    control = read_bundle(tiny_bundle(tmp_path / "b", what="policy")).control
    with pytest.raises(BadConfig, match=f"server: expected ws://host:port of trainers.serve, got {server}"):
        _remote(server, control, 20.0, None)()


def test_another_kind_of_server_is_refused_by_its_key(tmp_path):
    from websockets.sync.server import serve

    control = read_bundle(tiny_bundle(tmp_path / "b", what="policy")).control
    with serve(lambda connection: connection.send("welcome"), "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        with pytest.raises(BadConfig, match=r"server: .* expected a message with observation and action"):
            _remote(address, control, 20.0, None)()
