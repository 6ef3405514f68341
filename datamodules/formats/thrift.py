"""Just enough of Thrift's compact protocol (thrift.apache.org) to read the structs of a Parquet file."""

from typing import Any

from datamodules.formats.protocol import FormatError, HostileFile

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
