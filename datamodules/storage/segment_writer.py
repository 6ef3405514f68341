"""Whole trajectories into a segment folder: the fast way in for data that was recorded elsewhere."""

from pathlib import Path
from typing import Self

import numpy as np

from datamodules.observation import join_images
from datamodules.storage.folder import ReplayFolder
from datamodules.storage.log_format import Block, Kind
from datamodules.storage.rows import FRAMES, VECTOR, ReplayMismatch, columns, encode
from datamodules.trajectory import Trajectory
from worldmodel.spec import EnvSpec

BLOCK_ROWS = 128  # what one damaged bit costs
SEGMENT_BYTES = 1 << 26


class SegmentWriter:
    """Appends episodes to the one stream of a segment folder, which `Recorded` and `Replay` read.

    episodes, rows: written so far, earlier ones of the folder included. Blocks become durable when a segment is full,
    and on `close`; after a crash the whole blocks are read and a half-written episode is dropped when writing goes on.
    Raises ReplayMismatch where the folder is in use or holds other rows, and OSError: then open a new writer.
    """

    def __init__(self, folder: Path, spec: EnvSpec) -> None:
        self.spec = spec
        self._folder = ReplayFolder(folder, spec, streams=1)
        self._log = self._folder.log(0, segment_bytes=SEGMENT_BYTES)
        self.episodes = self.rows = self._env_steps = 0
        self._half_rows = 0  # of an episode that was not finished
        self._failed = False
        try:
            self._recover()
        except (OSError, ReplayMismatch):
            self._folder.close()
            raise

    def _recover(self) -> None:
        self._log.recover(self._visit)
        self._folder.recovered()
        if self._half_rows:
            self._log.append(Block(Kind.DROP, self._log.blocks, self._log.rows, self._half_rows, *self._totals()))

    def _visit(self, block: Block, path: Path, begin: int) -> None:
        ended = block.episodes > self.episodes
        rows = 0 if block.kind is Kind.DROP else self._half_rows + (block.rows if block.kind is Kind.ROWS else 0)
        self.rows, self._half_rows = (self.rows + rows, 0) if ended else (self.rows, rows)
        self._env_steps, self.episodes = block.env_steps, block.episodes

    def _totals(self) -> tuple[int, int]:
        return self._env_steps, self.episodes

    def write(self, trajectory: Trajectory) -> None:
        """Append an episode; raises TrajectoryInvalid (nothing is written then) and OSError."""
        trajectory.check()
        trajectory.require(self.spec)
        if self._failed:
            raise OSError(f"{self._folder.path}: an earlier write failed, open the folder again to go on")
        self._failed = True
        for start in range(0, len(trajectory), BLOCK_ROWS):
            self._append(trajectory, start, min(start + BLOCK_ROWS, len(trajectory)))
        self._failed = False
        self.rows += len(trajectory)

    def _append(self, trajectory: Trajectory, start: int, stop: int) -> None:
        last = stop == len(trajectory)
        flags = {name: np.zeros(stop - start, np.bool_) for name in ("is_first", "is_last", "is_terminal")}
        flags["is_first"][0] = start == 0
        flags["is_last"][-1], flags["is_terminal"][-1] = last, last and trajectory.terminal
        rows = slice(start, stop)
        fields = flags | {name: getattr(trajectory, name)[rows] for name in ("action", "reward", "env_steps")}
        observation = {name: values[rows] for name, values in trajectory.observation.items()}
        fields[FRAMES] = join_images(self.spec, observation, (stop - start,))
        fields |= {VECTOR + name: observation[name] for name in self.spec.vectors}
        # a view of the trajectory where it is contiguous: frames go to the file without a copy
        parts = encode(fields[name] for name in columns(self.spec))
        self._env_steps += int(fields["env_steps"].sum())
        self.episodes += last
        self._log.append(Block(Kind.ROWS, self._log.blocks, self._log.rows, stop - start, *self._totals()), parts)

    def close(self) -> None:
        """Make everything durable and let go of the folder; raises OSError."""
        try:
            self._log.sync()
        finally:
            self._folder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
