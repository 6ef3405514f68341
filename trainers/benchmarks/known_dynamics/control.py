"""Model predictive control of a dm_control task by a planner that knows the true dynamics."""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from worldmodel.interfaces import Planner


@dataclass(frozen=True, slots=True)
class Controlled:
    """What one episode brought; its actions [T, A], each held for `model.repeat` control steps, play it again."""

    total_return: float
    decision_ms: float  # median
    actions: NDArray[np.float32]


def control(
    model: Any,
    planner: Planner,
    *,
    domain: str,
    task: str,
    seed: int,
    noise_std: float | None = None,
    control_steps: int = 1000,
) -> Controlled:
    """Play `control_steps` of the suite's task, planning from its physics before every decision.

    noise_std: of Gaussian noise added to what is planned, then clipped; the planner sees where it led.
    """
    from dm_control import suite

    environment = suite.load(domain, task, task_kwargs={"random": seed})
    environment.reset()
    generator = torch.Generator().manual_seed(seed)
    total, warm, seconds, played = 0.0, None, [], []
    for _ in range(control_steps // model.repeat):
        latent = model.observe(environment.physics)
        start = time.perf_counter()
        plan = planner.plan(model, latent, warm=warm, generator=generator)
        seconds.append(time.perf_counter() - start)
        warm = torch.cat([plan.mean[:, 1:], plan.mean[:, -1:]], 1)
        action = plan.action[0]
        if noise_std is not None:
            action = (action.float() + noise_std * torch.randn(len(action), generator=generator)).clamp(-1, 1)
        played.append(action.float().numpy())
        for _ in range(model.repeat):
            total += environment.step(action.double().numpy()).reward or 0.0
    environment.close()
    return Controlled(float(total), float(1e3 * np.median(seconds)), np.stack(played))
