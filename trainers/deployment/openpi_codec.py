"""The OpenPI protocol's frames: msgpack with numpy arrays as {b"__ndarray__", b"data", b"dtype", b"shape"}.

Numbers and text only: arrays of objects, records and complex numbers are refused in both directions.
"""

import math
from contextlib import suppress
from typing import Any

import msgpack
import numpy as np

NUMBERS = "biuf"
LARGEST = 64_000_000  # bytes of a message
MOST_AXES, MOST_ITEMS = 8, 10_000


class BadMessage(ValueError):
    """A frame that is not of the protocol; says what was expected."""


def pack(message: Any) -> bytes:
    """A message of dicts with text keys, lists, numbers, text and arrays; raises BadMessage for anything else."""
    try:
        return msgpack.packb(message, default=_array_to_dict)  # type: ignore[no-any-return]
    except (TypeError, ValueError, OverflowError) as error:
        raise BadMessage(f"message: {error}") from error


def unpack(frame: bytes, *, limit: int = LARGEST) -> dict[str, Any]:
    """The message of a frame.

    Args:
        frame: as it came.
        limit: of bytes.

    Raises:
        BadMessage: too large, not msgpack, no dict with text keys, or an array that is none.
    """
    if len(frame) > limit:
        raise BadMessage(f"message: expected at most {limit} bytes, got {len(frame)}")
    caps = {f"max_{kind}_len": MOST_ITEMS for kind in ("array", "map")}
    caps |= {"max_str_len": 1_000_000, "max_bin_len": limit, "max_ext_len": 0}
    try:
        message = msgpack.unpackb(frame, object_hook=_dict_to_array, strict_map_key=False, **caps)
    except BadMessage:
        raise
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException, RecursionError) as error:
        raise BadMessage(f"message: expected msgpack, got {str(error) or type(error).__name__}") from error
    if not isinstance(message, dict) or not all(isinstance(key, str) for key in message):
        raise BadMessage("message: expected names with values")
    return message


def _array_to_dict(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind not in NUMBERS:
        raise TypeError(f"expected an array of numbers, got {value.dtype}")
    if isinstance(value, np.ndarray):
        shape = {b"dtype": value.dtype.str, b"shape": value.shape}
        return {b"__ndarray__": True, b"data": np.ascontiguousarray(value).tobytes(), **shape}
    if isinstance(value, np.generic):
        return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}
    raise TypeError(f"expected numbers, text, lists, dicts or arrays, got {type(value).__name__}")


def _dict_to_array(fields: dict[Any, Any]) -> Any:
    if b"__ndarray__" in fields:
        dtype, shape, data = _dtype(fields), fields.get(b"shape"), fields.get(b"data")
        sizes = isinstance(shape, list | tuple) and len(shape) <= MOST_AXES
        if not sizes or not all(type(n) is int and 0 <= n <= LARGEST for n in shape):  # type: ignore[union-attr]
            raise BadMessage(f"array: expected a shape, got {shape!r}")
        if not isinstance(data, bytes) or math.prod(shape) * dtype.itemsize != len(data):  # type: ignore[arg-type]
            raise BadMessage(f"array: expected {shape} of {dtype}, got {len(data) if data else 0} bytes")
        return np.frombuffer(data, dtype).reshape(shape)  # type: ignore[arg-type]
    if b"__npgeneric__" in fields:
        dtype, value = _dtype(fields), fields.get(b"data")
        if not isinstance(value, int | float):
            raise BadMessage("scalar: expected a number")
        with np.errstate(over="ignore"):
            return dtype.type(value)
    return fields


def _dtype(fields: dict[Any, Any]) -> np.dtype[Any]:
    said = fields.get(b"dtype")
    if isinstance(said, bytes):
        said = said.decode(errors="replace")
    # a short text only: numpy's own syntax has records in it
    if isinstance(said, str) and len(said) <= 3 and said[-2:-1] in ("b", "i", "u", "f"):
        with suppress(TypeError):
            if (dtype := np.dtype(said)).kind in NUMBERS:
                return dtype
    raise BadMessage(f"array: expected a type of numbers such as <f4, got {said!r}")
