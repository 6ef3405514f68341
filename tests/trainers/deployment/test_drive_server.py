"""A server that is not there is told in one line."""

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
        _remote(server, control, 20.0)()
