"""Model predictive control of a dm_control task by a planner that knows the true dynamics."""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from worldmodel.interfaces import Planner


@dataclass(frozen=True, slots=True)
class Controlled:
    """What one episode brought."""

    total_return: float
    decision_ms: float  # median


def control(
    model: Any, planner: Planner, *, domain: str, task: str, seed: int, control_steps: int = 1000
) -> Controlled:
    """Play `control_steps` of the suite's task, planning from its physics before every decision."""
    from dm_control import suite

    environment = suite.load(domain, task, task_kwargs={"random": seed})
    environment.reset()
    generator = torch.Generator().manual_seed(seed)
    total, warm, seconds = 0.0, None, []
    for _ in range(control_steps // model.repeat):
        latent = model.observe(environment.physics)
        start = time.perf_counter()
        plan = planner.plan(model, latent, warm=warm, generator=generator)
        seconds.append(time.perf_counter() - start)
        warm = torch.cat([plan.mean[:, 1:], plan.mean[:, -1:]], 1)
        for _ in range(model.repeat):
            total += environment.step(plan.action[0].double().numpy()).reward or 0.0
    environment.close()
    return Controlled(total, float(1e3 * np.median(seconds)))
