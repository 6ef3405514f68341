"""Pools of counting environments, and their processes looked at from outside."""

import time
from pathlib import Path

import numpy as np

from datamodules.envs.pool import EnvPool

ROOT = Path(__file__).parents[3]
ACTION = np.array([0.5, 0.0], np.float32)


def counters(count=1, *, options=None, **kwargs):
    """A pool of counting environments."""
    return EnvPool(source="counting", kwargs={"episode_steps": 8, **(options or {})}, count=count, **kwargs)


def alive(pid):
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition, seconds=60.0):
    """Whether `condition` became true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not condition():
        time.sleep(0.01)
    return condition()
