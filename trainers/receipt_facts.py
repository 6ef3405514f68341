"""What every receipt says, whatever the agent sees."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from trainers.metrics import bootstrap_ci95, iqm


def receipt_facts(
    config: dict[str, Any],
    returns: Sequence[float],
    *,
    seeds: Sequence[int],
    seed: int,
    env_steps: int,
    decisions: int,
    envs: int,
    device: torch.device,
    action_repeat: int,
) -> dict[str, Any]:
    """Returns of episodes opened by `seeds`, which come from `seed`, `envs` of them side by side; and by what agent."""
    return {
        "task": config["task"]["name"],
        "return_mean": float(np.mean(returns)),
        "return_ci95": list(bootstrap_ci95(returns)),
        "return_iqm": iqm(returns),
        "returns": list(returns),
        "episodes": len(returns),
        "episode_seeds": list(seeds),
        "seed": seed,
        "env_steps": env_steps,
        "decisions": decisions,
        "envs_per_decision": envs,
        "device": str(device),
        "threads": torch.get_num_threads(),
        "planner": config["planner"],
        "action_repeat": action_repeat,
    }
