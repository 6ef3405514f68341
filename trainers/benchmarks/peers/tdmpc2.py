"""TD-MPC2's whole update from pixels (5M preset, not compiled): its own `_update`, put on the CPU."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import nn

from trainers.benchmarks.peers.checkout import import_from

EXPERIMENT = "tdmpc2_shapes"
FRAMES = 3  # of a stack, one image of nine colours


def build(checkout: Path, *, action_dim: int, batch: int, length: int) -> tuple[Callable[[], object], int]:
    """An update on `batch` windows of noise, as many stacks as `length` rows hold, and its number of weights."""
    package = checkout / "tdmpc2"
    main, world_model, scale = import_from(package, "tdmpc2", "common.world_model", "common.scale")
    horizon = length - FRAMES
    options: Any = OmegaConf.load(package / "config.yaml")
    options.update(obs="rgb", obs_shape={"rgb": [3 * FRAMES, 64, 64]}, action_dim=action_dim, task_dim=0)
    options.update(multitask=False, episodic=False, batch_size=batch, horizon=horizon)
    options.bin_size = (options.vmax - options.vmin) / (options.num_bins - 1)

    agent, spread = _bare(main.TDMPC2), _bare(scale.RunningScale)  # their constructors name a GPU
    agent.cfg, agent.device, agent.discount = options, torch.device("cpu"), options.discount_max
    agent.model = world_model.WorldModel(options)
    learned = [*agent.model._encoder.parameters(), *agent.model._dynamics.parameters()]
    learned += [*agent.model._reward.parameters(), *agent.model._Qs.parameters()]
    agent.optim = torch.optim.Adam(learned, lr=options.lr)
    agent.pi_optim = torch.optim.Adam(agent.model._pi.parameters(), lr=options.lr, eps=1e-5)
    spread.cfg, spread.value, spread._percentiles = options, torch.ones(1), torch.tensor([5.0, 95.0])
    agent.scale = spread

    frames = torch.randint(0, 256, (horizon + 1, batch, 3 * FRAMES, 64, 64), dtype=torch.uint8)
    actions = torch.rand(horizon, batch, action_dim) * 2 - 1
    rewards, ended = torch.rand(horizon, batch, 1), torch.zeros(horizon, batch, 1)
    # the shape that its ensemble is evaluated in holds no numbers
    weights = sum(weight.numel() for weight in [*learned, *agent.model._pi.parameters()] if not weight.is_meta)
    return lambda: agent._update(frames, actions, rewards, ended), weights


def _bare(kind: type[nn.Module]) -> Any:
    module = kind.__new__(kind)
    nn.Module.__init__(module)
    return module
