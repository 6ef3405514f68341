"""What cannot be read is set aside in `damaged/`, never deleted: it is still somebody's data."""

from collections.abc import Sequence
from pathlib import Path

from datamodules.storage.durable import sync_folder, write_atomic
from datamodules.storage.log_reader import Segment

FOLDER = "damaged"


def set_aside(folder: Path, segments: Sequence[Segment], *, torn: bool) -> list[Segment]:
    """Move unreadable segments of a log, and copy unreadable parts of others; returns the segments that stay.

    torn: the bytes after the newest segment's last block are an unfinished write. Empty files are removed. Safe to
    repeat after a crash. Raises OSError.
    """
    kept = []
    for segment in segments:
        unfinished = torn and segment is segments[-1]
        rubble = segment.rubble[:-1] if unfinished else segment.rubble
        if segment.entries:
            kept.append(segment)
            for begin, end in rubble:
                _copy(folder, segment.path, begin, end)
        elif rubble:
            segment.path.replace(_place(folder, segment.path.name))
        else:
            segment.path.unlink()
    return kept


def _copy(folder: Path, path: Path, begin: int, end: int) -> None:
    target = _place(folder, f"{path.stem}_{begin:012d}.bin")
    with path.open("rb") as file:
        file.seek(begin)
        content = file.read(end - begin)
    if not target.exists() or target.read_bytes() != content:
        write_atomic(target, content)


def _place(folder: Path, name: str) -> Path:
    aside = folder / FOLDER
    if not aside.exists():
        aside.mkdir()
        sync_folder(folder)
    return aside / name
