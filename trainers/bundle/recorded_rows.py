"""Rows that exported programs are compared on: recorded frames of a run, or noise where a run keeps none."""

from collections import deque
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from datamodules.formats.protocol import FormatError
from datamodules.formats.uri import open_reader
from trainers.command.configuration import BadConfig
from worldmodel.spec import INTERFACE, EnvSpec, require_same


@dataclass(frozen=True, slots=True)
class Row:
    """One row by arrival: observations [1 ...], the action [1 A] that led to it, and whether it opens an episode."""

    observation: dict[str, Tensor]
    action: Tensor
    is_first: Tensor


def newest_rows(uri: str | None, spec: EnvSpec, *, count: int) -> list[Row]:
    """The last `count` rows of recorded episodes, [] without any."""
    return [] if uri is None or count == 0 else list(deque(_recorded(uri, spec), maxlen=count))


def recorded_rows(uri: str | None, spec: EnvSpec, *, count: int) -> tuple[list[Row], str]:
    """The first `count` recorded rows, or as many as there are, and where they are from: "recorded" or "noise".

    spec: what they must show.
    """
    rows = [] if uri is None else list(islice(_recorded(uri, spec), count))
    return (rows, "recorded") if rows else (list(islice(_noise(spec), count)), "noise")


def _recorded(uri: str, spec: EnvSpec) -> Iterator[Row]:
    try:
        with closing(open_reader(uri)) as reader:
            require_same(spec, reader.spec, INTERFACE, key="data", told="as in training")
            for episode in reader.trajectories():
                for t in range(len(episode)):
                    parts = {
                        name: torch.from_numpy(rows[t : t + 1].copy()) for name, rows in episode.observation.items()
                    }
                    yield Row(parts, torch.from_numpy(episode.action[t : t + 1].copy()), torch.tensor([t == 0]))
    except FormatError as error:
        raise BadConfig(f"data: {error}") from error


def _noise(spec: EnvSpec) -> Iterator[Row]:
    rng, first = np.random.default_rng(0), True
    while True:
        images = {name: rng.integers(0, 256, (1, *shape), np.uint8) for name, shape in spec.images.items()}
        vectors = {name: rng.standard_normal((1, size), np.float32) for name, size in spec.vectors.items()}
        action = rng.uniform(-1, 1, (1, spec.action_dim)).astype(np.float32) * (not first)
        parts = {name: torch.from_numpy(part) for name, part in {**images, **vectors}.items()}
        yield Row(parts, torch.from_numpy(action), torch.tensor([first]))
        first = False
