"""What a replay takes of memory and disk, before it takes it, and how many of its rows may be lost."""

import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from datamodules.observation import image_bytes
from datamodules.storage.rows import row_bytes
from worldmodel.errors import BadValue, UserError
from worldmodel.spec import EnvSpec

MAX_SEGMENT_BYTES = 1 << 26
TAIL_BYTES = 1 << 24  # memory for the newest frames of a stream whose frames are mapped
DAMAGE_LIMIT = 0.05  # share of lost rows: more, and what is left is not what was recorded
MEMORY_SHARE = 0.5  # of what is available: the learner and the page cache need the rest
CACHED_SHARE = 0.75  # of what is available: larger files would push each other out of the page cache
_UNITS = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


class ReplayTooLarge(UserError):
    """The capacity fits neither in memory nor on disk; names the bytes needed and available, and what to set."""


def parse_bytes(text: str) -> int:
    """The bytes that "12GB", "1.5 GiB" or "700MB" say; raises ValueError."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?i?)b\s*", text.lower())
    if match is None or match[2] not in _UNITS:
        raise BadValue(f"expected a number of bytes like 12GB or 1.5GiB, got {text!r}")
    return int(float(match[1]) * _UNITS[match[2]])


def rows_of(capacity: int | str, spec: EnvSpec) -> int:
    """Rows of a capacity in rows, or in bytes as `parse_bytes` takes them."""
    return capacity if isinstance(capacity, int) else parse_bytes(capacity) // row_bytes(spec)


def available_bytes() -> int:
    """Memory that can be taken without swapping: the machine's, or the container's where that is less."""
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    machine = int(fields["MemAvailable"].split()[0]) * 1024
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
        statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no such group, or "max" for no limit
        return machine
    return min(machine, limit - used + int(statistics["inactive_file"]))


def memory_budget(budget: float | str) -> int:
    """Bytes of a budget that is a share of the available memory, or says its bytes as `parse_bytes` takes them."""
    return parse_bytes(budget) if isinstance(budget, str) else int(budget * available_bytes())


@dataclass(frozen=True, slots=True)
class Budget:
    """What one replay takes. mapped: frames stay in the files. tail_rows: newest frames a stream keeps in memory.

    resident: the files stay in the system's page cache.
    """

    rows: int
    memory_bytes: int
    disk_bytes: int
    segment_bytes: int
    mapped: bool
    tail_rows: int
    resident: bool

    def __str__(self) -> str:
        cached = "and cached" if self.resident else "and read when they are drawn"
        where = f"frames mapped from disk {cached}" if self.mapped else "frames in memory"
        return f"{self.memory_bytes / 1e9:.2f} GB of memory, {self.disk_bytes / 1e9:.2f} GB of disk, {where}"


def footprint(
    spec: EnvSpec, rows: int, *, streams: int, flush_rows: int, memory_limit: int, on_disk: bool, processes: int = 1
) -> Budget:
    """What `rows` rows over `streams` take; frames are mapped where memory is too small and there is a disk."""
    whole, ring = rows * row_bytes(spec), rows // streams
    # a segment is deleted as a whole, when the next one begins: at both ends there is up to one more
    segment = segment_bytes(spec, ring)
    tail = max(min(ring, 4 * flush_rows), min(ring // 8, TAIL_BYTES // max(image_bytes(spec), 1)))
    mapped = whole > memory_limit and on_disk and image_bytes(spec) > 0
    # the ring, and another that a roll-back to a recent state would need
    disk = 2 * whole + 2 * streams * segment if on_disk else 0
    memory = whole - (rows - streams * tail) * image_bytes(spec) if mapped else whole
    return Budget(rows, memory, disk, segment, mapped, tail, resident=stays_cached(processes * whole))


def segment_bytes(spec: EnvSpec, ring: int) -> int:
    """Bytes of a segment of a stream that keeps `ring` rows."""
    return min(MAX_SEGMENT_BYTES, max(1, ring // 8) * row_bytes(spec))


def stays_cached(size: int) -> bool:
    """Whether files of that many bytes stay in the page cache, read or written once."""
    return size <= CACHED_SHARE * available_bytes()


def plan(
    spec: EnvSpec,
    rows: int,
    *,
    streams: int,
    flush_rows: int,
    folder: Path | None,
    memory_limit: int | None,
    processes: int,
) -> Budget:
    """The footprint of a replay that fits; raises ReplayTooLarge.

    memory_limit: bytes for this replay (default: half of what is available). processes: replays of this size on this
    machine, which share its disk, and its memory where no limit is given.
    """
    limit = memory_budget(MEMORY_SHARE) // processes if memory_limit is None else memory_limit
    sizes = {"streams": streams, "flush_rows": flush_rows, "memory_limit": limit}
    budget = footprint(spec, rows, **sizes, on_disk=folder is not None, processes=processes)
    if budget.memory_bytes > limit:
        raise ReplayTooLarge(
            f"replay of {rows} rows needs {budget.memory_bytes} bytes, {limit} are available: choose a capacity of at "
            f"most {limit * rows // budget.memory_bytes} rows, or a larger data.memory_budget"
        )
    if folder is not None:
        _require_disk(budget.disk_bytes, folder, processes)
    return budget


def _require_disk(needed: int, folder: Path, processes: int) -> None:
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = processes * folder_bytes(folder) + shutil.disk_usage(existing).free
    if processes * needed > free:
        raise ReplayTooLarge(
            f"replay needs {processes * needed} bytes of disk, {free} are available at {folder}: "
            f"choose a smaller data.capacity, or a run_dir on a larger disk"
        )


def folder_bytes(folder: Path) -> int:
    """Bytes of all files under a folder, 0 where there is none."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


class ReplayDamaged(UserError):
    """More rows are lost than may be; names how many, the limit, and where what is left of them lies."""


def check_lost_rows(folders: Sequence[Path | None], *, lost: int, stored: int, blocks: int, limit: float) -> None:
    """Raise ReplayDamaged where more than a share `limit` of the `stored` rows, lost ones included, are lost."""
    if lost <= limit * stored:
        return
    override = min(1.0, lost / stored + 0.01)
    aside = any(folder and next(folder.glob("stream_*/damaged"), None) for folder in folders)
    raise ReplayDamaged(
        f"{', '.join(map(str, folders))}: {lost} of {stored} rows are lost in {blocks} damaged blocks, "
        f"expected at most {limit:.0%}{'; what could not be read is in stream_*/damaged' if aside else ''}. "
        f"To go on with the rest, set data.damage_limit={override:.2f}"
    )
