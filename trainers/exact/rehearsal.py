"""What a planner that knows the true dynamics does in an episode: actions that can be played again from its seed."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from worldmodel.interfaces import Planner


def rehearse(
    model: Any,
    planner: Planner,
    *,
    domain: str,
    task: str,
    seed: int,
    noise_std: float = 0.0,
    control_steps: int = 1000,
) -> NDArray[np.float32]:
    """Actions [T, A] of `control_steps` control steps of the suite's task, each held for `model.repeat` of them.

    noise_std: of Gaussian noise added to what is planned, then clipped; the planner sees where it led.
    """
    from dm_control import suite

    environment = suite.load(domain, task, task_kwargs={"random": seed})
    environment.reset()
    generator = torch.Generator().manual_seed(seed)
    warm, played = None, []
    for _ in range(control_steps // model.repeat):
        plan = planner.plan(model, model.observe(environment.physics), warm=warm, generator=generator)
        warm = torch.cat([plan.mean[:, 1:], plan.mean[:, -1:]], 1)
        noise = noise_std * torch.randn(plan.action.shape[1], generator=generator)
        action = (plan.action[0].float() + noise).clamp(-1, 1).numpy()
        played.append(action)
        for _ in range(model.repeat):
            environment.step(action)
    environment.close()
    return np.stack(played)
