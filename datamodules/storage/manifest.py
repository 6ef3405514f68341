"""Which blocks of a log are durable, committed by rename: it betrays what is missing where numbers show no gap."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from datamodules.storage.durable import write_atomic
from datamodules.storage.sealed import Broken, seal, unseal

NAME = "manifest.json"
_KEYS = ("first_block", "first_row", "blocks", "rows", "crc")


@dataclass(frozen=True, slots=True)
class Manifest:
    """The log's oldest block and row, and the numbers that followed its newest durable block, whose CRC is `crc`."""

    first_block: int = 0
    first_row: int = 0
    blocks: int = 0
    rows: int = 0
    crc: int = 0


def commit(folder: Path, manifest: Manifest, *, header: Mapping[str, Any]) -> None:
    """Replace a log's manifest; `header` is kept with it, as a copy of the folder's. Raises OSError."""
    write_atomic(folder / NAME, seal({**asdict(manifest), "header": header}))


def load(folder: Path) -> bytes | None:
    """A log's manifest as it is in the file, None where there is none; raises OSError."""
    try:
        return (folder / NAME).read_bytes()
    except FileNotFoundError:
        return None


def read(folder: Path) -> tuple[Manifest, dict[str, Any]] | None:
    """A log's manifest and the copy of the folder's header, None where there is none; raises Broken, OSError."""
    data = load(folder)
    return None if data is None else parse(data)


def parse(data: bytes) -> tuple[Manifest, dict[str, Any]]:
    """The manifest and the copy of the folder's header that `load` gave; raises Broken."""
    content = unseal(data)
    numbers = {key: content.get(key) for key in _KEYS}
    if not all(type(number) is int and number >= 0 for number in numbers.values()):
        raise Broken(f"expected {', '.join(_KEYS)}, got {content}")
    return Manifest(**numbers), content.get("header", {})
