"""Folders of npz files: an episode each, as Dreamer, DreamerV2 and V-D4RL have them, or DreamerV3's chunks of a stream.

`<time>-<uuid>-<rows>.npz` holds image uint8 [T, h, w, C], action [T, A], reward, discount, is_first, is_last and
is_terminal [T]; action[t] led to image[t]. Also read: every name in fields.FIELDS, step_type (0 first, 1 mid, 2 last)
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
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.formats.archive import Archive
from datamodules.formats.assemble import Assembler
from datamodules.formats.convention import BY_ARRIVAL, RowOptions
from datamodules.formats.episode_reader import FAILURES, EpisodeReader
from datamodules.formats.episode_writer import EpisodeWriter
from datamodules.formats.fields import ENDS, FIELDS, FLAGS, find_fields, split
from datamodules.formats.guard import LIMITS, files_at, refuse_above
from datamodules.formats.observed import channels_last, select, store_spec, stored_spec
from datamodules.formats.protocol import FormatError
from datamodules.observation import Observation
from datamodules.storage.durable import write_atomic
from datamodules.trajectory import Trajectory
from worldmodel.spec import EnvSpec

# how the names of what is observed begin where it is more than an image
OBSERVED = "observation."
# unpacked episodes that wait for their turn
AHEAD_BYTES = 1 << 28
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_STAMP = "%Y%m%dT%H%M%SF%f"
_CHUNK = re.compile(r"[^-]+-([0-9A-Za-z]+)-([0-9A-Za-z]+)-\d+\.npz")


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
    """Rows of an episode whose other rows are in the file before (head) or after (tail).

    seen: what is observed by name. fields: the other arrays by the names in FIELDS. keys: what these are stored as.
    """

    name: str
    seen: dict[str, NDArray[Any]]
    fields: dict[str, NDArray[Any]]
    keys: Mapping[str, str]
    unread: frozenset[str]
    head: bool = False
    tail: bool = False


class NpzReader(EpisodeReader):
    """Reads the folder (or single file) at `path` in the order of the names; files are unpacked ahead in threads.

    Args:
        path: of the folder or file.
        options: how rows are stored, by arrival where nothing else is said.
        image_key: the array of frames, several as a,b for channels side by side; "": the first of the usual names.
        observe: arrays that are read by name, images and vectors, as a,b or name:key; "": as a writer left
            them, or frames alone.
        threads: that unpack; 0: as many as cores, 4 at most.

    Raises:
        FormatError: where nothing can be read. OSError.
    """

    def __init__(
        self, path: Path, *, options: RowOptions = BY_ARRIVAL, image_key: str = "", observe: str = "", threads: int = 0
    ) -> None:
        self._root, files, problems = files_at(path, [".npz"])
        stored = stored_spec(self._root)
        super().__init__(problems, Assembler(options.convention(stored)))
        self._files, self._threads = _in_chains(files), threads or min(4, os.cpu_count() or 1)
        self._count = len(self._files)
        self._selection, self._terminal_key = select(image_key, observe, stored), options.terminal_key
        self._ours = stored is not None
        self.spec = self._known_spec(
            None if observe else stored,
            expected=f"{self._root}: expected a readable npz episode",
            task=options.task,
            name=path.resolve().name.removesuffix(".npz"),
            rows=self._longest,
        )

    def _longest(self) -> int:
        """Rows of the longest episode, as names of files say it."""
        named = [re.search(r"-(\d{1,9})\.npz$", file.path.name) for file in self._files]
        return max((int(match[1]) for match in named if match), default=0)

    def _episodes(self) -> Iterator[tuple[str, Callable[[], Trajectory]]]:
        return ((str(file.path), partial(self._read_first, file.path)) for file in self._files)

    def _read_first(self, path: Path) -> Trajectory:
        """The first episode of a file, be it whole or not."""
        items = self._unpack(Archive(self._root, path), _File(path))
        return next(item for item in items if isinstance(item, Trajectory))

    def trajectories(self) -> Iterator[Trajectory]:
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
        self._assembler.note_ends(begins=not joined[0].head, ends=not joined[-1].tail)
        try:
            size = sum(film.nbytes for part in joined for film in part.seen.values())
            refuse_above(LIMITS.episode_bytes, size, f"{name}: bytes of an episode in {len(joined)} files")
            seen, fields = _joined([part.seen for part in joined]), _joined([part.fields for part in joined])
            trajectory = self._assembled(replace(joined[0], seen=seen, fields=fields))
            trajectory.require(self.spec)
        except (*FAILURES, ValueError, KeyError) as error:
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
                    item.require(self.spec)
        except FAILURES as error:
            self._leave_out(str(file.path), error)
            return
        yield file, items

    def _unpack(self, archive: Archive, file: _File) -> list[Trajectory | _Part]:
        keys = find_fields(archive.members, terminal_key=self._terminal_key)
        observed = {key: key for key in self._selection.keys or [_image_of(archive)]}
        if self._selection.named:
            # our writer's names first: what is observed may be called as any other array, such as "action"
            observed = {name: self._key_of(name, archive) for name in observed}
        for key in observed.values():
            if key not in archive:
                raise FormatError(f"{archive.name}: expected key {key}, got {', '.join(archive.members)}")
        seen = {name: archive.read(key) for name, key in observed.items()}
        fields: dict[str, NDArray[Any]] = {
            field: archive.read(keys.get(field, FIELDS[field][0]))  # raises with the keys that there are
            for field in ("action", "reward", "env_steps")
            if field in keys or field == "action"
        }
        flags = {field: archive.read(keys[field]) for field in FLAGS if field in keys}
        unread = frozenset(archive.members) - {*observed.values(), *keys.values()}
        return self._split(_Part(archive.name, seen, fields, keys, unread), flags, file)

    def _key_of(self, name: str, archive: Archive) -> str:
        own = OBSERVED + name
        return name if name in archive and not (self._ours and own in archive) else own

    def _split(self, whole: _Part, flags: Mapping[str, NDArray[Any]], file: _File) -> list[Trajectory | _Part]:
        """The episodes of a file, or their parts where files before or after it hold the rest."""
        name, label = whole.name, "observation" if self._selection.named else "pixels"
        first = next(iter(whole.seen.values()))
        rows = len(first) if first.ndim else 0
        arrays = [*((label, film) for film in whole.seen.values()), *whole.fields.items(), *flags.items()]
        for key, values in arrays:
            least = rows - (key in ("action", "reward", *ENDS) and self._assembler.convention.departs)
            if values.ndim < 1 or not least <= len(values) <= rows:
                raise FormatError(f"{name} {key}: expected {rows} rows as of pixels, got shape {values.shape}")
        if any(len(values) < rows for values in flags.values()):
            # of one more frame than actions: what an action ended shows in the next row
            flags = {key: _in_next_row(key, values, rows) for key, values in flags.items()}
            pieces, arrived = split(name, flags, rows)
            terminal = arrived[1:]
            if len(pieces) > 1:
                raise FormatError(f"{name}: expected one episode of {rows} frames and {rows - 1} actions, got several")
        else:
            pieces, terminal = split(name, flags, rows)
        items: list[Trajectory | _Part] = []
        for piece in pieces:
            part = _Part(
                name if len(pieces) == 1 else f"{name} row {piece.rows.start}",
                {key: values[piece.rows] for key, values in whole.seen.items()},
                {key: values[piece.rows] for key, values in (whole.fields | {"is_terminal": terminal}).items()},
                whole.keys,
                whole.unread,
                head=not piece.begins and piece.rows.start == 0,
                tail=not piece.ends and piece.rows.stop == rows,
            )
            if (part.head and file.continues) or (part.tail and file.continued):
                items.append(part)
                continue
            items.append(self._assembled(part))
            self._assembler.note_piece(piece, whole.keys, part.fields["is_terminal"])
        return items

    def _assembled(self, part: _Part) -> Trajectory:
        fields = self._selection.fields(part.seen) | part.fields
        return self._assembler.trajectory(part.name, fields, unread=part.unread)


def _image_of(archive: Archive) -> str:
    """The key of the frames: of the usual names the first one with four axes, else the first one."""
    usual = [key for key in FIELDS["pixels"] if key in archive]
    if not usual:
        expected = " or ".join(FIELDS["pixels"])
        raise FormatError(f"{archive.name}: expected key {expected}, got {', '.join(archive.members)}")
    return next((key for key in usual if len(archive.members[key].shape) == 4), usual[0])


def _in_next_row(key: str, values: NDArray[Any], rows: int) -> NDArray[Any]:
    """A flag [rows] of which ends are stored with the action that led to them, [rows - 1]."""
    nothing = np.full((1, *values.shape[1:]), key == "discount", values.dtype)
    return values if len(values) == rows and key not in ENDS else np.concatenate([nothing, values])[:rows]


def _joined(parts: list[dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """Arrays [T, ...] of consecutive rows in one each."""
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


class NpzWriter(EpisodeWriter):
    """Writes a folder of episodes at `path`, or adds to one of the same spec; raises FormatError, OSError.

    One file an episode, each whole or not there; the names sort in the order of writing.
    """

    def __init__(self, path: Path, spec: EnvSpec, *, compress: bool = True) -> None:
        super().__init__(spec)
        store_spec(path, spec)
        self._folder = path
        self._save: Callable[..., None] = np.savez_compressed if compress else np.savez
        # a clock that was set back must not put new episodes before old ones
        self._last = max([_microseconds(file.name) for file in path.glob("*.npz")], default=0)

    def _write(self, trajectory: Trajectory) -> None:
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


open_reader, open_writer = NpzReader, NpzWriter
