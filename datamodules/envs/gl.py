"""Choose the off-screen OpenGL backend before MuJoCo is imported, and say what is missing."""

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from datamodules.envs.egl_devices import egl_device, list_egl_devices
from datamodules.envs.errors import MissingGL

# a GPU's number in CUDA and its UUID, which EGL knows it by, None where that is not known
GPU = Sequence[Any]

_INSTALL = (
    "MuJoCo cannot draw off screen: run `apt-get install -y libegl1 libgl1-mesa-dri` "
    "(or `apt-get install -y libosmesa6` and set MUJOCO_GL=osmesa)"
)
_LIBRARIES = {"egl": ("libEGL.so.1", "libEGL.so"), "osmesa": ("libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so")}


def missing(detail: object) -> MissingGL:
    """The one error for every way in which GL can be absent, ending with the cause."""
    return MissingGL(f"{_INSTALL}; cause: {detail}")


def choose_backend(*, gpu: GPU | None) -> str:
    """Set and return MUJOCO_GL (a value already set wins), on a GPU if one is given; raises MissingGL."""
    if gpu is not None:
        number, uuid = gpu
        os.environ["MUJOCO_EGL_DEVICE_ID"] = str(egl_device(list_egl_devices(), number=number, uuid=uuid))
    # 64x64 frames are too small for Mesa's rasteriser threads: they only steal cores from the other workers
    os.environ.setdefault("LP_NUM_THREADS", "0")
    return os.environ.setdefault("MUJOCO_GL", _first_that_loads())


@contextlib.contextmanager
def disabled() -> Iterator[None]:
    """MuJoCo is imported without a GL backend: one that draws software frames crashes a process that has torch."""
    before = os.environ.get("MUJOCO_GL")
    os.environ["MUJOCO_GL"] = "disabled"
    try:
        yield
    finally:
        os.environ.pop("MUJOCO_GL", None)
        os.environ.update({} if before is None else {"MUJOCO_GL": before})


def _first_that_loads() -> str:
    if "MUJOCO_GL" in os.environ:
        return os.environ["MUJOCO_GL"]
    if sys.platform != "linux":
        return "glfw"
    for backend, names in _LIBRARIES.items():
        if any(_loads(name) for name in names):
            return backend
    raise missing("neither libEGL nor libOSMesa can be loaded")


def _loads(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def renderer_name() -> str:
    """The driver behind the current GL context, e.g. "llvmpipe (LLVM 15.0.6, 256 bits)"."""
    from OpenGL import GL  # PyOpenGL picks its platform on import, after MUJOCO_GL is known

    name = GL.glGetString(GL.GL_RENDERER)
    return name.decode(errors="replace") if name else "unknown"


def is_software(renderer: str) -> bool:
    """Whether `renderer` draws on the CPU."""
    return any(word in renderer.lower() for word in ("llvmpipe", "softpipe", "swrast", "software"))
