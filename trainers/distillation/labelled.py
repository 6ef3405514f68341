"""Episodes with a teacher's labels: each a file of its own, written whole or not at all, and held in memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError

from datamodules.observation import Observation
from datamodules.storage.durable import retry, write_atomic
from worldmodel.distillation.planner_gaussian import PlannerTarget
from worldmodel.errors import UserError

HELD_OUT_EVERY = 10  # of this many episodes one is held out
SEEN = "observation/"


class LabelsDamaged(UserError, ValueError):
    """A file of labelled episodes that cannot be read."""


@dataclass(frozen=True, slots=True)
class LabelledEpisode:
    """One episode by arrival, as `datamodules.trajectory` has it, and what the teacher would do at every row."""

    observation: Observation  # by name [T ...]
    action: NDArray[np.float32]  # [T A], that led to each row
    mean: NDArray[np.float32]  # [T A], as `std` of the teacher's Gaussian, NaN where no decision was made
    std: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.action)

    @property
    def decisions(self) -> int:
        """Rows with a label."""
        return int(np.isfinite(self.mean).all(1).sum())


class LabelledEpisodes:
    """The labelled episodes of one task; one of every ten is held out, and never learned from.

    Args:
        folder: where their files are.
        count: how many of the files count, the later ones being those of a round that was broken off.

    Raises:
        LabelsDamaged: one of these files is missing or cannot be read.
    """

    def __init__(self, folder: Path, *, count: int = 0) -> None:
        self._folder = folder
        self.episodes = [_read(self._path(number)) for number in range(count)]

    def add(self, episode: LabelledEpisode) -> None:
        """Store one more, durable on return; raises OSError."""
        arrays = {SEEN + name: rows for name, rows in episode.observation.items()}
        arrays |= {"action": episode.action, "mean": episode.mean, "std": episode.std}
        content = safetensors.numpy.save({name: np.ascontiguousarray(rows) for name, rows in arrays.items()})
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._path(len(self.episodes))
        retry(lambda: write_atomic(path, content))
        self.episodes.append(episode)

    @property
    def decisions(self) -> int:
        """Labels, held out or not."""
        return sum(episode.decisions for episode in self.episodes)

    def learned(self) -> list[LabelledEpisode]:
        """Those that are learned from."""
        return [e for number, e in enumerate(self.episodes) if number % HELD_OUT_EVERY != 1]

    def held_out(self) -> list[LabelledEpisode]:
        """Those that measure; the only one there is does both."""
        return [e for number, e in enumerate(self.episodes) if number % HELD_OUT_EVERY == 1] or self.episodes[:1]

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:06d}.safetensors"


@dataclass(frozen=True, slots=True)
class LabelledRows:
    """Windows of labelled episodes as tensors: observation by name [B T ...], action [B T A], is_first [B T]."""

    observation: Mapping[str, torch.Tensor]
    action: torch.Tensor
    is_first: torch.Tensor
    target: PlannerTarget

    def to(self, device: torch.device) -> "LabelledRows":
        """The same on another device."""
        seen = {name: rows.to(device) for name, rows in self.observation.items()}
        target = PlannerTarget(self.target.mean.to(device), self.target.std.to(device))
        return LabelledRows(seen, self.action.to(device), self.is_first.to(device), target)


def sample(episodes: Sequence[LabelledEpisode], *, windows: int, length: int, rng: np.random.Generator) -> LabelledRows:
    """Windows of at most `length` rows, each row of the episodes equally likely to be in one of them.

    A window may hang over both ends of an episode by padding without labels.
    """
    # every window that has a row of the episode is equally likely: each row is in `length` of them
    starts_of = np.array([len(episode) + length - 1 for episode in episodes])
    picks = rng.choice(len(episodes), windows, p=starts_of / starts_of.sum())
    starts = [int(rng.integers(starts_of[i])) - length + 1 for i in picks]
    return batch_of([(episodes[i], start) for i, start in zip(picks, starts, strict=True)], length=length)


def evenly(episodes: Sequence[LabelledEpisode], *, windows: int, length: int) -> LabelledRows:
    """At most `windows` windows that are spread evenly over the episodes."""
    starts = [(e, start) for e in episodes for start in range(0, max(len(e) - 2, 1), length)]
    places = np.unique(np.linspace(0, len(starts) - 1, min(windows, len(starts))).round().astype(int))
    return batch_of([starts[i] for i in places], length=length)


def batch_of(windows: Sequence[tuple[LabelledEpisode, int]], *, length: int) -> LabelledRows:
    """Windows (episode, first row) as rows [B length], with zeros and no labels beyond an episode's end.

    A first row below 0 takes from the window's rows, which begin with the episode.
    """
    cuts = [(episode, slice(max(start, 0), start + length)) for episode, start in windows]

    def stacked(columns: Sequence[NDArray[Any]], fill: float = 0) -> torch.Tensor:
        out = np.full((len(columns), length, *columns[0].shape[1:]), fill, columns[0].dtype)
        for row, (_, cut), column in zip(out, cuts, columns, strict=True):
            part = column[cut]
            row[: len(part)] = part
        return torch.from_numpy(out)

    is_first = torch.zeros(len(windows), length, dtype=torch.bool)
    is_first[:, 0] = torch.tensor([start <= 0 for _, start in windows])
    seen = {name: stacked([e.observation[name] for e, _ in windows]) for name in windows[0][0].observation}
    mean, std = stacked([e.mean for e, _ in windows], np.nan), stacked([e.std for e, _ in windows], np.nan)
    return LabelledRows(seen, stacked([e.action for e, _ in windows]), is_first, PlannerTarget(mean, std))


def _read(path: Path) -> LabelledEpisode:
    try:
        arrays: Mapping[str, NDArray[Any]] = safetensors.numpy.load(path.read_bytes())
        seen = {name.removeprefix(SEEN): rows for name, rows in arrays.items() if name.startswith(SEEN)}
        return LabelledEpisode(seen, arrays["action"], arrays["mean"], arrays["std"])
    except (OSError, SafetensorError, KeyError) as error:
        raise LabelsDamaged(f"{path}: expected a labelled episode, got {error}") from error
