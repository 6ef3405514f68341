"""Decisions per second of environments with rendering, through their workers (default action repeat 2)."""

import time
from typing import Any

import numpy as np

from trainers.benchmarks.shared.timing import playing
from trainers.build.environments import open_pool
from trainers.command.configuration import load_config


def measure(overrides: list[str], *, repeats: int = 1500, envs: int = 1) -> dict[str, Any]:
    """Decisions per second of a pool, random actions, the first episode not counted."""
    chosen = any(text.startswith(("task=", "experiment=", "task.env.action_repeat=")) for text in overrides)
    config = load_config(overrides if chosen else ["task.env.action_repeat=2", *overrides])
    rng = np.random.default_rng(0)
    with open_pool(config, envs) as pool:
        actions = rng.uniform(-1, 1, (repeats, envs, pool.spec.action_dim)).astype(np.float32)
        warm_up = playing(pool, range(envs))
        for row in actions[:50]:
            warm_up(row)
        start = time.perf_counter()
        play = playing(pool, range(envs))
        env_steps = sum(step.env_steps for row in actions for step in play(row))
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
