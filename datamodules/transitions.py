"""The data D = {(s, a, s', r)} of Algorithms 23 to 25: whole episodes of states, small enough for a checkpoint."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray

from worldmodel.interfaces import Transitions

# a length, so that Lightning fetches each batch when it is needed
ENDLESS = 2**40


@dataclass(frozen=True, slots=True)
class StateEpisode:
    """One whole episode of T decisions: states [T + 1, D], actions and rewards [T, ...] in the order they were taken.

    promised: for every decision at which there was a new plan, its number and the return that the plan predicts.
    """

    state: NDArray[np.float32]
    action: NDArray[np.float32]
    reward: NDArray[np.float32]
    env_steps: int
    seed: int
    promised: tuple[tuple[int, float], ...] = ()

    @property
    def total_return(self) -> float:
        """The undiscounted return."""
        return float(self.reward.sum(dtype=np.float64))


class TransitionSet:
    """Episodes that are only ever added to, and uniform batches of their transitions."""

    def __init__(self, *, seed: int) -> None:
        self.episodes: list[StateEpisode] = []
        self._rng = np.random.default_rng(seed)
        self._all: Transitions | None = None

    def __len__(self) -> int:
        return sum(len(episode.reward) for episode in self.episodes)

    def add(self, episodes: Sequence[StateEpisode]) -> None:
        """Append episodes."""
        self.episodes += episodes
        self._all = None

    def all(self) -> Transitions:
        """Every transition [R], oldest first."""
        if self._all is None:
            self._all = transitions(self.episodes)
        return self._all

    def sample(self, batch: int) -> Transitions:
        """Transitions [batch] drawn with replacement."""
        return self.all().rows(torch.from_numpy(self._rng.integers(len(self), size=batch)))

    def state_dict(self) -> dict[str, Any]:
        """All episodes, and where the draws stand."""
        fields = [
            {"state": e.state, "action": e.action, "reward": e.reward, "env_steps": e.env_steps, "seed": e.seed}
            for e in self.episodes
        ]
        return {"episodes": fields, "rng": self._rng.bit_generator.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`."""
        self.episodes, self._all = [StateEpisode(**fields) for fields in state["episodes"]], None
        self._rng.bit_generator.state = state["rng"]


def transitions(episodes: Sequence[StateEpisode]) -> Transitions:
    """The transitions [R] of episodes, none of which crosses an episode's end."""
    columns = (
        [e.state[:-1] for e in episodes],
        [e.action for e in episodes],
        [e.state[1:] for e in episodes],
        [e.reward for e in episodes],
    )
    return Transitions(*(torch.from_numpy(np.concatenate(parts)) for parts in columns))


class Draws:
    """An endless iterable of batches: what was collected a moment ago can already be in the next."""

    def __init__(self, data: TransitionSet, batch: int) -> None:
        self._data, self._batch = data, batch

    def __len__(self) -> int:
        return ENDLESS

    def __iter__(self) -> Iterator[Transitions]:
        while True:
            yield self._data.sample(self._batch)


class StateData(pl.LightningDataModule):
    """Batches of transitions for the learner; every one is drawn when it is needed, so nothing is ever ahead."""

    def __init__(self, data: TransitionSet, *, batch: int) -> None:
        super().__init__()
        self.data, self.batch = data, batch

    def train_dataloader(self) -> Draws:
        """Batches for the learner."""
        return Draws(self.data, self.batch)

    def transfer_batch_to_device(self, batch: Transitions, device: torch.device, dataloader_idx: int) -> Transitions:
        """All columns."""
        return batch.to(device)

    def prepare(self) -> None:
        """Nothing: a draw costs microseconds."""

    def put_back(self) -> None:
        """Nothing is ahead."""

    def feedback(self, batch: Transitions, error: torch.Tensor | None) -> None:
        """Draws are uniform, whatever the errors."""
