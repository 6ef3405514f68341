"""Under which names data sets store what a row has, and where the episodes of a flat array begin and end."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.formats.protocol import FormatError

# the names under which data sets store a field, the most telling first
FIELDS = {
    "pixels": ("image", "observation", "observations", "pixels", "frames", "rgb", "obs"),
    "action": ("action", "actions"),
    "reward": ("reward", "rewards"),
    "is_first": ("is_first",),
    "step_type": ("step_type",),
    "is_terminal": (
        *("is_terminal", "terminal", "terminals", "terminated", "terminateds", "is_terminated"),
        *("termination", "terminations"),
    ),
    "is_last": ("is_last", "last"),
    "truncated": ("truncated", "truncateds", "is_truncated", "truncation", "truncations", "timeout", "timeouts"),
    "done": ("done", "dones", "is_done"),
    "discount": ("discount", "discounts"),
    "env_steps": ("env_steps",),
}
# of these, what says where episodes begin and how they end
FLAGS = ("is_first", "step_type", "is_terminal", "is_last", "truncated", "done", "discount")
ENDS = FLAGS[2:]  # what an action may lead to


def find_fields(keys: Collection[str], *, terminal_key: str = "") -> dict[str, str]:
    """The key under which each field is stored, for those that are there.

    Raises:
        FormatError: where `terminal_key` names a key that is not there.
    """
    stored_as = {field: next((name for name in names if name in keys), "") for field, names in FIELDS.items()}
    if terminal_key not in ("", "none", *keys):
        raise FormatError(f"terminal_key: expected one of {', '.join(sorted(keys)[:20])}, got {terminal_key!r}")
    if terminal_key:
        stored_as |= {"is_terminal": "" if terminal_key == "none" else terminal_key, "done": "", "discount": ""}
    return {field: key for field, key in stored_as.items() if key}


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows of a flat array that belong to one episode; begins, ends: its first and its last row are there."""

    rows: slice
    begins: bool
    ends: bool


def split(name: str, flags: Mapping[str, NDArray[Any]], rows: int) -> tuple[list[Piece], NDArray[np.bool_]]:
    """The episodes of `rows` rows that lie one behind the other, and whether each row is terminal.

    Args:
        name: for messages.
        flags: arrays [rows] by the names in FIELDS, whichever there are.
        rows: how many there are.

    Raises:
        FormatError: for flags that are no numbers, or no rows at all.
    """
    if rows == 0:
        raise FormatError(f"{name}: expected 1 row or more, got none")
    values = {key: column(f"{name} {key}", array, rows) for key, array in flags.items()}
    is_first, is_last, is_terminal, truncated, done = (
        values.get(key, np.zeros(rows)) != 0 for key in ("is_first", "is_last", "is_terminal", "truncated", "done")
    )
    step_type = values.get("step_type", np.ones(rows))
    first = is_first if "is_first" in values else step_type == 0
    if "is_terminal" in values:
        terminal = is_terminal
    elif "discount" in values and not ("done" in values and "truncated" in values):
        # some recorders store 0 for the discount that a reset does not have
        terminal = (values["discount"] == 0) & ~first
    else:
        terminal = done & ~truncated
    last = truncated | is_last | (step_type == 2)
    knows_last = bool({"is_last", "truncated", "step_type"} & values.keys())
    knows_first = bool({"is_first", "step_type"} & values.keys())
    starts = first.copy()
    if not knows_first:
        # what ends in one row begins anew in the next
        starts[1:] |= (last | terminal | done)[:-1]
    starts[0] = True
    at = np.flatnonzero(starts).tolist()
    pieces = [
        Piece(
            slice(begin, end),
            bool(first[begin]) or not knows_first,
            bool(last[end - 1] or terminal[end - 1]) or not knows_last,
        )
        for begin, end in zip(at, [*at[1:], rows], strict=True)
    ]
    return pieces, terminal


def column(name: str, values: NDArray[Any], rows: int, *, finite: bool = True) -> NDArray[Any]:
    """Numbers [rows] or [rows, 1] as [rows]; raises FormatError."""
    if values.dtype.kind not in "biuf" or values.shape not in ((rows,), (rows, 1)):
        raise FormatError(f"{name}: expected {rows} numbers, got {values.dtype} {values.shape}")
    if finite and values.dtype.kind == "f" and not np.isfinite(values).all():
        raise FormatError(f"{name}: expected finite numbers, got NaN or infinity")
    return values.reshape(rows)
