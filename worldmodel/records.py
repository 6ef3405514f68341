"""Records of tensors, all parts at once."""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

import torch
from jaxtyping import Bool
from torch import Tensor

T = TypeVar("T")


def choose(rows: Bool[Tensor, "*R"], one: T, two: T) -> T:
    """`one` in the rows that are marked, `two` in the others: of tensors [*R ...], and of records of them."""

    def part(a: Any, b: Any) -> Any:
        if isinstance(a, Tensor):
            return torch.where(rows.view(*rows.shape, *[1] * (a.ndim - rows.ndim)), a, b)
        return replace(a, **{f.name: part(getattr(a, f.name), getattr(b, f.name)) for f in fields(a)})

    return part(one, two)


def joined(parts: Sequence[T]) -> T:
    """The rows of several records of one kind, one after the other."""
    columns: Any = fields(parts[0])  # type: ignore[arg-type]
    return type(parts[0])(*(torch.cat([getattr(part, f.name) for part in parts]) for f in columns))
