"""`data.pool=ray`: the pools of datamodules/envs with their workers on the machines of a Ray cluster.

Supervision is the same: what is lost with its machine is a Fault, and its worker starts where there is room.
"""

import socket
from typing import Any

from datamodules.envs import wire
from datamodules.envs.pool import EnvPool, VectorPool
from datamodules.envs.remote import Process, Remote, Trouble
from datamodules.ray_envs.cluster import connect
from datamodules.ray_envs.relay import Relay, Traffic


class RayWorker(Remote):
    """A worker on another machine; traffic: counts what goes there and back."""

    _process: Relay

    def __init__(self, *, traffic: Traffic, **facts: Any) -> None:
        self._traffic = traffic
        super().__init__(**facts)

    def _launch(self, far_end: socket.socket) -> Process:
        return Relay(connect(), far_end, self._memory_fd, self._traffic)

    def receive(self, deadline: float) -> wire.Reply:
        """As the local one's; says so where the cluster had no room for the worker."""
        try:
            return super().receive(deadline)
        except Trouble as trouble:
            if trouble.kind != "timeout" or self._process.opened:
                raise
            raise Trouble("timeout", "no machine of the Ray cluster had a free CPU and started it in time") from trouble

    def _death(self) -> Trouble:
        self._ended(0.5)
        return Trouble("death", self._process.why)


class _WorkersElsewhere:
    """What both pools do: their workers are RayWorkers, whose traffic they count."""

    def __init__(self, **options: Any) -> None:
        self._traffic = Traffic()
        super().__init__(**options)

    def traffic(self) -> dict[str, float]:
        return self._traffic.metrics()

    def _open_worker(self, **facts: Any) -> Remote:
        return RayWorker(traffic=self._traffic, **facts)


class RayEnvPool(_WorkersElsewhere, EnvPool):
    """A worker for each environment of the options, one CPU of the cluster each."""


class RayVectorPool(_WorkersElsewhere, VectorPool):
    """Lanes of a source in one worker, which has one CPU of the cluster."""
