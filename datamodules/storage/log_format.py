"""The bytes of a replay log: numbered blocks with checksums, the manifest that commits them, and JSON with a checksum.

A block is a header and a payload, each with a CRC-32. Blocks and rows are numbered without gaps, so that a gap found
while reading is damage and can be counted. Nothing here knows what a row holds.
"""

import json
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import Any

from datamodules.storage.durable import write_atomic

MAGIC = b"RPLB"
VERSION = 1
_FIELDS = struct.Struct("<4sHHQQIIQQI")
_CRC = struct.Struct("<I")
HEADER_BYTES = _FIELDS.size + _CRC.size


class Kind(IntEnum):
    """What a block says: new rows, "the row before was the episode's last", or "the newest rows are dropped"."""

    ROWS = 0
    CLOSE = 1
    DROP = 2


@dataclass(frozen=True, slots=True)
class Block:
    """One record of the log.

    first_row: number of its first row (CLOSE, DROP: of the next row). rows: rows added (DROP: rows dropped).
    env_steps, episodes: the stream's totals once the block is applied.
    """

    kind: Kind
    number: int
    first_row: int
    rows: int
    env_steps: int
    episodes: int
    payload: bytes | memoryview = b""

    @property
    def next_row(self) -> int:
        """The number of the row that follows."""
        return self.first_row + (self.rows if self.kind is Kind.ROWS else 0)


@dataclass(frozen=True, slots=True)
class StoredBlock:
    """An intact block of a segment: where its payload begins and ends, and its header's CRC.

    The header holds the payload's CRC: its own tells one history of a stream from another.
    """

    block: Block
    begin: int
    end: int
    crc: int


def encode_header(block: Block, parts: Sequence[memoryview]) -> tuple[bytes, int, int]:
    """The header of `block` with the payload `parts`, the payload's size, and the header's own CRC."""
    size, payload_crc = sum(part.nbytes for part in parts), 0
    for part in parts:
        payload_crc = zlib.crc32(part, payload_crc)
    counters = (block.number, block.first_row, block.rows, size, block.env_steps, block.episodes)
    fields = _FIELDS.pack(MAGIC, VERSION, block.kind, *counters, payload_crc)
    crc = zlib.crc32(fields)
    return fields + _CRC.pack(crc), size, crc


def _decode_header(data: memoryview, position: int) -> tuple[Block, int, int] | None:
    """The block (without payload), its payload's size and CRC; None where no intact header starts."""
    fields = data[position : position + _FIELDS.size]
    stored = data[position + _FIELDS.size : position + HEADER_BYTES]
    if len(stored) < _CRC.size or _CRC.unpack(stored)[0] != zlib.crc32(fields):
        return None
    _, version, kind, number, first_row, rows, size, env_steps, episodes, crc = _FIELDS.unpack(fields)
    if version != VERSION or kind not in set(Kind):
        return None
    return Block(Kind(kind), number, first_row, rows, env_steps, episodes), size, crc


def intact_blocks(content: bytes) -> Iterator[StoredBlock]:
    """Every intact block of a segment; damaged ones are passed over."""
    data, position = memoryview(content), 0
    while (position := content.find(MAGIC, position)) >= 0:
        header = _decode_header(data, position)
        if header is None:
            position += 1
            continue
        block, size, crc = header
        # a damaged payload says nothing about where the next block begins
        position = begin = position + HEADER_BYTES
        payload = data[begin : begin + size]
        if len(payload) == size and zlib.crc32(payload) == crc:
            position = begin + size
            header_crc = _CRC.unpack(data[begin - _CRC.size : begin])[0]
            yield StoredBlock(replace(block, payload=payload), begin, position, header_crc)


def is_torn(tail: memoryview) -> bool:
    """Whether the bytes after the last intact block are a write that never finished (rather than damage)."""
    header = _decode_header(tail, 0)
    return len(tail) < HEADER_BYTES or (header is not None and len(tail) < HEADER_BYTES + header[1])


@dataclass(slots=True)
class LogCounters:
    """blocks, rows: the numbers that come next. damaged_blocks, lost_rows: numbers that were passed over."""

    blocks: int = 0
    rows: int = 0
    damaged_blocks: int = 0
    lost_rows: int = 0

    def accepts(self, block: Block) -> bool:
        """Whether `block` goes on from here, perhaps after a gap; False for one that was met already."""
        if block.number < self.blocks or block.first_row < self.rows:
            return False
        self.skip_to(blocks=block.number, rows=block.first_row)
        self.blocks, self.rows = block.number + 1, block.next_row
        return True

    def skip_to(self, *, blocks: int, rows: int) -> None:
        """Everything below these numbers that was not met is missing."""
        self.damaged_blocks += max(0, blocks - self.blocks)
        self.lost_rows += max(0, rows - self.rows)
        self.blocks, self.rows = max(self.blocks, blocks), max(self.rows, rows)


class ChecksumMismatch(ValueError):
    """A sealed file that is not as it was written."""


def encode_json(content: Mapping[str, Any]) -> bytes:
    """JSON of `content` (string keys) and its CRC-32."""
    crc = zlib.crc32(json.dumps(content).encode())
    return json.dumps({**content, "crc32": f"{crc:08x}"}, indent=1).encode()


def decode_json(data: bytes) -> dict[str, Any]:
    """What `encode_json` was given; raises ChecksumMismatch."""
    try:
        content = json.loads(data)
        content.pop("crc32")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ChecksumMismatch(f"no sealed JSON: {error}") from error
    # written again it must be the same bytes: that covers spaces and spellings, too
    if encode_json(content) != data:
        raise ChecksumMismatch("its CRC-32 is another's")
    return content


MANIFEST = "manifest.json"
_KEYS = ("first_block", "first_row", "blocks", "rows", "crc")


@dataclass(frozen=True, slots=True)
class Manifest:
    """The log's oldest block and row, and the numbers that followed its newest durable block, whose CRC is `crc`."""

    first_block: int = 0
    first_row: int = 0
    blocks: int = 0
    rows: int = 0
    crc: int = 0


def write_manifest(folder: Path, manifest: Manifest, *, header: Mapping[str, Any]) -> None:
    """Replace a log's manifest; `header` is kept with it, as a copy of the folder's. Raises OSError."""
    write_atomic(folder / MANIFEST, encode_json({**asdict(manifest), "header": header}))


def load_manifest(folder: Path) -> bytes | None:
    """A log's manifest as it is in the file, None where there is none; raises OSError."""
    try:
        return (folder / MANIFEST).read_bytes()
    except FileNotFoundError:
        return None


def parse_manifest(data: bytes) -> tuple[Manifest, dict[str, Any]]:
    """The manifest and the copy of the folder's header that `load_manifest` gave; raises ChecksumMismatch."""
    content = decode_json(data)
    numbers: dict[str, Any] = {key: content.get(key) for key in _KEYS}
    if not all(type(number) is int and number >= 0 for number in numbers.values()):
        raise ChecksumMismatch(f"expected {', '.join(_KEYS)}, got {content}")
    return Manifest(*(int(content[key]) for key in _KEYS)), content.get("header", {})
