"""Folders of npz files: an episode each, as Dreamer, DreamerV2 and V-D4RL have them, or DreamerV3's chunks of a stream.

`<time>-<uuid>-<rows>.npz` holds image uint8 [T, h, w, C], action [T, A], reward, discount, is_first, is_last and
is_terminal [T]; action[t] led to image[t]. Also read: every name in assemble.FIELDS, step_type (0 first, 1 mid, 2 last)
for the flags, [T, C, h, w], folders within the folder, several episodes in one file.
`<time>-<uuid>-<next uuid>-<rows>.npz` is a chunk of DreamerV3's replay: an episode goes on in the file that it names.
There action[t] was taken at image[t], while reward and flags arrived with it: ?actions=departure.
"""

import io
import os
import re
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.formats.archive import Archive
from datamodules.formats.assemble import (
    BEGINS_INSIDE,
    BY_ARRIVAL,
    DONE,
    ENDS_INSIDE,
    FIELDS,
    FLAGS,
    Assembler,
    RowOptions,
    find_fields,
    split,
)
from datamodules.formats.episode_reader import FAILURES, EpisodeReader
from datamodules.formats.guard import LIMITS, files_at, refuse_above
from datamodules.formats.observed import channels_last, names_of, require_spec, store_spec, stored_spec, with_task
from datamodules.formats.protocol import FormatError, Problem
from datamodules.observation import Observation
from datamodules.storage.durable import write_atomic
from datamodules.trajectory import Trajectory
from worldmodel.spec import EnvSpec

# how the names of what is observed begin where it is more than an image
OBSERVED = "observation."
_SEEN = ("pixels", "observation")
# unpacked episodes that wait for their turn
AHEAD_BYTES = 1 << 28
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_STAMP = "%Y%m%dT%H%M%SF%f"
_CHUNK = re.compile(r"[^-]+-([0-9A-Za-z]+)-([0-9A-Za-z]+)-\d+\.npz")


def open_reader(
    path: Path, *, options: RowOptions = BY_ARRIVAL, image_key: str = "", observe: str = "", threads: int = 0
) -> "NpzReader":
    """Read the folder (or single file) at `path`.

    Args:
        path: of the folder or file.
        options: how rows are stored, by arrival where nothing else is said.
        image_key: the array of frames, several as a,b for channels side by side; "": the first of the usual names.
        observe: arrays that are read by name, images and vectors, as a,b; "": as a writer left them, or frames alone.
        threads: that unpack; 0: as many as cores, 4 at most.

    Raises:
        FormatError: where nothing can be read. OSError.
    """
    root, files, problems = files_at(path, [".npz"])
    stored = stored_spec(root)
    assembler = Assembler(options.convention(stored))
    threads = threads or min(4, os.cpu_count() or 1)
    names = [] if image_key else names_of(observe, stored)
    reader = NpzReader(root, files, problems, assembler, options, image_key=image_key, names=names, threads=threads)
    task = options.task or path.resolve().name.removesuffix(".npz")
    reader.spec = with_task(stored, options.task) if stored and not observe else reader.guess_spec(task)
    return reader


def open_writer(path: Path, spec: EnvSpec, *, compress: bool = True) -> "NpzWriter":
    """Write a folder of episodes at `path`, or add to one of the same spec; raises FormatError, OSError."""
    store_spec(path, spec)
    return NpzWriter(path, compress=compress)


@dataclass(frozen=True, slots=True)
class _File:
    """One file; continues, continued: the file before it, and the one after it, hold parts of its episodes."""

    path: Path
    continues: bool = False
    continued: bool = False


def _in_chains(paths: Iterable[Path]) -> list[_File]:
    """The files in the order of their names, each chunk followed by its successors."""
    paths = list(paths)
    named = {(path.parent, match[1]): path for path in paths if (match := _CHUNK.fullmatch(path.name))}
    after = {path: named.get((path.parent, _CHUNK.fullmatch(path.name)[2])) for path in named.values()}  # type: ignore[index]
    continued = set(after.values())
    files: list[_File] = []
    seen: set[Path] = set()
    # those whose predecessor is there come with it; what is left of a circle begins anywhere
    for start in [*(path for path in paths if path not in continued), *paths]:
        path: Path | None = start
        first = True
        while path is not None and path not in seen:
            seen.add(path)
            following = after.get(path)
            goes_on = following is not None and following not in seen
            files.append(_File(path, continues=not first, continued=goes_on))
            path, first = following, False
    return files


@dataclass(frozen=True, slots=True)
class _Part:
    """Rows of an episode whose other rows are in the file before (head) or after (tail)."""

    name: str
    fields: dict[str, Any]
    unread: tuple[str, ...]
    head: bool
    tail: bool


class NpzReader(EpisodeReader):
    """The episodes of npz files in the order of their names; files are unpacked ahead in threads."""

    def __init__(
        self,
        root: Path,
        files: list[Path],
        problems: list[Problem],
        assembler: Assembler,
        options: RowOptions,
        *,
        image_key: str,
        names: Sequence[str],
        threads: int,
    ) -> None:
        super().__init__(problems, assembler.notes)
        self._root, self._files = root, _in_chains(files)
        self._assembler, self._threads, self._names = assembler, threads, list(names)
        self._terminal_key, self._image_keys = options.terminal_key, image_key.split(",") if image_key else []

    def __len__(self) -> int:
        return len(self._files) + len(self._left_out)

    def guess_spec(self, task: str) -> EnvSpec:
        """What the first readable episode shows; raises FormatError where there is none."""
        first = self._first(f"{self._root}: expected a readable npz episode")
        named = [re.search(r"-(\d{1,9})\.npz$", file.path.name) for file in self._files]
        rows = max([len(first), *(int(match[1]) for match in named if match)])
        return self._assembler.spec(first, task=task, rows=rows)

    def _episodes(self) -> Iterator[tuple[str, Callable[[], Trajectory]]]:
        return ((str(file.path), partial(self._read_first, file.path)) for file in self._files)

    def _read_first(self, path: Path) -> Trajectory:
        """The first episode of a file, be it whole or not."""
        items = self._unpack(Archive(self._root, path), _File(path))
        return next(item for item in items if isinstance(item, Trajectory))

    def trajectories(self) -> Iterator[Trajectory]:
        """Every readable episode in the order of the file names; afterwards `problems` names the others."""
        self.problems[:] = self._left_out
        self.notes.clear()
        open_part: list[_Part] = []
        for file, items in self._unpacked_files():
            if not file.continues:
                yield from self._finished(open_part)
            for item in items:
                if isinstance(item, Trajectory):
                    yield from self._finished(open_part)
                    yield item
                    continue
                if not item.head:
                    yield from self._finished(open_part)
                open_part.append(item)
                if not item.tail:
                    yield from self._finished(open_part)
        yield from self._finished(open_part)

    def _finished(self, parts: list[_Part]) -> Iterator[Trajectory]:
        """The episode whose parts these are, if any; they are taken out."""
        if not parts:
            return
        joined, name = list(parts), parts[0].name
        parts.clear()
        if joined[0].head:
            self.notes.add(BEGINS_INSIDE)
        if joined[-1].tail:
            self.notes.add(ENDS_INSIDE)
        try:
            size = sum(np.asarray(film).nbytes for part in joined for film in _films(part.fields))
            refuse_above(LIMITS.episode_bytes, size, f"{name}: bytes of an episode in {len(joined)} files")
            fields = {key: _concatenated([part.fields.get(key) for part in joined]) for key in joined[0].fields}
            trajectory = self._assembler.trajectory(name, fields, unread=joined[0].unread)
            require_spec(self.spec, trajectory)
        except (*FAILURES, ValueError) as error:
            self._leave_out(name, error)
        else:
            yield trajectory

    def _unpacked_files(self) -> Iterator[tuple[_File, list[Trajectory | _Part]]]:
        waiting: deque[tuple[_File, int, Future[list[Trajectory | _Part]]]] = deque()
        ahead = 0
        with ThreadPoolExecutor(self._threads) as pool:
            for file in self._files:
                try:
                    archive = Archive(self._root, file.path)
                except FAILURES as error:
                    self._leave_out(str(file.path), error)
                    continue
                size = sum(member.unpacked for member in archive.members.values())
                while waiting and (ahead + size > AHEAD_BYTES or len(waiting) > 2 * self._threads):
                    ahead -= waiting[0][1]
                    yield from self._result(*waiting.popleft())
                waiting.append((file, size, pool.submit(self._unpack, archive, file)))
                ahead += size
            while waiting:
                yield from self._result(*waiting.popleft())

    def _result(
        self, file: _File, size: int, unpacked: Future[list[Trajectory | _Part]]
    ) -> Iterator[tuple[_File, list[Trajectory | _Part]]]:
        try:
            items = unpacked.result()
            for item in items:
                if isinstance(item, Trajectory):
                    require_spec(self.spec, item)
        except FAILURES as error:
            self._leave_out(str(file.path), error)
            return
        yield file, items

    def _unpack(self, archive: Archive, file: _File) -> list[Trajectory | _Part]:
        keys = find_fields(archive.members, terminal_key=self._terminal_key)
        images = [] if self._names else self._image_keys or [_image_of(archive)]
        own = {name: name if name in archive else OBSERVED + name for name in self._names}
        for key in (*images, *own.values()):
            if key not in archive:
                raise FormatError(f"{archive.name}: expected key {key}, got {', '.join(archive.members)}")
        arrays: dict[str, Any] = {"pixels": [archive.read(key) for key in images]}
        if own:
            arrays = {"observation": {name: archive.read(key) for name, key in own.items()}}
        for field in ("action", "reward", "env_steps"):
            if field in keys or field == "action":
                arrays[field] = archive.read(keys.get(field, FIELDS[field][0]))  # raises with the keys that there are
        flags = {field: archive.read(keys[field]) for field in FLAGS if field in keys}
        first = _films(arrays)[0]
        unread = set(archive.members) - {*images, *own.values(), *keys.values()}
        return self._split(archive, arrays, flags, len(first) if first.ndim else 0, unread, file)

    def _split(
        self,
        archive: Archive,
        arrays: dict[str, Any],
        flags: Mapping[str, NDArray[Any]],
        rows: int,
        unread: set[str],
        file: _File,
    ) -> list[Trajectory | _Part]:
        name = archive.name
        films = [("observation" if "observation" in arrays else "pixels", film) for film in _films(arrays)]
        for key, values in films + [
            (key, values) for key, values in (arrays | dict(flags)).items() if key not in _SEEN
        ]:
            least = rows - (key in ("action", "reward") and self._assembler.convention.departs)
            if values.ndim < 1 or not least <= len(values) <= rows:
                raise FormatError(f"{name} {key}: expected {rows} rows as of pixels, got shape {values.shape}")
        pieces, terminal = split(name, flags, rows)
        items: list[Trajectory | _Part] = []
        for piece in pieces:
            label = name if len(pieces) == 1 else f"{name} row {piece.rows.start}"
            fields = {key: _rows_of(values, piece.rows) for key, values in arrays.items()}
            fields["is_terminal"] = terminal[piece.rows]
            head = not piece.begins and piece.rows.start == 0
            tail = not piece.ends and piece.rows.stop == rows
            if (head and file.continues) or (tail and file.continued):
                items.append(_Part(label, fields, tuple(unread), head, tail))
                continue
            if not piece.begins:
                self.notes.add(BEGINS_INSIDE)
            if not piece.ends:
                self.notes.add(ENDS_INSIDE)
            items.append(self._assembler.trajectory(label, fields, unread=unread))
            if "done" in flags and not {"is_terminal", "discount"} & flags.keys():
                self.notes.add(DONE, detail="done", terminations=bool(fields["is_terminal"].any()))
        return items


def _image_of(archive: Archive) -> str:
    """The key of the frames: of the usual names the first one with four axes, else the first one."""
    usual = [key for key in FIELDS["pixels"] if key in archive]
    if not usual:
        expected = " or ".join(FIELDS["pixels"])
        raise FormatError(f"{archive.name}: expected key {expected}, got {', '.join(archive.members)}")
    return next((key for key in usual if len(archive.members[key].shape) == 4), usual[0])


def _films(arrays: Mapping[str, Any]) -> list[NDArray[Any]]:
    """Every array that is observed."""
    return [*arrays["observation"].values()] if "observation" in arrays else arrays["pixels"]


def _rows_of(values: Any, rows: slice) -> Any:
    """Some rows of an array, or of each in a list or by name."""
    if isinstance(values, dict):
        return {name: part[rows] for name, part in values.items()}
    return [part[rows] for part in values] if isinstance(values, list) else values[rows]


def _concatenated(parts: list[Any]) -> Any:
    """Arrays [T, ...] of consecutive rows in one, or a list of them camera by camera."""
    if isinstance(parts[0], dict):
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    if isinstance(parts[0], list):
        return [np.concatenate(films) for films in zip(*parts, strict=True)]
    return np.concatenate(parts)


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
            **_stored(trajectory.observation),
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


def _stored(observation: Observation) -> Observation:
    """One image alone under the usual name, anything else under names that no other array has."""
    if list(observation) == ["pixels"] and observation["pixels"].dtype == np.uint8:
        return {"image": channels_last(observation["pixels"])}
    return {OBSERVED + name: channels_last(values) for name, values in observation.items()}


def _microseconds(name: str) -> int:
    """The time in a file's name since 1970, 0 where it has none."""
    try:
        stamp = datetime.strptime(name.partition("-")[0], _STAMP).replace(tzinfo=UTC)
    except ValueError:
        return 0
    return (stamp - _EPOCH) // timedelta(microseconds=1)
