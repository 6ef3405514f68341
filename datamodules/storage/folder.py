"""A folder of segments: whose rows it holds (`replay.json`), and who may write to it."""

import fcntl
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datamodules.storage.durable import retry, write_atomic
from datamodules.storage.log_format import (
    MANIFEST,
    ChecksumMismatch,
    decode_json,
    encode_json,
    load_manifest,
    parse_manifest,
)
from datamodules.storage.rows import ReplayMismatch
from datamodules.storage.segments import SegmentLog
from worldmodel.spec import EnvSpec

FORMAT = 2  # 1: neither manifests nor a CRC in the header
HEADER = "replay.json"


@dataclass(frozen=True, slots=True)
class Header:
    """What a folder says of itself.

    Args:
        spec: of its rows.
        format: of its files.
        streams: how many logs it has.
        capacity: rows of the replay that made it; None where they were not bounded.
    """

    spec: EnvSpec
    format: int
    streams: int
    capacity: int | None


class ReplayFolder:
    """A folder for the rows of `spec` in `streams` logs, this process's alone until `close`.

    capacity: rows of the replay that made the folder, for whoever reads the header; another may go on there.
    broken_headers: 1 where the header had to be made anew. A folder of an older format becomes one of this format, one
    that never held a row becomes one of `spec`.
    Raises ReplayMismatch where the folder is in use or holds other rows, and OSError.
    """

    def __init__(self, path: Path, spec: EnvSpec, *, streams: int, capacity: int | None = None) -> None:
        self.path, self.broken_headers = path, 0
        self._logs: list[SegmentLog] = []
        path.mkdir(parents=True, exist_ok=True)
        self._lock: int | None = os.open(path / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        self._spec, self._streams = spec, streams
        self._mine = {"format": FORMAT, "spec": spec.to_json(), "streams": streams}
        try:
            self._take_lock()
            self._format = self._claim(capacity)
        except (OSError, ReplayMismatch):
            self.close()
            raise

    def _take_lock(self) -> None:
        assert self._lock is not None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ReplayMismatch(f"folder {self.path} is in use by another replay") from error

    def _claim(self, capacity: int | None) -> int:
        """Compare the header with what this process writes, or write it; returns the format that was found."""
        content = {**self._mine, "capacity": capacity}
        if self._never_held_rows():  # of a start that was broken off, perhaps with other options
            for log in self.path.glob("stream_*"):
                shutil.rmtree(log)
            (self.path / HEADER).unlink(missing_ok=True)
        try:
            header = _parse(retry((self.path / HEADER).read_bytes))
            self._require_same(header)
            return header.format
        except FileNotFoundError:
            self.broken_headers = int(any(self.path.glob("stream_*")))
        except ChecksumMismatch:
            self.broken_headers = 1
        spare = _spare(self.path)
        if spare is not None:
            self._require_same(spare)
        if (self.path / HEADER).exists():
            (self.path / HEADER).replace(self.path / f"{HEADER}.damaged")
        write_atomic(self.path / HEADER, encode_json(content))
        return FORMAT

    def _never_held_rows(self) -> bool:
        """Whether there is nothing but headers and manifests of empty logs."""
        for log in self.path.glob("stream_*"):
            data = load_manifest(log)
            try:
                empty = data is None or parse_manifest(data)[0].blocks == 0
            except ChecksumMismatch:
                return False
            if not empty or any(path.name != MANIFEST for path in log.iterdir()):
                return False
        return True

    def _require_same(self, header: Header) -> None:
        require_same_spec(header.spec, self._spec)
        require_same_counts({"streams": header.streams}, {"streams": self._streams})

    def log(self, i: int, *, segment_bytes: int) -> SegmentLog:
        """The log of stream `i`, still to be recovered; `close` closes it."""
        log = SegmentLog(
            self.path / f"stream_{i:02d}",
            segment_bytes=segment_bytes,
            header=self._mine,
            manifest_expected=self._format > 1,
        )
        self._logs.append(log)
        return log

    def recovered(self) -> None:
        """All logs have manifests now: a folder of an older format becomes one of this format. Raises OSError."""
        if self._format < FORMAT:
            content = _parse((self.path / HEADER).read_bytes())
            write_atomic(
                self.path / HEADER,
                encode_json({**self._mine, "spec": content.spec.to_json(), "capacity": content.capacity}),
            )
            self._format = FORMAT

    def close(self) -> None:
        """Close the logs and let others write."""
        while self._logs:
            self._logs.pop().close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def read_header(folder: Path) -> tuple[Header, bool]:
    """What a folder holds, and whether its header is broken, so that a copy had to do.

    Raises ReplayMismatch where no intact copy is left, and OSError.
    """
    try:
        return _parse(retry((folder / HEADER).read_bytes)), False
    except (ChecksumMismatch, FileNotFoundError) as error:
        spare = _spare(folder)
        if spare is not None:
            return spare, True
        expected = "an intact header or a copy of it in a manifest"
        raise ReplayMismatch(f"{folder / HEADER}: expected {expected}, got {error}") from error


def _spare(folder: Path) -> Header | None:
    """The copy of the header that the first intact manifest holds."""
    for log in sorted(folder.glob("stream_*")):
        data = load_manifest(log)
        with suppress(ChecksumMismatch):
            header = {} if data is None else parse_manifest(data)[1]
            if "spec" in header:
                return _header(header)
    return None


def _parse(data: bytes) -> Header:
    """A header of any known format; raises ChecksumMismatch, ReplayMismatch."""
    try:
        loose = json.loads(data)
        header = loose if loose.get("format") == 1 and "crc32" not in loose else decode_json(data)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ChecksumMismatch(str(error)) from error
    return _header(header)


def _header(fields: Mapping[str, Any]) -> Header:
    """A header's fields with a spec of today's form; raises ChecksumMismatch, ReplayMismatch."""
    written = fields.get("format")
    if not isinstance(written, int) or written not in range(1, FORMAT + 1):
        raise ReplayMismatch(f"format: expected at most {FORMAT}, got {written}: a newer version's folder")
    try:
        return Header(EnvSpec.from_json(fields["spec"]), written, fields["streams"], fields.get("capacity"))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ChecksumMismatch(str(error)) from error


def require_same_spec(stored: EnvSpec, spec: EnvSpec) -> None:
    """Raise ReplayMismatch where a folder holds rows of another environment than `spec`."""
    for fact, expected, got in spec.differences(stored):
        raise ReplayMismatch(f"{fact}: expected {expected}, got {got}")


def require_same_counts(stored: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Raise ReplayMismatch naming the first key of `expected` that `stored` has otherwise."""
    for key, value in expected.items():
        if stored.get(key) != value:
            if key == "streams":
                raise ReplayMismatch(f"data.envs: expected {stored.get(key)} as stored there, got {value}")
            raise ReplayMismatch(f"{key}: expected {value}, got {stored.get(key)}")
