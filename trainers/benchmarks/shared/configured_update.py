"""One update of a configured agent, as a call."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from trainers.benchmarks.shared.options import configuration
from trainers.benchmarks.shared.timing import random_batch, synthetic_spec, training_step
from trainers.build.agent import build_agent
from trainers.training.module import WorldModelModule


@dataclass(frozen=True, slots=True)
class Update:
    """Losses, backward, clip and optimiser on one batch of noise."""

    call: Callable[[], None]
    params: int  # trainable ones
    rows: tuple[int, int]  # windows, and rows of a window
    pixels: tuple[int, int, int]  # (c, h, w) of a frame
    precision: str  # of its products


def configured_update(overrides: list[str], *, action_dim: int) -> Update:
    """The update that a run with these overrides makes on a CPU."""
    config = configuration(overrides)
    spec = synthetic_spec(config, action_dim=action_dim)
    agent = build_agent(config, spec)
    update = training_step(config, WorldModelModule.of(config, agent), torch.device("cpu"))
    rows = config["data"]["batch"], config["data"]["length"]
    batch = random_batch(spec, *rows)
    return Update(
        call=lambda: update(batch),
        params=sum(p.numel() for p in agent.parameters() if p.requires_grad),
        rows=rows,
        pixels=spec.images["pixels"],
        precision=config["trainer"]["precision"],
    )
