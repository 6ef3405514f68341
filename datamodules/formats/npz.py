"""Folders of npz files, an episode each: the layout of Dreamer and of V-D4RL's 64-pixel data.

`<time>-<uuid>-<rows>.npz` holds image uint8 [T, h, w, C], action [T, A], reward, discount, is_first, is_last and
is_terminal [T]; action[t] led to image[t]. Also read: `observation` for image, `step_type` (0 first, 1 mid, 2 last)
for the flags, termination as discount 0 where is_terminal is missing, [T, C, h, w], folders within the folder.
"""

import io
import os
import re
import time
import uuid
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.formats.archive import Archive
from datamodules.formats.assemble import Convention, assemble, ends_by_termination, episodes, flags, require_spec
from datamodules.formats.guard import files_at, read_json, spec_from, write_json
from datamodules.formats.protocol import FormatError, Problem, in_short
from datamodules.storage.durable import write_atomic
from datamodules.trajectory import Trajectory, TrajectoryInvalid
from worldmodel.spec import EnvSpec

# beside the episodes: what their format has no place for
META = "worldmodel.json"
# unpacked episodes that wait for their turn
AHEAD_BYTES = 1 << 28
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_STAMP = "%Y%m%dT%H%M%SF%f"
_IMAGE_KEYS = ("image", "observation")
_FAILURES = (FormatError, TrajectoryInvalid, OSError, MemoryError)


def open_reader(
    path: Path,
    *,
    alignment: str = "",
    low: str = "",
    high: str = "",
    action_repeat: int = 0,
    task: str = "",
    image_key: str = "",
    threads: int = 0,
) -> "NpzReader":
    """Read the folder (or single file) at `path`; empty options are taken from what a writer left there, or guessed.

    alignment: arrival (default) or departure. low, high: bounds of the stored actions. threads: that unpack
    (0: as many as cores, 4 at most). Raises FormatError where nothing can be read, OSError.
    """
    root, files, problems = files_at(path, [".npz"])
    stored = _stored_spec(root)
    convention = Convention.parse(
        alignment=alignment or "arrival", low=low, high=high, action_repeat=action_repeat, stored=stored
    )
    return NpzReader(
        root,
        files,
        problems,
        convention=convention,
        task=task or path.resolve().name.removesuffix(".npz"),
        stored=replace(stored, task=task or stored.task) if stored else None,
        image_keys=(image_key,) if image_key else _IMAGE_KEYS,
        threads=threads or min(4, os.cpu_count() or 1),
    )


def open_writer(path: Path, spec: EnvSpec, *, compress: bool = True) -> "NpzWriter":
    """Write a folder of episodes at `path`, or add to one of the same spec; raises FormatError, OSError."""
    path.mkdir(parents=True, exist_ok=True)
    stored = _stored_spec(path)
    if stored is not None and not stored.agrees(spec):
        raise FormatError(f"{path}: expected the spec of the episodes there, {stored}, got {spec}")
    if stored is None:
        write_json(path / META, {"spec": spec.to_json()})
    return NpzWriter(path, compress=compress)


def _stored_spec(root: Path) -> EnvSpec | None:
    if not (root / META).exists():
        return None
    return spec_from(read_json(root, Path(META)).get("spec"), META)


class NpzReader:
    """The episodes of npz files in the order of their names; files are unpacked ahead in threads."""

    def __init__(
        self,
        root: Path,
        files: list[Path],
        problems: list[Problem],
        *,
        convention: Convention,
        task: str,
        stored: EnvSpec | None,
        image_keys: tuple[str, ...],
        threads: int,
    ) -> None:
        self._root, self._files, self._left_out = root, files, problems
        self._convention, self._image_keys, self._threads = convention, image_keys, threads
        self.problems = list(problems)
        self.spec = stored or self._guess_spec(task)

    def __len__(self) -> int:
        return len(self._files) + len(self._left_out)

    def _guess_spec(self, task: str) -> EnvSpec:
        reasons = [problem.reason for problem in self._left_out]
        for file in self._files:
            try:
                first = self._unpack(Archive(self._root, file))[0]
            except _FAILURES as error:
                reasons.append(str(error))
                continue
            named = [re.search(r"-(\d{1,9})\.npz$", other.name) for other in self._files]
            rows = max([len(first), *(int(match[1]) for match in named if match)])
            shape = first.pixels.shape[1:]
            repeat = self._convention.action_repeat
            steps = max(1, rows - 1) * repeat
            return EnvSpec(task, {"pixels": shape}, first.action.shape[1], action_repeat=repeat, episode_steps=steps)
        raise FormatError(f"{self._root}: expected a readable npz episode, got none: {in_short(reasons)}")

    def trajectories(self) -> Iterator[Trajectory]:
        """Every readable episode in the order of the file names; afterwards `problems` names the others."""
        self.problems[:] = self._left_out
        waiting: deque[tuple[Path, int, Future[list[Trajectory]]]] = deque()
        ahead = 0
        with ThreadPoolExecutor(self._threads) as pool:
            for file in self._files:
                try:
                    archive = Archive(self._root, file)
                except _FAILURES as error:
                    self._leave_out(file, error)
                    continue
                size = sum(member.unpacked for member in archive.members.values())
                while waiting and (ahead + size > AHEAD_BYTES or len(waiting) > 2 * self._threads):
                    ahead -= waiting[0][1]
                    yield from self._finish(*waiting.popleft())
                waiting.append((file, size, pool.submit(self._unpack, archive)))
                ahead += size
            while waiting:
                yield from self._finish(*waiting.popleft())

    def _finish(self, file: Path, size: int, unpacked: Future[list[Trajectory]]) -> Iterator[Trajectory]:
        try:
            found = unpacked.result()
            for trajectory in found:
                require_spec(self.spec, trajectory)
        except _FAILURES as error:
            self._leave_out(file, error)
            return
        yield from found

    def _leave_out(self, file: Path, error: Exception) -> None:
        self.problems.append(Problem(str(file), str(error) or type(error).__name__))

    def _unpack(self, archive: Archive) -> list[Trajectory]:
        image = next((key for key in self._image_keys if key in archive), None)
        if image is None:
            expected = " or ".join(self._image_keys)
            raise FormatError(f"{archive.name}: expected key {expected}, got {', '.join(archive.members)}")
        keys = (image, "action", "reward", "discount", "is_first", "is_last", "is_terminal", "step_type", "env_steps")
        arrays = {"pixels" if key == image else key: archive.read(key) for key in keys if key in archive}
        for key in ("action", "reward"):
            if key not in arrays:
                archive.read(key)  # raises with the keys that there are
        return self._split(archive.name, arrays)

    def _split(self, name: str, arrays: dict[str, NDArray[Any]]) -> list[Trajectory]:
        rows = len(arrays["pixels"]) if arrays["pixels"].ndim else 0
        for key, values in arrays.items():
            if values.ndim < 1 or len(values) != rows:
                raise FormatError(f"{name} {key}: expected {rows} rows as of pixels, got shape {values.shape}")
        first, terminal = flags(name, arrays, rows)
        parts = episodes(name, first)
        return [
            assemble(
                name if len(parts) == 1 else f"{name} row {part.start}",
                terminal=ends_by_termination(f"{name} is_terminal", terminal[part]),
                convention=self._convention,
                **{key: arrays[key][part] for key in ("pixels", "action", "reward", "env_steps") if key in arrays},
            )
            for part in parts
        ]

    def close(self) -> None:
        """Nothing is held open between two episodes."""


class NpzWriter:
    """One file an episode, each whole or not there; the names sort in the order of writing."""

    def __init__(self, folder: Path, *, compress: bool) -> None:
        self._folder, self._save = folder, np.savez_compressed if compress else np.savez
        # a clock that was set back must not put new episodes before old ones
        self._last = max([_microseconds(path.name) for path in folder.glob("*.npz")], default=0)

    def write(self, trajectory: Trajectory) -> None:
        """Add an episode, durable on return; raises TrajectoryInvalid, OSError."""
        trajectory.check()
        rows = len(trajectory)
        ends = np.arange(rows) == rows - 1
        terminal = ends & trajectory.terminal
        buffer = io.BytesIO()
        self._save(
            buffer,
            image=np.ascontiguousarray(trajectory.pixels.transpose(0, 2, 3, 1)),
            action=trajectory.action,
            reward=trajectory.reward,
            discount=1.0 - terminal.astype(np.float32),
            is_first=np.arange(rows) == 0,
            is_last=ends,
            is_terminal=terminal,
            env_steps=trajectory.env_steps,
        )
        self._last = max(time.time_ns() // 1000, self._last + 1)
        stamp = (_EPOCH + timedelta(microseconds=self._last)).strftime(_STAMP)
        write_atomic(self._folder / f"{stamp}-{uuid.uuid4().hex}-{rows}.npz", buffer.getvalue())

    def close(self) -> None:
        """Every episode is already on disk."""


def _microseconds(name: str) -> int:
    """The time in a file's name since 1970, 0 where it has none."""
    try:
        stamp = datetime.strptime(name.partition("-")[0], _STAMP).replace(tzinfo=UTC)
    except ValueError:
        return 0
    return (stamp - _EPOCH) // timedelta(microseconds=1)
