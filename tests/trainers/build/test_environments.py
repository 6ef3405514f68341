"""Which pool a configuration opens."""

import pytest

from datamodules.envs.pool import EnvPool, VectorPool
from datamodules.ray_envs.pool import RayEnvPool, RayVectorPool
from trainers.build.environments import open_pool
from trainers.command.configuration import BadConfig
from trainers.command.preflight import check


@pytest.mark.parametrize(
    ("source", "where", "expected"),
    [
        ("toy", {}, EnvPool),  # of a configuration that is older than the key
        ("toy", {"pool": "local"}, EnvPool),
        ("vector", {"pool": "local"}, VectorPool),
        ("toy", {"pool": "ray"}, RayEnvPool),
        ("vector", {"pool": "ray"}, RayVectorPool),
    ],
)
def test_the_pool_is_the_one_of_the_place(monkeypatch, source, where, expected):
    opened = []

    def note(pool, **options):
        opened.append((type(pool), options["kwargs"]))
        pool.notes, pool.spec, pool.renderer, pool._envs = (), None, "none", []

    for kind in (EnvPool, VectorPool, RayEnvPool, RayVectorPool):
        monkeypatch.setattr(kind, "__init__", note)
        monkeypatch.setattr(kind, "close", lambda pool: None)
    open_pool({"task": {"source": source, "name": "x", "env": {"size": 32}}, "data": where}, 1)
    assert opened == [(expected, {"size": 32})]


def test_another_place_is_refused():
    with pytest.raises(BadConfig, match=r"data.pool: expected local or ray"):
        check({"data": {"pool": "moon"}})
