"""Windows of episodes as a batch."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules.trajectory import Trajectory
from worldmodel.interfaces import Batch

Window = tuple[Trajectory, int, int]


def window_batch(windows: Sequence[Window]) -> Batch:
    """Windows (episode, start, stop), all of one length, as a batch [B, T] of the rows [start, stop)."""
    episodes = [episode for episode, _, _ in windows]

    def stacked(columns: Iterable[NDArray[Any]]) -> Tensor:
        pairs = zip(columns, windows, strict=True)
        return torch.from_numpy(np.stack([rows[start:stop] for rows, (_, start, stop) in pairs]))

    row = torch.stack([torch.arange(start, stop) for _, start, stop in windows])
    is_last = row == torch.tensor([[len(episode) - 1] for episode in episodes])
    names = episodes[0].observation
    return Batch(
        observation={name: stacked(episode.observation[name] for episode in episodes) for name in names},
        action=stacked(episode.action for episode in episodes),
        reward=stacked(episode.reward for episode in episodes),
        is_first=row == 0,
        is_last=is_last,
        is_terminal=is_last & torch.tensor([[episode.terminal] for episode in episodes]),
    )
