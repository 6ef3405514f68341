"""Recorded trajectories of any format into segments, streaming; a copy that was broken off is continued."""

import fcntl
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datamodules.alignment import Alignment, check_alignment
from datamodules.formats.assemble import FIRST_REWARD
from datamodules.formats.protocol import FormatError, Problem, Reader
from datamodules.formats.segments import open_writer
from datamodules.formats.uri import Uri, open_reader, parse
from datamodules.storage.durable import write_atomic
from datamodules.storage.segment_writer import SegmentWriter
from datamodules.trajectory import Trajectory

# beside the segments: of what the folder is the import
SOURCE = "import.json"
# beside them once all are there
DONE = "done.json"
NAMED_PROBLEMS = 20
MIN_ROWS = 2  # of an episode that is brought: nothing can be learned from one row


@dataclass(slots=True)
class ImportReport:
    """What an import brought.

    episodes, rows: in the folder now. resumed: of these episodes, the ones an earlier run had brought. short: episodes
    below MIN_ROWS, which are counted and left out. problems: what could not be read. seconds, megabytes: of pixels
    that this run wrote. notes: what was not taken over as it lies there.
    """

    episodes: int = 0
    rows: int = 0
    resumed: int = 0
    short: int = 0
    seconds: float = 0.0
    megabytes: float = 0.0
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def import_trajectories(reader: Reader, folder: Path) -> ImportReport:
    """Write every readable episode of `reader` with MIN_ROWS rows or more to segments at `folder`, in order.

    A folder of the same import is continued: the episodes it holds are read again but not written, so its data set
    may have grown at its end, and must not have changed otherwise. Raises FormatError for a folder that holds anything
    else, and OSError.
    """
    report, begin = ImportReport(), time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    writer = open_writer(folder, reader.spec)
    try:
        _copy(reader, writer, folder, report)
    finally:
        writer.close()
    report.problems, report.notes = list(reader.problems), reader.notes.texts()
    report.seconds = time.perf_counter() - begin
    return report


def _copy(reader: Reader, writer: SegmentWriter, folder: Path, report: ImportReport) -> None:
    before, rows_before = writer.episodes, writer.rows
    for trajectory in reader.trajectories():
        if len(trajectory) < MIN_ROWS:
            report.short += 1
            continue
        if report.episodes == 0:
            _claim(folder, trajectory, before)
        if report.episodes == before:
            _require_rows(folder, before, expected=report.rows, got=rows_before)
        report.episodes += 1
        report.rows += len(trajectory)
        if report.episodes <= before:
            report.resumed += 1
            continue
        writer.write(trajectory)
        report.megabytes += sum(values.nbytes for values in trajectory.observation.values()) / 1e6
    if report.episodes < before:
        raise FormatError(f"{folder}: expected at most the {report.episodes} episodes of the data set, got {before}")
    if report.episodes == before:
        _require_rows(folder, before, expected=report.rows, got=rows_before)


def _claim(folder: Path, first: Trajectory, episodes: int) -> None:
    """Say of which data set the folder is the import; raises FormatError where it is of another one."""
    mine = {"first": first.name, "first_rows": len(first), "min_rows": MIN_ROWS}
    path = folder / SOURCE
    if not path.exists():
        if episodes:
            raise FormatError(
                f"{folder}: expected an empty folder or an import, got {episodes} episodes of something else"
            )
        write_atomic(path, json.dumps(mine).encode())
        return
    try:
        stored = json.loads(path.read_bytes())
    except ValueError as error:
        raise FormatError(f"{path}: expected JSON, got {error}; delete the folder to import again") from error
    if episodes and stored != mine:
        raise FormatError(f"{folder}: expected the import of {mine}, got that of {stored}: choose another folder")
    if stored != mine:
        write_atomic(path, json.dumps(mine).encode())


def _require_rows(folder: Path, episodes: int, *, expected: int, got: int) -> None:
    if expected != got:
        raise FormatError(
            f"{folder}: expected {expected} rows in its {episodes} episodes, got {got}: the data set has changed since"
        )


def import_once(
    uri: str, cache: Path, *, alignment: str | None, say: Callable[[str], None], actions: str | None = None
) -> tuple[Path, dict[str, Any]]:
    """Copy the episodes at `uri` into segments, unless that was done before.

    One process copies, others wait for it; what was broken off is continued. What is refused leaves nothing behind.

    Args:
        uri: of the data set.
        cache: folder in which each data set has its own.
        alignment, actions: arrival or departure, against what the format says; None: as the URI or the format says.
        say: takes a line for the user.

    Returns:
        The folder of segments, and the facts of their import (JSON).

    Raises:
        FormatError: where nothing can be read, or the frames speak for another pairing and nobody insists.
        OSError: where the disk fails.
    """
    for key, value in (("alignment", alignment), ("actions", actions)):
        if value is not None:
            uri = f"{uri}{'&' if '?' in uri else '?'}{key}={value}"
    parsed = parse(uri)
    if not parsed.path.exists():
        raise FormatError(f"no such file or folder: {parsed.path}")
    folder = cache / f"{parsed.path.resolve().name}-{_digest(parsed)}"
    done = folder / DONE
    if not done.exists():
        verdict = _judged(uri, say=say)
        with _alone(folder):
            if not done.exists():
                facts = _import(uri, folder, say=say)
                write_atomic(done, json.dumps({**facts, "alignment": verdict.to_json()}, indent=1).encode())
    return folder, json.loads(done.read_bytes())


def _judged(uri: str, *, say: Callable[[str], None]) -> Alignment:
    """What the check says of the episodes; raises FormatError where it contradicts how they are read by default."""
    options = parse(uri).options
    given = options.get("actions", options.get("alignment"))
    with closing(open_reader(uri)) as reader:
        alignment = check_alignment(reader.trajectories())
        words = alignment.in_words(
            given=given, remedy="data.alignment=", rewards_depart=reader.notes.count(FIRST_REWARD) > 0
        )
    loud = "WARNING: " if alignment.shift is None and given is None else ""
    say(f"{loud}alignment: {words} ({', '.join(f'{s:+d}: {v:.3f}' for s, v in alignment.scores.items())})")
    if alignment.other is not None and given is None:
        raise FormatError(
            f"data.alignment: expected the frames of {uri} to bear out how it was read; {words} (t={alignment.t:.1f}); "
            "whichever is given is not questioned"
        )
    return alignment


def _import(uri: str, folder: Path, *, say: Callable[[str], None]) -> dict[str, Any]:
    with closing(open_reader(uri)) as reader:
        say(f"importing {uri} into {folder}, once")
        report = import_trajectories(reader, folder)
    say(f"imported {report.episodes:,} episodes, {report.megabytes:,.0f} MB of pixels in {report.seconds:.1f} s")
    for note in report.notes:
        say(f"note: {note}")
    named = [str(problem) for problem in report.problems[:NAMED_PROBLEMS]]
    return {"skipped": len(report.problems) + report.short, "problems": [*named, *report.notes]}


def _digest(uri: Uri) -> str:
    """What tells this data set, as it is now and with these options, from others."""
    files = sorted(path for path in [uri.path, *uri.path.rglob("*")] if path.is_file())
    state = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    options = [uri.scheme, str(uri.path.resolve()), sorted(uri.options.items()), state]
    return hashlib.sha256(json.dumps(options).encode()).hexdigest()[:12]


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time; the lock goes with the process that holds it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
