"""Parquet tables: checked before they are read, and read a few rows at a time; pyarrow is imported when used."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.formats.guard import open_inside, refuse_above
from datamodules.formats.pages import chunks, require_pages
from datamodules.formats.protocol import FormatError

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
        try:
            for batch in self._parquet.iter_batches(batch_size=rows, columns=list(columns), use_threads=False):
                batch.validate(full=True)
                yield batch
        except self._errors as error:
            if isinstance(error, FormatError):
                raise
            raise FormatError(f"{self._name}: expected rows, got {error}") from error

    def _require(self, columns: Sequence[str]) -> None:
        """Refuse what the pages of these columns ask for."""
        for chunk in chunks(self._file, columns, self._name):
            name = f"{self._name} {chunk.path}"
            require_pages(self._file, chunk, name, values_max=ROW_VALUES * max(1, min(chunk.rows, ROWS)))

    def close(self) -> None:
        """Free the file."""
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
        self._begin, self._batch = self._first, None

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
        """Free the file."""
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
    if isinstance(flat, list) or not (_is_number(pa, flat.type)) or flat.null_count:
        raise FormatError(f"{name}: expected numbers in each row, got {column.type} with gaps or something else")
    values = flat.to_numpy(zero_copy_only=False)
    if len(values) != len(column) * width:
        raise FormatError(f"{name}: expected {width} values in each row, got {len(values)} in {len(column)} rows")
    return values.reshape(len(column), width)


def _is_number(pa: Any, kind: Any) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
