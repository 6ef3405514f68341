"""Nested state to JSON and tensors, and back, exactly; nothing in a file can name code.

Plain JSON values stay themselves. What JSON cannot say becomes a dict with one `$` key: `$tensor`, `$array`, `$scalar`
(the name of a stored tensor), `$tuple`, `$dict` (pairs), `$bytes` (base64) and `$float` (inf, -inf, nan).
"""

import base64
import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

STORED_DTYPES = frozenset(
    getattr(torch, name)
    for name in (
        *("bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"),
        *("float16", "bfloat16", "float32", "float64", "complex64", "float8_e4m3fn", "float8_e5m2"),
    )
)
_FLOATS = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}


def plain(tensor: Tensor, *, path: str) -> Tensor:
    """A contiguous CPU copy that owns its storage; raises TypeError, naming `path`, for what a file cannot hold."""
    known = type(tensor) in (Tensor, torch.nn.Parameter) and tensor.dtype in STORED_DTYPES
    if not known or tensor.layout is not torch.strided or tensor.is_meta:
        raise TypeError(
            f"{path}: expected a dense tensor of a stored dtype, got {type(tensor).__name__} {tensor.dtype}"
        )
    content = tensor.detach().cpu().resolve_conj().resolve_neg()
    return content.clone(memory_format=torch.contiguous_format)


class Packer:
    """Packs trees into JSON-able values, and collects their tensors in `tensors` under the name of their place.

    Two references to one tensor stay one. Raises TypeError, naming the place, for what cannot be restored exactly.
    """

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._names: dict[tuple[Any, ...], str] = {}
        self._kept: list[Tensor] = []

    def pack(self, value: Any, *, path: str) -> Any:
        """The JSON-able form of `value`, which lies at `path`."""
        if value is None or type(value) in (bool, int, str):
            return value
        if type(value) is float:
            return value if math.isfinite(value) else {"$float": str(value)}
        if isinstance(value, dict):
            return self._pack_dict(value, path)
        if type(value) in (list, tuple, torch.Size):
            items = [self.pack(item, path=f"{path}[{i}]") for i, item in enumerate(value)]
            return items if type(value) is list else {"$tuple": items}
        if type(value) is bytes:
            return {"$bytes": base64.b64encode(value).decode()}
        return self._pack_numbers(value, path)

    def _pack_dict(self, value: dict[Any, Any], path: str) -> dict[str, Any]:
        wrong = [key for key in value if type(key) not in (str, int)]
        if wrong:
            raise TypeError(f"{path}: expected keys of type str or int, got {wrong[0]!r}")
        pairs = [(key, self.pack(item, path=f"{path}[{key!r}]")) for key, item in value.items()]
        plain_keys = all(type(key) is str and not key.startswith("$") for key in value)
        return dict(pairs) if plain_keys else {"$dict": [list(pair) for pair in pairs]}

    def _pack_numbers(self, value: Any, path: str) -> dict[str, Any]:
        if isinstance(value, Tensor):
            return {"$tensor": self._name(value, path)}
        if isinstance(value, np.generic | np.ndarray):
            self.tensors[path] = _from_numpy(np.asarray(value), path)
            return {"$array" if isinstance(value, np.ndarray) else "$scalar": path}
        raise TypeError(f"{path}: expected tensors, arrays, numbers, text or containers, got {type(value).__name__}")

    def _name(self, tensor: Tensor, path: str) -> str:
        content = plain(tensor, path=path)
        place = (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride(), tensor.is_conj())
        if tensor.numel() and place in self._names:
            return self._names[place]
        # addresses tell tensors apart only while all of them are alive
        self._kept.append(tensor)
        self._names[place] = path
        self.tensors[path] = content
        return path


def _from_numpy(value: NDArray[Any], path: str) -> Tensor:
    if value.dtype.kind not in "biufc" or not value.dtype.isnative:
        raise TypeError(f"{path}: expected an array of numbers in native byte order, got {value.dtype}")
    try:
        return torch.from_numpy(np.array(value, order="C"))
    except TypeError as error:
        raise TypeError(f"{path}: expected a stored dtype, got {value.dtype}") from error


def unpack(value: Any, tensors: dict[str, Tensor]) -> Any:
    """What `Packer.pack` packed; raises KeyError, TypeError or ValueError for anything else."""
    if isinstance(value, list):
        return [unpack(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    tag = next(iter(value), "")
    if not tag.startswith("$"):
        return {key: unpack(item, tensors) for key, item in value.items()}
    (content,) = value.values()
    return _unpack_tagged(tag, content, tensors)


def _unpack_tagged(tag: str, content: Any, tensors: dict[str, Tensor]) -> Any:
    if tag == "$tensor":
        return tensors[content]
    if tag in ("$array", "$scalar"):
        array = tensors[content].numpy()
        return array if tag == "$array" else array[()]
    if tag == "$tuple":
        return tuple(unpack(item, tensors) for item in content)
    if tag == "$dict":
        return {key: unpack(item, tensors) for key, item in content}
    if tag == "$bytes":
        return base64.b64decode(content, validate=True)
    if tag == "$float":
        return _FLOATS[content]
    raise ValueError(f"unknown tag {tag}")
