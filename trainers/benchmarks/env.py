"""Decisions per second of environments with rendering, through their workers (default action repeat 2)."""

import time
from typing import Any

import numpy as np

from datamodules.envs.pool import episode_seed
from datamodules.envs.protocol import Fault
from trainers.build.environments import open_pool
from trainers.command.configuration import load_config


def measure(overrides: list[str], *, repeats: int = 1500, envs: int = 1) -> dict[str, Any]:
    """Decisions per second of a pool, random actions, the first episode not counted."""
    config = load_config(["task.env.action_repeat=2", *overrides] if not _has_task(overrides) else overrides)
    rng = np.random.default_rng(0)
    with open_pool(config, envs) as pool:
        seeds = {i: episode_seed(0, 0, i, 0) for i in range(envs)}
        actions = rng.uniform(-1, 1, (repeats, envs, pool.spec.action_dim)).astype(np.float32)
        _steps(pool, seeds, actions[:50])
        start = time.perf_counter()
        env_steps = _steps(pool, seeds, actions)
        seconds = time.perf_counter() - start
        spec = pool.spec
    return {
        "task": spec.task,
        "decisions_per_s": repeats * envs / seconds,
        "env_steps_per_s": env_steps / seconds,
        "action_repeat": spec.action_repeat,
        "look": spec.look,
        "backend": spec.backend,
        "envs": envs,
    }


def _steps(pool: Any, seeds: dict[int, int], actions: Any) -> int:
    """Step all environments through the actions, resetting at every end; returns the env_steps."""
    pool.reset(seeds)
    total = 0
    for row in actions:
        arrived = pool.step(dict(enumerate(row)))
        ended = {}
        for index, step in arrived.items():
            if isinstance(step, Fault):
                raise RuntimeError(f"worker {index}: {step.kind}: {step.message}")
            total += step.env_steps
            if step.is_last:
                ended[index] = seeds[index]
        if ended:
            pool.reset(ended)
    return total


def _has_task(overrides: list[str]) -> bool:
    return any(text.startswith(("task=", "experiment=", "task.env.action_repeat=")) for text in overrides)
