"""What is expensive to make of weights, kept for as long as they are the same."""

import itertools
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook

T = TypeVar("T")

_steps = itertools.count(1)
_last_step = 0  # of any optimiser in this process


def _count_step(*_: Any) -> None:
    global _last_step
    _last_step = next(_steps)


register_optimizer_step_post_hook(_count_step)


class WhileUnchanged(Generic[T]):
    """Holds one thing that was made of tensors on the CPU; copies and pickles of it are empty.

    A change is seen by the version that torch counts at every operation in place, by the memory that a tensor lies in,
    and by every optimiser's step: fused ones count no versions. Of tensors on other devices, whose replayed graphs tell
    nobody, and of those made in inference mode, which have no version, nothing is kept.
    """

    def __init__(self) -> None:
        self._made: T | None = None
        self._tensors: list[Tensor] = []  # held: another must not get the address of one that is gone
        self._states: list[tuple[int, ...]] = []

    def get(self, tensors: Iterable[Tensor], make: Callable[[], T]) -> T:
        """What was made last where all tensors are the same as then, else what `make` makes now."""
        rows = [*tensors]
        if any(row.is_inference() or row.device.type != "cpu" for row in rows):
            return make()
        states = [(_last_step,), *((row._version, row.data_ptr()) for row in rows)]
        same = len(rows) == len(self._tensors) and all(a is b for a, b in zip(rows, self._tensors, strict=True))
        if self._made is None or not same or states != self._states:
            self._made, self._tensors, self._states = make(), rows, states
        return self._made

    def __reduce__(self) -> tuple[type["WhileUnchanged[T]"], tuple[()]]:
        return WhileUnchanged, ()
