"""Which cluster a process is connected to."""

import sys

import pytest

from datamodules.envs.errors import MissingPackage
from datamodules.ray_envs.cluster import connect


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingPackage, match=r"pip install 'worldmodel\[ray\]'"):
        connect()
