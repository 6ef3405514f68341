"""What the pages of a Parquet file ask for, read before a library allocates it.

The footer's sums can lie; what is allocated is what each page's own header says. Headers are Thrift compact structs:
github.com/apache/parquet-format, PageHeader, fields 1 type, 2 uncompressed size, 3 compressed size, 5, 7, 8 by kind.
"""

from typing import Any, BinaryIO

from datamodules.formats.guard import refuse_above
from datamodules.formats.protocol import FormatError, HostileFile

PAGE_BYTES = 1 << 26
PAGES = 100_000
_HEADER_BYTES = 1 << 16
_DATA, _DICTIONARY, _DATA_V2 = 5, 7, 8
_BOOLS, _INTEGERS, _DOUBLE, _BINARY, _LISTS, _MAP, _STRUCT = (1, 2), (3, 4, 5, 6), 7, 8, (9, 10), 11, 12


def require_pages(file: BinaryIO, name: str, *, begin: int, size: int, values_max: int) -> None:
    """Walk the pages of one column chunk; raises HostileFile where one, or all together, ask for too much.

    begin, size: the chunk's place in the file in bytes. values_max: values of its data pages together.
    """
    position, end, values = begin, begin + size, 0
    for _ in range(PAGES):
        if position >= end:
            return
        file.seek(position)
        header = _Compact(file.read(min(_HEADER_BYTES, end - position)), name)
        page = header.struct()
        unpacked, packed = page.get(2), page.get(3)
        if not (isinstance(unpacked, int) and isinstance(packed, int)) or min(unpacked, packed) < 0:
            raise FormatError(f"{name}: expected a page's sizes, got none: truncated or damaged")
        refuse_above(PAGE_BYTES, unpacked, f"{name}: bytes of a page")
        kind = next((page[field] for field in (_DATA, _DATA_V2) if isinstance(page.get(field), dict)), {})
        values += max(0, _count(kind))
        refuse_above(values_max, values, f"{name}: values of a column")
        refuse_above(values_max, _count(page.get(_DICTIONARY)), f"{name}: values of a dictionary")
        position += header.position + packed
    raise HostileFile(f"{name}: expected at most {PAGES} pages in a column, got more")


def _count(header: object) -> int:
    count = header.get(1, 0) if isinstance(header, dict) else 0
    return count if isinstance(count, int) else 0


class _Compact:
    """Just enough of Thrift's compact protocol to read one struct; position: the first byte behind it."""

    def __init__(self, data: bytes, name: str) -> None:
        self._data, self._name, self.position = data, name, 0

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """Fields by number; what is neither a number nor a struct is passed over as None."""
        fields: dict[int, Any] = {}
        number = 0
        while (head := self._byte()) != 0:
            delta = head >> 4
            number = number + delta if delta else self._signed()
            fields[number] = self._value(head & 15, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if depth > 8:
            raise HostileFile(f"{self._name}: expected a page header, got one that is nested too deeply")
        if kind in _BOOLS:
            return kind == 1
        if kind in _INTEGERS:
            return self._byte() if kind == 3 else self._signed()
        if kind == _STRUCT:
            return self.struct(depth + 1)
        if kind == _DOUBLE:
            self.position += 8
        elif kind == _BINARY:
            length = self._varint()
            self.position += length
        elif kind in _LISTS:
            self._pass_list(depth)
        else:
            raise FormatError(f"{self._name}: expected a page header, got a field of kind {kind}")
        return None

    def _pass_list(self, depth: int) -> None:
        head = self._byte()
        length = head >> 4 if head >> 4 < 15 else self._varint()
        for _ in range(min(length, _HEADER_BYTES)):
            self._value(head & 15, depth + 1)

    def _byte(self) -> int:
        if self.position >= len(self._data):
            raise FormatError(f"{self._name}: expected a page header, got the end: truncated or damaged")
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
