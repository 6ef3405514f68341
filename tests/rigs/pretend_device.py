"""An accelerator that is not there: numbers on the CPU, a device of its own for everybody who looks.

A `Pretend` tensor says that it is on `pretend:0`. Its operations run on the CPU, but raise where CUDA would refuse a
tensor of the host, and what would make the host wait is noted with its place, as are kernels.

Not seen: autocast and inference mode (taken as no_grad), waits inside operations other than WAITS, dtypes that CUDA
lacks, streams, time. Kernels are a lower bound: operations that are no views, one each but for SEVERAL. Registering a
device is for the whole process: use it in one of its own.
"""

import contextlib
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch.utils import backend_registration
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

NAME = "pretend"
DEVICE = torch.device
ROOT = str(Path(__file__).parents[2])

# allocation, views and metadata launch nothing
# fmt: off
FREE = {
    "view", "_unsafe_view", "t", "transpose", "permute", "expand", "slice", "select", "split", "split_with_sizes",
    "unbind", "unsqueeze", "squeeze", "detach", "alias", "as_strided", "unfold", "diagonal", "empty",
    "empty_like", "empty_strided", "new_empty", "new_empty_strided", "lift_fresh", "narrow", "_reshape_alias",
    "is_same_size", "sym_size", "chunk", "view_as", "movedim", "set_", "size", "stride", "_local_scalar_dense",
}
# fmt: on
# kernels on CUDA, at least, of operations that are more than one
SEVERAL = {"native_layer_norm_backward": 2, "convolution_backward": 3, "sort": 3, "topk": 2, "randperm": 3}
SEVERAL |= {"std_mean": 1, "linalg_eigh": 20, "_linalg_eigh": 20, "linalg_cholesky_ex": 5, "_linalg_solve_ex": 5}
# what makes the host wait whatever it is given
WAITS = {"_linalg_check_errors", "nonzero", "masked_select", "_linalg_eigh", "unique_dim", "_unique2", "equal"}
INDEXED = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}


class MixedDevices(RuntimeError):
    """An operation between the device and the host, which CUDA refuses."""


@dataclass
class Watch:
    """What happened on the device: kernels by operation, waits of the host by place and reason."""

    kernels: Counter[str] = field(default_factory=Counter)
    waits: Counter[tuple[str, str]] = field(default_factory=Counter)
    arrivals: Counter[str] = field(default_factory=Counter)  # copies from the host by place, waited for or not


class _Module(backend_registration._DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


class Pretend(torch.Tensor):
    """A tensor on the device, whose numbers are in `raw` on the host."""

    raw: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, raw: torch.Tensor) -> "Pretend":
        options = {"storage_offset": raw.storage_offset(), "dtype": raw.dtype, "layout": raw.layout, "device": DEVICE}
        made = torch.Tensor._make_wrapper_subclass(cls, raw.size(), strides=raw.stride(), **options)
        made.raw = raw
        return made

    def __repr__(self) -> str:
        return f"Pretend({self.raw!r})"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


class _OnDevice(TorchDispatchMode):
    """Makes what is asked for on the device, and lets nothing pass unseen."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


def register() -> None:
    """Make the device known to torch, for the rest of the process."""
    global DEVICE
    backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
    DEVICE = torch.device(NAME, 0)
    autocast = torch.library.Library("_", "IMPL", "AutocastPrivateUse1")
    autocast.fallback(torch.library.fallthrough_kernel)
    own = torch.library.Library("aten", "IMPL", "PrivateUse1")
    # one kernel on CUDA; a device that has none of its own gets a formula of six operations
    silu_backward = torch.ops.aten.silu_backward.default
    own.impl("silu_backward", lambda gradient, x: _run(silu_backward, (gradient, x), {}))
    _libraries.extend([autocast, own])  # they are unregistered when they are collected


_libraries: list[torch.library.Library] = []
_watch = Watch()


@contextlib.contextmanager
def watching() -> Iterator[Watch]:
    """Everything within happens on the device where it is asked for; yields what is seen."""
    global _watch
    before, _watch = _watch, Watch()
    try:
        with torch.autograd.set_multithreading_enabled(False), _literals(), _OnDevice():
            yield _watch
    finally:
        _watch = before


def move(module: torch.nn.Module) -> torch.nn.Module:
    """What `module.to(device)` does: parameters and buffers, nothing else."""
    moved: dict[int, torch.nn.Parameter] = {}
    for part in module.modules():
        for name, weight in part._parameters.items():
            if weight is not None:
                there = Pretend(weight.detach().clone())
                moved.setdefault(id(weight), torch.nn.Parameter(there, requires_grad=weight.requires_grad))
                part._parameters[name] = moved[id(weight)]
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = Pretend(buffer.detach().clone())
    return module


def _run(func, args, kwargs):
    name = func._schema.name.split("::")[1]
    tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, torch.Tensor)]
    there = [x for x in tensors if isinstance(x, Pretend)]
    here = [x for x in tensors if not isinstance(x, Pretend)]
    target = kwargs.get("device")
    to_device = target is not None and torch.device(target).type == NAME
    if not there and not to_device:
        return func(*args, **kwargs)
    _note_copies_and_waits(name, args, kwargs, there, here, to_device)
    if there and name not in ("_to_copy", "copy_"):
        _refuse_mixed(func, name, args, here)
    if name not in FREE:
        per_call = SEVERAL.get(name, 1)
        # kernels over lists of tensors take about sixty at once
        grouped = name.startswith(("_foreach", "_fused"))
        _watch.kernels[name] += -(-len(args[0]) // 60) if grouped else per_call
    return _returned(func, name, args, kwargs, there, to_device)


def _note_copies_and_waits(name, args, kwargs, there, here, to_device):
    if name in ("_to_copy", "copy_"):
        target = kwargs.get("device")
        leaves = bool(there) and ((target is not None and not to_device) or not isinstance(args[0], Pretend))
        arrives = (to_device and not there) or (name == "copy_" and isinstance(args[0], Pretend) and bool(here))
        asynchronous = kwargs.get("non_blocking", False) or (name == "copy_" and len(args) > 2 and args[2])
        if arrives:
            _watch.arrivals[_place()] += 1
        if (leaves or arrives) and not asynchronous:
            _watch.waits[_place(), "copy to the host" if leaves else "copy to the device"] += 1
    elif name == "_local_scalar_dense":
        _watch.waits[_place(), "item, bool, float or int"] += 1
    elif name in WAITS:
        _watch.waits[_place(), name] += 1
    elif name in INDEXED:
        indices = [x for x in args[1] or [] if x is not None]
        if any(not isinstance(x, Pretend) for x in indices):
            _watch.waits[_place(), "index on the host"] += 1
        filled = name.startswith("index_put") and len(args) > 2 and args[2].numel() == 1
        masks = 0 if filled else sum(x.dtype in (torch.bool, torch.uint8) for x in indices)
        if masks:
            _watch.waits[_place(), "index by a mask"] += masks


def _refuse_mixed(func, name, args, here):
    """Numbers without a dimension may be on the host, and so may indices."""
    indices = [id(x) for x in args[1] or [] if x is not None] if name in INDEXED else []
    wrong = [tuple(x.shape) for x in here if x.dim() and id(x) not in indices]
    if wrong:
        raise MixedDevices(f"{func}: {NAME} with tensors {wrong} of the host, at {_place()}")


def _returned(func, name, args, kwargs, there, to_device):
    raw_args, raw_kwargs = tree_map(_raw, args), tree_map(_raw, kwargs)
    if to_device:
        raw_kwargs["device"] = torch.device("cpu")
    raw_kwargs.update({"pin_memory": False} if raw_kwargs.get("pin_memory") else {})
    out = func(*raw_args, **raw_kwargs)
    if name == "copy_" and not isinstance(args[0], Pretend):
        return args[0]
    if not to_device and (not there or kwargs.get("device") is not None):
        # a copy to the host must not be the device's own memory
        return out.clone() if any(out is x.raw for x in there) else out
    written = [
        args[i] if i < len(args) else kwargs.get(argument.name)
        for i, argument in enumerate(func._schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    ]
    if not written:
        made: dict[int, Pretend] = {}
        return tree_map(lambda x: made.setdefault(id(x), Pretend(x)) if type(x) is torch.Tensor else x, out)
    if torch.Tag.inplace_view in func.tags:  # the wrapper's own shape changes with it
        with no_dispatch():
            func(*args, **kwargs)
    returns = len(func._schema.returns)
    return None if returns == 0 else written[0] if returns == 1 else tuple(written)


def _raw(x):
    return x.raw if isinstance(x, Pretend) else x


def _place() -> str:
    """The innermost line of the project, these pages apart."""
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(ROOT) and name != __file__ and "/.venv/" not in name:
            return f"{name[len(ROOT) + 1 :]}:{frame.f_lineno}"
        frame = frame.f_back
    return "backward or library"


@contextlib.contextmanager
def _literals() -> Iterator[None]:
    """Tensors from numbers are made on the host and copied, as on CUDA: torch does it where no mode can see it."""
    made, like, inference = torch.tensor, torch.Tensor.new_tensor, torch.inference_mode

    def tensor(data, *, device=None, **options):
        there = device is not None and torch.device(device).type == NAME
        return made(data, **options).to(device) if there else made(data, device=device, **options)

    def new_tensor(self, data, *, device=None, dtype=None, **options):
        return tensor(data, device=device or self.device, dtype=dtype or self.dtype, **options)

    torch.tensor, torch.Tensor.new_tensor = tensor, new_tensor
    # views that are made in inference mode have no version counter, which wrappers need
    torch.inference_mode = lambda mode=True: torch.no_grad() if mode else contextlib.nullcontext()
    try:
        yield
    finally:
        torch.tensor, torch.Tensor.new_tensor, torch.inference_mode = made, like, inference
