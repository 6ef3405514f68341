"""What Algorithms 23 to 25 do beside the loop of Algorithm 26, for dynamics whose state is observed."""

from collections.abc import Sequence

import torch

from datamodules.replay import Replay
from trainers.process.distributed import broadcast_from_rank_zero
from trainers.training.module import WorldModelModule
from worldmodel.agents.latent_mpc import LatentMPC
from worldmodel.capabilities import FitsAtOnce, MeasuresSteps


def fit_at_once(module: WorldModelModule, replay: Replay) -> None:
    """What dynamics take from all transitions before a round of updates; all ranks take rank 0's."""
    dynamics = module.agent.dynamics
    if isinstance(dynamics, FitsAtOnce) and isinstance(dynamics, torch.nn.Module):
        module.agent.fit_at_once(replay.every(2).to(module.device))
        for tensor in (*dynamics.parameters(), *dynamics.buffers()):
            broadcast_from_rank_zero(tensor.data)


def distribution_shift(agent: LatentMPC, replay: Replay, first: Sequence[int]) -> dict[str, float]:
    """`error/data` on the transitions that a model learned from, `error/own` on those that its plans then led to.

    Nothing where its dynamics cannot tell. first: of each stream, the number of the first row that is not learned from.
    """
    if not isinstance(agent.dynamics, MeasuresSteps):
        return {}
    rows = replay.every(2)
    assert rows.windows is not None
    new = rows.windows[:, 2] >= torch.tensor(first)[rows.windows[:, 1]]
    parts = {"error/data": rows.select(~new), "error/own": rows.select(new)}
    device = next(agent.parameters()).device
    batches = {name: part.to(device) for name, part in parts.items() if len(part.reward)}
    with torch.no_grad():
        return {name: float(agent.dynamics.one_step_error(agent.embed(b), b)) for name, b in batches.items()}
