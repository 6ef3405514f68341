"""Parquet tables, read a few rows at a time; what their pages ask for is checked before a library allocates it.

The footer's sums can lie; what is allocated is what each page's own header says. And pyarrow 26 aborts the process when
it shows a damaged column's facts, so footer and page headers are read here: structs in Thrift's compact protocol
(thrift.apache.org) with the field numbers of github.com/apache/parquet-format. pyarrow is imported when used.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from datamodules.formats.guard import open_inside, refuse_above
from datamodules.formats.protocol import FormatError, HostileFile, reading

ROWS = 1 << 26  # of one file
COLUMNS = 4096
ROW_VALUES = 1024  # of one column in one row: joints, not pixels
_FOOTER_STRING, _FOOTER_ITEMS = 1 << 24, 1 << 20


class Table:
    """One Parquet file inside `root`; columns: the names of its top-level ones, rows: how many it says it has.

    Raises HostileFile, FormatError, OSError.
    """

    def __init__(self, root: Path, path: Path) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        self._errors = (pa.ArrowException, OSError, ValueError, MemoryError)
        self._name = str(path)
        self._file = os.fdopen(open_inside(root, path), "rb")
        limits = {"thrift_string_size_limit": _FOOTER_STRING, "thrift_container_size_limit": _FOOTER_ITEMS}
        try:
            self._parquet = parquet.ParquetFile(self._file, pre_buffer=False, **limits)
            self.columns, self.rows = list(self._parquet.schema_arrow.names), self._parquet.metadata.num_rows
        except self._errors as error:
            self._file.close()
            raise FormatError(f"{path}: expected a Parquet file, got {error}") from error
        refuse_above(ROWS, self.rows, f"{path}: rows")
        refuse_above(COLUMNS, self._parquet.metadata.num_columns, f"{path}: columns")

    def batches(self, columns: Sequence[str], *, rows: int) -> Iterator[Any]:
        """Record batches of at most `rows` rows with these columns, in order; raises HostileFile, FormatError."""
        missing = [column for column in columns if column not in self.columns]
        if missing:
            raise FormatError(f"{self._name}: expected columns {missing}, got {', '.join(self.columns)[:200]}")
        self._require(columns)
        with reading(f"{self._name}: expected rows, got", self._errors):
            for batch in self._parquet.iter_batches(batch_size=rows, columns=list(columns), use_threads=False):
                batch.validate(full=True)
                yield batch

    def _require(self, columns: Sequence[str]) -> None:
        """Refuse what the pages of these columns ask for."""
        for chunk in chunks(self._file, columns, self._name):
            name = f"{self._name} {chunk.path}"
            require_pages(self._file, chunk, name, values_max=ROW_VALUES * max(1, min(chunk.rows, ROWS)))

    def close(self) -> None:
        self._parquet.close()
        self._file.close()


class Rows:
    """The rows of one table by the numbers in its column `index`, read forward; asking for earlier ones begins again.

    Raises HostileFile, FormatError, OSError, and so does `take`.
    """

    def __init__(self, root: Path, path: Path, columns: Sequence[str], *, batch_rows: int) -> None:
        self.path, self._columns, self._batch_rows = path, columns, batch_rows
        self._table = Table(root, path)
        first = next(self._table.batches(["index"], rows=1), None)
        if first is None or not len(first):
            self.close()
            raise FormatError(f"{path}: expected 1 row or more, got none")
        self._first = int(matrix(first.column("index"), 1, f"{path} index")[0, 0])
        self._batches: Iterator[Any] = iter(())
        self._begin = self._first
        self._batch: Any = None

    def take(self, begin: int, end: int) -> Iterator[Any]:
        """Record batches that make up the rows numbered begin..end - 1."""
        if begin < self._first:
            raise FormatError(f"{self.path}: expected row {begin}, got a table that begins at {self._first}")
        if self._batch is None or begin < self._begin:
            self._batches = self._table.batches(self._columns, rows=self._batch_rows)
            self._begin, self._batch = self._first, None
            self._advance(0)
        while begin < end:
            while begin >= self._begin + len(self._batch):
                self._advance(len(self._batch))
            part = self._batch.slice(begin - self._begin, end - begin)
            begin += len(part)
            yield part

    def _advance(self, passed: int) -> None:
        batch = next(self._batches, None)
        self._begin, self._batch = self._begin + passed, batch
        if batch is None:
            raise FormatError(f"{self.path}: expected more rows, got the end of the table after {self._begin - 1}")

    def close(self) -> None:
        self._table.close()


def blobs(column: Any, name: str) -> Iterator[bytes]:
    """The bytes of a column of encoded pictures: binary, or a struct with a field `bytes`; raises FormatError."""
    import pyarrow as pa

    if pa.types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0:
        column = column.field("bytes")
    if not (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
        raise FormatError(f"{name}: expected encoded pictures, got {column.type}")
    if column.null_count:
        raise FormatError(f"{name}: expected the picture's bytes in each row, got a row without")
    return (value.as_py() for value in column)


def matrix(column: Any, width: int, name: str) -> NDArray[Any]:
    """A column of numbers, or of lists of `width` of them, as [rows, width]; raises FormatError for any other."""
    import pyarrow as pa

    if column.null_count:
        raise FormatError(f"{name}: expected a value in each row, got {column.null_count} rows without")
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        lengths = np.diff(column.offsets.to_numpy())
        if (lengths != width).any():
            raise FormatError(f"{name}: expected {width} values in each row, got {lengths[lengths != width][0]} in one")
    nested = pa.types.is_nested(column.type)
    if nested and not hasattr(column, "flatten"):
        raise FormatError(f"{name}: expected numbers, got {column.type}")
    flat = column.flatten() if nested else column
    kinds = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean)
    if isinstance(flat, list) or flat.null_count or not any(is_kind(flat.type) for is_kind in kinds):
        raise FormatError(f"{name}: expected numbers in each row, got {column.type} with gaps or something else")
    values = flat.to_numpy(zero_copy_only=False)
    if len(values) != len(column) * width:
        raise FormatError(f"{name}: expected {width} values in each row, got {len(values)} in {len(column)} rows")
    return values.reshape(len(column), width)


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


VALUES, DEPTH = 1 << 21, 16
_BOOLS, _BYTE, _INTEGERS, _DOUBLE, _BINARY, _LISTS, _STRUCT = (1, 2), 3, (4, 5, 6), 7, 8, (9, 10), 12


class Compact:
    """Reads structs from `data`; position: the first byte behind what was read. name: for messages."""

    def __init__(self, data: bytes, name: str) -> None:
        self._data, self._name, self.position, self._values = data, name, 0, 0

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """Fields by number: integers, booleans, bytes, structs as dicts, and lists of structs or bytes, others empty.

        Raises FormatError for damage, HostileFile for too much.
        """
        fields: dict[int, Any] = {}
        number = 0
        while (head := self._byte()) != 0:
            delta = head >> 4
            number = number + delta if delta else self._signed()
            kind = head & 15
            fields[number] = kind == 1 if kind in _BOOLS else self._value(kind, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        self._values += 1
        if depth > DEPTH or self._values > VALUES:
            raise HostileFile(f"{self._name}: expected at most {VALUES} values, {DEPTH} deep, got more")
        if kind in (*_BOOLS, _BYTE):  # a boolean takes a byte in a list
            return self._byte()
        if kind in _INTEGERS:
            return self._signed()
        if kind == _STRUCT:
            return self.struct(depth + 1)
        if kind in _LISTS:
            return self._list(depth)
        if kind not in (_BINARY, _DOUBLE):
            raise FormatError(f"{self._name}: expected Parquet's fields, got one of kind {kind}: damaged")
        length = 8 if kind == _DOUBLE else self._varint()
        begin, self.position = self.position, self.position + length
        return self._data[begin : self.position]

    def _list(self, depth: int) -> list[Any]:
        head = self._byte()
        length = head >> 4 if head >> 4 < 15 else self._varint()
        items = []
        for _ in range(length):  # each takes a byte at least: the data end it
            value = self._value(head & 15, depth + 1)
            if isinstance(value, dict | bytes):
                items.append(value)
        return items

    def _byte(self) -> int:
        if self.position >= len(self._data):
            raise FormatError(f"{self._name}: expected more fields, got the end: truncated or damaged")
        self.position += 1
        return self._data[self.position - 1]

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
            if shift > 63:
                raise FormatError(f"{self._name}: expected a number of 64 bits, got more: damaged")

    def _signed(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
