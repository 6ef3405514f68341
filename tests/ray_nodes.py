"""A Ray cluster of this machine, each node with processes of its own, which one can kill."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from datamodules.ray_envs.cluster import connect, import_ray


class Nodes:
    """Nodes with one CPU each beside a head without any, on which nothing is placed."""

    def __init__(self, count: int) -> None:
        import_ray()
        from ray.cluster_utils import Cluster

        self._store = {"object_store_memory": 80 * 2**20}
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **self._store})
        self.nodes = [self.add() for _ in range(count)]

    def add(self) -> Any:
        return self.cluster.add_node(num_cpus=1, wait=True, **self._store)

    def kill(self, node: Any) -> None:
        """As when its machine loses power."""
        self.nodes.remove(node)
        self.cluster.remove_node(node, allow_graceful=False)


@contextmanager
def ray_nodes(count: int) -> Iterator[Nodes]:
    """This process, and those that it starts, connected to a cluster until the end."""
    nodes = Nodes(count)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RAY_ADDRESS", nodes.cluster.address)
            connect()
            yield nodes
    finally:
        import_ray().shutdown()
        nodes.cluster.shutdown()
