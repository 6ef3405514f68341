"""Exported programs beside the agent itself: the largest difference of an action on recorded frames, and the time."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainers.bundle.programs import Program
from trainers.bundle.recorded_rows import Row
from worldmodel.errors import UserError

Call = Callable[..., Tensor | tuple[Tensor, ...]]
PLANNED = 20  # rows on which the planner's iteration is compared: it costs as much as a hundred filters


class ParityFailed(UserError):
    """An exported program gives other actions than the agent."""


def by_onnx(model: bytes, program: Program) -> Call:
    """An ONNX model by onnxruntime, one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    taken = {value.name for value in session.get_inputs()}

    def call(*arguments: Tensor) -> tuple[Tensor, ...]:
        named = {k: v.numpy() for k, v in zip(program.inputs, arguments, strict=True) if k in taken}
        return tuple(torch.from_numpy(out) for out in session.run(None, named))

    return call


@torch.no_grad()
def compare(
    programs: Mapping[str, Program], calls: Mapping[str, Mapping[str, Call]], rows: Sequence[Row]
) -> dict[str, Any]:
    """Run every form over the same rows, each with the carry and the latents that it makes itself.

    Args:
        programs: by name, as `programs_of` gives them.
        calls: by form ("eager" and the formats), then by program.
        rows: consecutive ones, the first of an episode among them.

    Returns:
        `parity_max`, the largest difference of an action in [-1, 1]; `differences` by form and program, `ms` likewise.
    """
    traces = {form: _trace(programs, own, rows) for form, own in calls.items()}
    differences: dict[str, dict[str, float]] = {}
    for form, (outputs, _) in traces.items():
        if form != "eager":
            differences[form] = {
                name: max(_distance(a, b) for a, b in zip(outputs[name], traces["eager"][0][name], strict=True))
                for name in outputs
            }
    actions = [d for of in differences.values() for name, d in of.items() if name != "filter"]
    return {
        "rows": len(rows),
        "parity_max": max(actions, default=max((d for of in differences.values() for d in of.values()), default=0.0)),
        "differences": differences,
        "ms": {form: {name: float(np.median(times)) for name, times in of.items()} for form, (_, of) in traces.items()},
    }


def _trace(
    programs: Mapping[str, Program], calls: Mapping[str, Call], rows: Sequence[Row]
) -> tuple[dict[str, list[Tensor]], dict[str, list[float]]]:
    """The first output of each program at every row, and the milliseconds that each call took."""
    outputs: dict[str, list[Tensor]] = {name: [] for name in programs}
    times: dict[str, list[float]] = {name: [] for name in programs}

    def timed(name: str, *arguments: Tensor) -> tuple[Tensor, ...]:
        start = time.perf_counter()
        said = calls[name](*arguments)
        out = said if isinstance(said, tuple) else (said,)
        times[name].append(1e3 * (time.perf_counter() - start))
        outputs[name].append(out[0])
        return out

    carry = programs["filter"].inputs["carry"]
    for t, row in enumerate(rows):
        latent, carry = timed("filter", row.action, row.is_first, carry, *row.observation.values())[:2]
        if "policy" in programs:
            timed("policy", latent)
        if "planner_iteration" in programs and t < PLANNED:
            _, *fixed = programs["planner_iteration"].inputs.values()  # all but the latent
            timed("planner_iteration", latent, *fixed)
    return outputs, times


def _distance(a: Tensor, b: Tensor) -> float:
    both = (a - b).abs().max().item()
    return float(both) if np.isfinite(both) else float("inf")
