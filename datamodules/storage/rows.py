"""What one row of replay is: its columns, their order in a block, and which rows are refused."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.envs.protocol import Step
from datamodules.observation import image_bytes, misfit
from datamodules.storage.log_format import Block
from worldmodel.errors import UserError
from worldmodel.spec import EnvSpec

# the column of all images, which comes first, and how the columns of vectors begin, which come last
FRAMES, VECTOR = "pixels", "vector "


class ReplayRowInvalid(RuntimeError):
    """A row that must not be stored; names the key, what was expected and what came."""


class ReplayMismatch(UserError):
    """A folder or a state that belongs to another replay; names the key, what was expected and what was found."""


def columns(spec: EnvSpec) -> dict[str, tuple[type, tuple[int, ...]]]:
    """dtype and shape of every field of one row, in the order in which blocks store them; all images are one."""
    return {
        FRAMES: (np.uint8, (image_bytes(spec),)),
        "action": (np.float32, (spec.action_dim,)),
        "reward": (np.float32, ()),
        "is_first": (np.bool_, ()),
        "is_last": (np.bool_, ()),
        "is_terminal": (np.bool_, ()),
        "env_steps": (np.int32, ()),
        **{f"{VECTOR}{name}": (np.float32, (size,)) for name, size in spec.vectors.items()},
    }


def row_bytes(spec: EnvSpec) -> int:
    """Bytes of one row in memory; a block on disk adds its header once."""
    return sum(np.dtype(dtype).itemsize * math.prod(shape) for dtype, shape in columns(spec).values())


def check_row(spec: EnvSpec, step: Step, action: NDArray[Any]) -> None:
    """Raise ReplayRowInvalid for a row of another shape, with a non-finite value, or with impossible flags."""
    if wrong := misfit(spec, step.observation):
        raise ReplayRowInvalid(wrong)
    expected, got = (np.float32, (spec.action_dim,)), (action.dtype.type, action.shape)
    if expected != got:
        raise ReplayRowInvalid(f"action: expected {expected}, got {got}")
    if not math.isfinite(step.reward) or not np.isfinite(action).all():
        raise ReplayRowInvalid(f"reward and action: expected finite values, got {step.reward} and {action}")
    if step.is_first and action.any():
        raise ReplayRowInvalid(f"action: expected zeros at is_first (no action led there), got {action}")
    if step.is_terminal and not step.is_last:
        raise ReplayRowInvalid("is_terminal: expected is_last as well, got is_last=False")
    if step.env_steps < 0:
        raise ReplayRowInvalid(f"env_steps: expected >= 0, got {step.env_steps}")


def empty_table(spec: EnvSpec, rows: int) -> dict[str, NDArray[Any]]:
    """Every column but that of images, [rows, ...]; the system gives the memory only when rows arrive."""
    return {key: np.empty((rows, *shape), dtype) for key, (dtype, shape) in columns(spec).items() if key != FRAMES}


def encode(fields: Iterable[NDArray[Any]]) -> list[memoryview]:
    """The payload of a block of columns [n, ...] in their order; what is contiguous is not copied."""
    return [np.ascontiguousarray(values).reshape(-1).view(np.uint8).data for values in fields]


def decode(spec: EnvSpec, block: Block) -> dict[str, NDArray[Any]]:
    """The columns of a block, views of its payload; raises ReplayMismatch where rows of `spec` have another size."""
    expected = block.rows * row_bytes(spec)
    if len(block.payload) != expected:
        raise ReplayMismatch(f"block {block.number}: expected {expected} bytes, got {len(block.payload)}")
    fields: dict[str, NDArray[Any]] = {}
    offset = 0
    for key, (dtype, shape) in columns(spec).items():
        count = block.rows * math.prod(shape)
        fields[key] = np.frombuffer(block.payload, dtype, count, offset).reshape(block.rows, *shape)
        offset += fields[key].nbytes
    return fields
