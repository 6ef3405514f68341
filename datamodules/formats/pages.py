"""What the pages of a Parquet file ask for, read before a library allocates it.

The footer's sums can lie; what is allocated is what each page's own header says. And pyarrow 26 aborts the process when
it shows a damaged column's facts, so the footer is read here. Structs and their field numbers are those of
github.com/apache/parquet-format.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from datamodules.formats.guard import refuse_above
from datamodules.formats.protocol import FormatError, HostileFile
from datamodules.formats.thrift import Compact

PAGE_BYTES = 1 << 26
PAGES = 100_000
FOOTER_BYTES = 1 << 24
_HEADER_BYTES = 1 << 16
_DATA, _DICTIONARY, _DATA_V2 = 5, 7, 8


@dataclass(frozen=True, slots=True)
class Chunk:
    """A column's part of a row group of `rows` rows: `size` bytes of pages from `begin` on."""

    path: str
    rows: int
    begin: int
    size: int


def chunks(file: BinaryIO, columns: Sequence[str], name: str) -> Iterator[Chunk]:
    """The chunks of these top-level columns, as the footer places them; raises HostileFile, FormatError."""
    for group in _items(_footer(file, name), 4):
        rows = group.get(3)
        for column in _items(group, 1):
            facts = column.get(3)
            facts = facts if isinstance(facts, dict) else {}
            parts = facts.get(3)
            path = b".".join(parts if isinstance(parts, list) else []).decode(errors="replace")
            if any(f"{path}.".startswith(f"{wanted}.") for wanted in columns):
                begins = [facts[field] for field in (9, 11) if isinstance(facts.get(field), int) and facts[field] > 0]
                size = facts.get(7)
                if not (begins and isinstance(size, int) and isinstance(rows, int)) or min(size, rows) < 0:
                    raise FormatError(f"{name} {path}: expected the place of its pages, got none: damaged")
                yield Chunk(path, rows, min(begins), size)


def _footer(file: BinaryIO, name: str) -> dict[int, Any]:
    end = file.seek(0, os.SEEK_END)
    file.seek(max(0, end - 8))
    tail = file.read(8)
    size = int.from_bytes(tail[:4], "little")
    if tail[4:] != b"PAR1" or size > end - 8:
        raise FormatError(f"{name}: expected a Parquet file, got another kind of file or a truncated one")
    refuse_above(FOOTER_BYTES, size, f"{name}: bytes of the footer")
    file.seek(end - 8 - size)
    return Compact(file.read(size), f"{name} footer").struct()


def _items(struct: dict[int, Any], field: int) -> list[dict[int, Any]]:
    items = struct.get(field)
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def require_pages(file: BinaryIO, chunk: Chunk, name: str, *, values_max: int) -> None:
    """Walk the pages of one chunk; raises HostileFile where one, or all together, ask for too much.

    values_max: values of its data pages together.
    """
    position, end, values = chunk.begin, chunk.begin + chunk.size, 0
    for _ in range(PAGES):
        if position >= end:
            return
        file.seek(position)
        header = Compact(file.read(min(_HEADER_BYTES, end - position)), name)
        page = header.struct()
        unpacked, packed = page.get(2), page.get(3)
        if not (isinstance(unpacked, int) and isinstance(packed, int)) or min(unpacked, packed) < 0:
            raise FormatError(f"{name}: expected a page's sizes, got none: truncated or damaged")
        refuse_above(PAGE_BYTES, unpacked, f"{name}: bytes of a page")
        values += max(0, _count(page.get(_DATA)), _count(page.get(_DATA_V2)))
        refuse_above(values_max, values, f"{name}: values of a column")
        refuse_above(values_max, _count(page.get(_DICTIONARY)), f"{name}: values of a dictionary")
        position += header.position + packed
    raise HostileFile(f"{name}: expected at most {PAGES} pages in a column, got more")


def _count(header: object) -> int:
    count = header.get(1, 0) if isinstance(header, dict) else 0
    return count if isinstance(count, int) else 0
