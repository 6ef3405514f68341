"""A folder of segments: whose rows it holds (`replay.json`), and who may write to it."""

import fcntl
import json
import os
from pathlib import Path
from typing import Any

from datamodules.durable import write_atomic
from datamodules.rows import ReplayMismatch
from worldmodel.spec import EnvSpec

FORMAT = 1
HEADER = "replay.json"


class ReplayFolder:
    """A folder for the rows of `spec` in `streams` logs, this process's alone until `close`.

    capacity: rows of the replay that made the folder, for whoever reads the header; another may go on there.
    Raises ReplayMismatch where the folder is in use or holds other rows, and OSError.
    """

    def __init__(self, path: Path, spec: EnvSpec, *, streams: int, capacity: int | None = None) -> None:
        self.path, self._capacity = path, capacity
        path.mkdir(parents=True, exist_ok=True)
        self._lock: int | None = os.open(path / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            self._take_lock()
            self._claim({"format": FORMAT, "spec": spec.to_json(), "streams": streams})
        except (OSError, ReplayMismatch):
            self.close()
            raise

    def _take_lock(self) -> None:
        assert self._lock is not None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ReplayMismatch(f"folder {self.path} is in use by another replay") from error

    def _claim(self, mine: dict[str, Any]) -> None:
        # through JSON, so that tuples compare as what they become
        mine = json.loads(json.dumps(mine))
        header = self.path / HEADER
        if header.exists():
            require_same(_read_header(header), mine)
        else:
            write_atomic(header, json.dumps({**mine, "capacity": self._capacity}, indent=1).encode())

    def stream(self, i: int) -> Path:
        """The folder of a stream's log."""
        return self.path / f"stream_{i:02d}"

    def close(self) -> None:
        """Let others write."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def read_spec(folder: Path) -> EnvSpec:
    """What the rows of a folder are; raises ReplayMismatch, OSError."""
    header = _read_header(folder / HEADER)
    require_same(header, {"format": FORMAT})
    return EnvSpec.from_json(header["spec"])


def _read_header(path: Path) -> dict[str, Any]:
    try:
        header = json.loads(path.read_bytes())
        # facts that an older version did not know have their defaults
        return {**header, "spec": json.loads(json.dumps(EnvSpec.from_json(header["spec"]).to_json()))}
    except (ValueError, TypeError, KeyError) as error:
        raise ReplayMismatch(f"{path}: expected JSON, got {error}; delete the file to write it again") from error


def require_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Raise ReplayMismatch naming the first key of `expected` that `found` has otherwise."""
    for key, value in expected.items():
        # visual options count as a whole: what is in them, nothing else, and their order
        if isinstance(value, dict) and key != "visuals":
            require_same(found.get(key, {}), value)
        elif json.dumps(found.get(key)) != json.dumps(value):
            raise ReplayMismatch(f"{key}: expected {value}, got {found.get(key)}")
