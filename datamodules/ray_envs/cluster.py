"""The Ray cluster that this process is connected to; nothing else here imports Ray."""

import os
import signal
import threading
from types import ModuleType

from datamodules.envs.errors import MissingPackage
from worldmodel.errors import UserError

# what a process says to Ray before it is imported; rows and exit codes need no room in the object store
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES": str(100 * 2**20),
}


class NoCluster(UserError, ConnectionError):
    """Ray finds no cluster where it was told to look."""


def import_ray() -> ModuleType:
    """Ray, which reports no usage; raises MissingPackage."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        raise MissingPackage("Ray is not installed: run `pip install 'worldmodel[ray]'`") from error
    return ray


def connect() -> ModuleType:
    """Ray, connected to the cluster at RAY_ADDRESS, else to this machine's, else to one started for this process.

    Raises:
        MissingPackage: Ray is not installed.
        NoCluster: there is none at RAY_ADDRESS.
    """
    ray = import_ray()
    if ray.is_initialized():
        return ray
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level="error")
    except ConnectionError as error:
        raise NoCluster(
            f"RAY_ADDRESS: expected the address of a Ray cluster, got {os.environ.get('RAY_ADDRESS')!r}"
        ) from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)  # which Ray has replaced
    return ray
