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
    main, world_model = import_from(package, "tdmpc2", "common.world_model")
    horizon = length - FRAMES
    options: Any = OmegaConf.load(package / "config.yaml")
    options.update(obs="rgb", obs_shape={"rgb": [3 * FRAMES, 64, 64]}, action_dim=action_dim, task_dim=0)
    options.update(multitask=False, episodic=False, batch_size=batch, horizon=horizon)
    options.bin_size = (options.vmax - options.vmin) / (options.num_bins - 1)

    agent = main.TDMPC2.__new__(main.TDMPC2)  # its constructor names a GPU
    nn.Module.__init__(agent)
    agent.cfg, agent.device, agent.discount = options, torch.device("cpu"), options.discount_max
    agent.model = world_model.WorldModel(options)
    learned = [*agent.model._encoder.parameters(), *agent.model._dynamics.parameters()]
    learned += [*agent.model._reward.parameters(), *agent.model._Qs.parameters()]
    agent.optim = torch.optim.Adam(learned, lr=options.lr)
    agent.pi_optim = torch.optim.Adam(agent.model._pi.parameters(), lr=options.lr, eps=1e-5)
    agent.scale = Spread(options.tau)

    frames = torch.randint(0, 256, (horizon + 1, batch, 3 * FRAMES, 64, 64), dtype=torch.uint8)
    actions = torch.rand(horizon, batch, action_dim) * 2 - 1
    rewards, ended = torch.rand(horizon, batch, 1), torch.zeros(horizon, batch, 1)
    # the shape that its ensemble is evaluated in holds no numbers
    weights = sum(weight.numel() for weight in [*learned, *agent.model._pi.parameters()] if not weight.is_meta)
    return lambda: agent._update(frames, actions, rewards, ended), weights


class Spread(nn.Module):
    """Its running range of values between the 5th and the 95th percentile, which it keeps on a GPU."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate, self.value = rate, torch.ones(1)

    def update(self, values: torch.Tensor) -> None:
        """Move towards the range of these."""
        low, high = torch.quantile(values.detach().flatten(), torch.tensor([0.05, 0.95]))
        self.value = torch.lerp(self.value, (high - low).clamp_min(1), self.rate)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Values in units of the range."""
        return values / self.value
