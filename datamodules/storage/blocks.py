"""The record of a replay log: a numbered block, a header and a payload, each with a CRC-32.

Blocks are numbered without gaps, so that a gap found while reading is damage and can be counted. Nothing here knows
what a row holds.
"""

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

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
class Found:
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


def intact_blocks(content: bytes) -> Iterator[Found]:
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
            yield Found(replace(block, payload=payload), begin, position, header_crc)


def is_torn(tail: memoryview) -> bool:
    """Whether the bytes after the last intact block are a write that never finished (rather than damage)."""
    header = _decode_header(tail, 0)
    return len(tail) < HEADER_BYTES or (header is not None and len(tail) < HEADER_BYTES + header[1])
