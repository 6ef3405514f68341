"""Operations that are recorded once and launched together from then on: CUDA graphs of functions of tensors.

An update of a small model is thousands of kernels of some microseconds, which the host launches more slowly than a GPU
computes them; replayed, they are one launch.
"""

from collections import Counter
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from worldmodel.errors import UserError

Tensors = dict[str, Tensor]
PLAIN_CALLS = 3  # before a recording: what libraries set up at a first call is no part of one
MOST_SHAPES = 8  # that are recorded: every recording keeps memory of its own


class NotRecordable(UserError):
    """A function that waits for the device, or needs memory of the host, cannot be recorded."""


@runtime_checkable
class Recorder(Protocol):
    """Whoever can record what a function asks of a device."""

    def plain(self, work: Callable[[], Tensors]) -> Tensors:
        """Do the work as a recording will do it, without recording it."""

    def record(self, work: Callable[[], Tensors]) -> tuple[Callable[[], object], Tensors]:
        """What repeats the work in the same memory, and where it leaves its results; they may not be there yet."""


class CudaRecorder:
    """CUDA graphs of a device, recorded on a stream of their own."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def plain(self, work: Callable[[], Tensors]) -> Tensors:
        """On the recordings' stream, whose allocations then come to lie where theirs will."""
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            results = work()
        current.wait_stream(self._stream)
        return results

    def record(self, work: Callable[[], Tensors]) -> tuple[Callable[[], object], Tensors]:
        """Raises NotRecordable where the work waits for the device."""
        graph = torch.cuda.CUDAGraph()
        try:
            # other threads load batches meanwhile, and may
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                results = work()
        except RuntimeError as error:
            line = str(error).partition("\n")[0]
            raise NotRecordable(f"trainer.cuda_graphs: expected work without a wait for the GPU, got {line}") from error
        return graph.replay, results


class Graphed:
    """A function of tensors by name, which is recorded for every shape of its inputs and replayed from then on.

    Args:
        function: named tensors to named tensors. Whatever the numbers are it must ask for the same operations, read
            what stays between calls (weights, buffers) from the same memory, and change it in place.
        recorder: of the device that the tensors are on.
    """

    def __init__(self, function: Callable[..., Tensors], recorder: Recorder) -> None:
        self._function, self._recorder = function, recorder
        self._calls: Counter[object] = Counter()
        self._recorded: dict[object, tuple[Tensors, Callable[[], object], Tensors]] = {}

    def __call__(self, **inputs: Tensor) -> Tensors:
        """What the function returns, in memory of its own."""
        shapes = tuple((name, rows.shape, rows.dtype) for name, rows in inputs.items())
        gradients = torch.is_grad_enabled()  # which leaving inference mode would switch on
        # tensors made in inference mode could not be written again outside of it
        with torch.inference_mode(False), torch.set_grad_enabled(gradients):
            if shapes not in self._recorded:
                self._calls[shapes] += 1
                if self._calls[shapes] <= PLAIN_CALLS or len(self._recorded) == MOST_SHAPES:
                    return self._recorder.plain(lambda: self._function(**inputs))
                memory = {name: rows.clone() for name, rows in inputs.items()}
                self._recorded[shapes] = memory, *self._recorder.record(lambda: self._function(**memory))
            memory, replay, results = self._recorded[shapes]
            for name, rows in inputs.items():
                memory[name].copy_(rows, non_blocking=True)
            replay()
            return {name: rows.clone() for name, rows in results.items()}
