"""A recorder that needs no GPU: what a CUDA graph would replay, traced operation by operation and run on the CPU."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from worldmodel.cuda_graphs import Tensors


class OperationRecorder:
    """Records the operations that reach the device, with the memory that they read and write, as a CUDA graph does.

    A graph does nothing while it is recorded, a trace does: what it changed is put back, random numbers too.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self.recordings = 0
        self.replays = 0

    def plain(self, work: Callable[[], Tensors]) -> Tensors:
        """Nothing is special about it here."""
        return work()

    def record(self, work: Callable[[], Tensors]) -> tuple[Callable[[], object], Tensors]:
        """Raises RuntimeError where the work reads a number of the device, as a graph would."""
        self.recordings += 1
        with self._undone():
            program = make_fx(work)()
        results: Tensors = {}

        def replay() -> None:
            self.replays += 1
            for name, rows in _run(program).items():
                results.setdefault(name, torch.empty_like(rows)).copy_(rows)

        return replay, results

    @contextmanager
    def _undone(self) -> Iterator[None]:
        grads = [weight.grad for weight in self._module.parameters() if weight.grad is not None]
        state = [rows.detach() for rows in (*self._module.parameters(), *self._module.buffers(), *grads)]
        before: list[Tensor] = [rows.clone() for rows in state]
        with torch.random.fork_rng(devices=[]):
            yield
        for rows, old in zip(state, before, strict=True):
            rows.copy_(old)


def _run(program: Callable[[], Tensors]) -> Tensors:
    with torch.no_grad(), torch.autocast("cpu", enabled=False):  # casts are among what was recorded
        return program()
