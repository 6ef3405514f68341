"""Visual options of lanes: each lane's rows go through wrappers of its own."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from datamodules.envs.errors import BadOption
from datamodules.envs.protocol import Env, Lanes, Step
from worldmodel.spec import EnvSpec


class _Lane:
    """One lane as an environment: a call hands on the row that has arrived already."""

    row: Step

    def __init__(self, spec: EnvSpec) -> None:
        self.spec = spec

    def reset(self, seed: int) -> Step:
        """The opening row."""
        return self.row

    def step(self, action: NDArray[np.float32]) -> Step:
        """The next row."""
        return self.row

    def close(self) -> None:
        """The lanes are closed together."""


class SeenLanes:
    """`lanes`, each behind `see(env)`; raises BadOption for an option that steps on its own account."""

    def __init__(self, lanes: Lanes, count: int, see: Callable[[Env], Env]) -> None:
        self._lanes = lanes
        self._rows = [_Lane(lanes.spec) for _ in range(count)]
        self._envs = [see(row) for row in self._rows]
        self.spec = self._envs[0].spec
        if self.spec.action_repeat != lanes.spec.action_repeat:
            raise BadOption("visuals.action_repeat: expected none with lanes, task.env.action_repeat repeats")

    def reset(self, seeds: dict[int, int]) -> dict[int, Step]:
        """Open an episode in each lane of {lane: seed}."""
        arrived = self._lanes.reset(seeds)
        return {lane: self._seen(lane, row).reset(seeds[lane]) for lane, row in arrived.items()}

    def step(self, actions: dict[int, NDArray[np.float32]]) -> dict[int, Step]:
        """Advance {lane: action [A]}."""
        arrived = self._lanes.step(actions)
        return {lane: self._seen(lane, row).step(actions[lane]) for lane, row in arrived.items()}

    def render(self, lane: int, size: int) -> NDArray[np.uint8]:
        """Draw `lane` as uint8 [size, size, 3], without the options."""
        return self._lanes.render(lane, size)

    def close(self) -> None:
        """Close the lanes."""
        self._lanes.close()

    def _seen(self, lane: int, row: Step) -> Env:
        self._rows[lane].row = row
        return self._envs[lane]
