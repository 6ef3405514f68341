"""Which of EGL's devices is a given GPU: EGL has an order of its own, and CUDA_VISIBLE_DEVICES means nothing to it."""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

# of EGL_EXT_device_persistent_id and EGL_NV_device_cuda
_UUID, _CUDA = 0x335C, 0x323A
_MOST = 64


@dataclass(frozen=True, slots=True)
class EGLDevice:
    """What EGL says of one of its devices: its UUID and its number in CUDA, None where it does not say."""

    uuid: str | None = None
    cuda: int | None = None


def egl_device(devices: Sequence[EGLDevice], *, number: int, uuid: str | None) -> int:
    """The index of a GPU among EGL's devices, for MUJOCO_EGL_DEVICE_ID.

    Args:
        devices: EGL's, in its order.
        number: the GPU's number in CUDA, as this process counts.
        uuid: the GPU's, if known.

    Returns:
        The device of that UUID; else that of the number, if EGL knows numbers; else the one at the number's place, or
        the first where there are fewer devices than GPUs, as in a container without the driver's graphics part.
    """
    if uuid is not None:
        for index, device in enumerate(devices):
            if device.uuid is not None and UUID(device.uuid) == UUID(uuid.removeprefix("GPU-")):
                return index
    for index, device in enumerate(devices):
        if device.cuda == number:
            return index
    return number if number < len(devices) else 0


def list_egl_devices() -> list[EGLDevice]:
    """EGL's devices in its order; none where EGL cannot be asked."""
    try:
        library = ctypes.CDLL("libEGL.so.1")
    except OSError:
        return []
    query = _function(library, "eglQueryDevicesEXT", ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.c_int))
    handles, count = (ctypes.c_void_p * _MOST)(), ctypes.c_int()
    if query is None or not query(_MOST, handles, ctypes.byref(count)):
        return []
    return [EGLDevice(_uuid(library, handle), _cuda(library, handle)) for handle in handles[: count.value] if handle]


def _uuid(library: ctypes.CDLL, handle: int) -> str | None:
    kinds = (ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.c_int))
    query, value, size = _function(library, "eglQueryDeviceBinaryEXT", *kinds), (ctypes.c_ubyte * 16)(), ctypes.c_int()
    known = query is not None and query(handle, _UUID, len(value), value, ctypes.byref(size)) and size.value == 16
    return str(UUID(bytes=bytes(value))) if known else None


def _cuda(library: ctypes.CDLL, handle: int) -> int | None:
    kinds = (ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(ctypes.c_ssize_t))
    query, value = _function(library, "eglQueryDeviceAttribEXT", *kinds), ctypes.c_ssize_t()
    return value.value if query is not None and query(handle, _CUDA, ctypes.byref(value)) else None


def _function(library: ctypes.CDLL, name: str, *kinds: type) -> Any:
    """An extension's function, which returns whether it succeeded; None where EGL does not have it."""
    find = library.eglGetProcAddress
    find.restype, find.argtypes = ctypes.c_void_p, [ctypes.c_char_p]
    address = find(name.encode())
    return ctypes.CFUNCTYPE(ctypes.c_uint, *kinds)(address) if address else None
