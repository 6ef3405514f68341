"""What a loop asks of the machine, counted while it runs once: GFLOP of its products, kernels that a GPU is given."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode


def _linear(x: Any, *_: Any, out_shape: Any, **__: Any) -> int:
    return 2 * math.prod(x) * int(out_shape[-1])


def _added(_: Any, x: Any, weight: Any, **__: Any) -> int:
    return 2 * math.prod(x) * int(weight[-1])


# products of planners' rollouts on a CPU that torch does not count by itself
UNCOUNTED: dict[Any, Callable[..., int]] = {torch.ops.aten.addmm_: _added}
if hasattr(torch.ops.mkldnn, "_linear_pointwise"):
    UNCOUNTED[torch.ops.mkldnn._linear_pointwise] = _linear


def gflop(call: Callable[[], object]) -> float:
    """Of matrix products and convolutions, backward passes included; elementwise work is not counted."""
    with FlopCounterMode(display=False, custom_mapping=UNCOUNTED) as counter:
        call()
    return counter.get_total_flops() / 1e9


def launches(call: Callable[[], object], device: torch.device) -> int | None:
    """Kernels that a GPU is given; None on a CPU."""
    if device.type != "cuda":
        return None
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        call()
        torch.cuda.synchronize(device)
    events = [e for e in seen.events() or () if e.device_type == DeviceType.CUDA]
    return sum(not event.name.startswith(("Memcpy", "Memset")) for event in events)
