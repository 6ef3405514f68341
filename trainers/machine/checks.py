"""Checks of this machine against a configuration."""

import importlib
import platform
import shutil
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from datamodules.envs.gl import GPU
from datamodules.storage.budget import MEMORY_SHARE, available_bytes, footprint, memory_budget, parse_bytes, rows_of
from trainers.machine.hardware import gpu_uuid, usable_cores
from trainers.machine.precision import bf16_flags
from trainers.machine.rendering import BACKENDS, Check, State, check_backend, check_render, verdict, wanted_backends
from worldmodel.errors import BadValue
from worldmodel.spec import EnvSpec

PROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"
OPTIONAL = ("tensorboard", "gymnasium", "h5py", "pyarrow")
MALWARE = {"lightning": ("2.6.2", "2.6.3")}
SETUP = "make setup"
ROOM_BYTES = 1_000_000_000  # checkpoints, videos and what else a run writes


def all_checks(config: Mapping[str, Any]) -> Iterator[Check]:
    """Every check for a resolved run configuration, cheap ones first."""
    runs = Path(config.get("run_dir") or "runs")
    yield check_python()
    yield from (check_package(wanted.name, str(wanted.specifier)) for wanted in requirements())
    yield check_torchvision()
    yield from (check_malware(name, versions) for name, versions in MALWARE.items())
    yield from (check_optional(name) for name in OPTIONAL)
    yield check_cores()
    yield check_allocator()
    yield from check_replay(config, runs)
    yield check_writable(runs)
    task = suite_task(config)
    yield from check_gpus(task)
    if task is None:
        yield check_render(None)
    else:
        checks = {name: check_backend(name, task=task) for name in dict.fromkeys((*wanted_backends(), *BACKENDS))}
        yield from checks.values()
        yield verdict(checks)


def check_python() -> Check:
    """Python 3.11 or newer."""
    if not SpecifierSet(">=3.11").contains(platform.python_version(), prereleases=True):
        return Check("python", platform.python_version(), "fail", "use Python 3.11 or 3.12")
    return Check("python", platform.python_version())


def requirements() -> list[Requirement]:
    """The packages that this project needs: those of its pyproject.toml, or, installed, of its metadata."""
    if PROJECT.exists():
        lines = tomllib.loads(PROJECT.read_text())["project"]["dependencies"]
    else:
        lines = metadata.requires("worldmodel") or []
    return [requirement for requirement in map(Requirement, lines) if requirement.marker is None]


def check_package(name: str, wanted: str) -> Check:
    """A needed package is there in a version that is known to work."""
    version = _version(name)
    fix = f"pip install '{name}{wanted}'"
    if version is None:
        return Check(name, "not installed", "fail", fix)
    if not SpecifierSet(wanted).contains(version, prereleases=True):
        return Check(name, f"{version}, needs {wanted}", "fail", fix)
    return Check(name, version)


def check_torchvision() -> Check:
    """torchvision is the one built for this torch, and its operators load."""
    version, torch_version = _version("torchvision"), _version("torch")
    fix = "pip install --upgrade --force-reinstall torch torchvision (both from one index, in one command)"
    if version is None:
        return Check("torchvision", "not installed", "fail", fix)
    pins = [Requirement(line) for line in metadata.requires("torchvision") or ()]
    pin = next((pin.specifier for pin in pins if pin.name == "torch"), SpecifierSet())
    if torch_version and not pin.contains(torch_version, prereleases=True):
        return Check("torchvision", f"{version} is for torch{pin}, here is torch {torch_version}", "fail", fix)
    try:
        importlib.import_module("torchvision")
    except (ImportError, RuntimeError, OSError) as error:
        return Check("torchvision", f"{version} does not import: {error}", "fail", fix)
    return Check("torchvision", f"{version} with torch {torch_version}")


def check_malware(name: str, versions: Sequence[str]) -> Check:
    """A package whose published versions were malicious is not here in one of these."""
    version = _version(name)
    if version in versions:
        return Check(name, f"{version} is malware", "fail", f"pip uninstall {name}, then change this machine's secrets")
    return Check(name, f"{version or 'not installed'}: not a malicious version")


def check_optional(name: str) -> Check:
    """A package that one feature needs."""
    version = _version(name)
    return Check(name, version) if version else Check(name, "not installed (optional)", "note", f"pip install {name}")


def check_cores() -> Check:
    """CPU cores this process may use, and whether they compute in bf16."""
    cores = len(usable_cores())
    bf16 = bf16_flags()
    return Check("cpu", f"{cores} cores, bf16 {'by ' + bf16[0] if bf16 else 'emulated: trainer.precision=32-true'}")


def check_allocator() -> Check:
    """Whether large buffers stay in the process instead of going back to the kernel after every step."""
    path = Path("/proc/self/maps")
    maps = path.read_text(errors="replace") if path.exists() else ""
    other = next((name for name in ("jemalloc", "tcmalloc", "mimalloc") if name in maps), None)
    if other:
        return Check("allocator", f"{other}, preloaded")
    if platform.libc_ver()[0] == "glibc":
        return Check("allocator", "glibc malloc, which trainers.fit tunes at its start")
    return Check("allocator", "not glibc: malloc stays untuned, updates may be a third slower", "note")


def check_replay(config: Mapping[str, Any], runs: Path) -> Iterator[Check]:
    """Memory and disk against what the replay of the configured capacity takes."""
    capacity = _capacity(config)
    size = config["task"]["env"].get("size", 64)
    # The number of action dimensions is only known to the environment; beside a frame it weighs nothing.
    spec = EnvSpec(
        config["task"]["name"], {"pixels": (3, size, size)}, action_dim=6, action_repeat=1, episode_steps=1000
    )
    limit = memory_budget(config["data"].get("memory_budget", MEMORY_SHARE))
    sizes = {"streams": config["data"].get("envs", 1), "flush_rows": config["data"].get("flush_rows", 100)}
    budget = footprint(spec, rows_of(capacity, spec), **sizes, memory_limit=limit, on_disk=True)
    memory, folder = budget.memory_bytes, _nearest_folder(runs)
    text = f"replay of {budget.rows:,} rows takes"
    fitting = f"data.capacity={limit * budget.rows // memory // 1000 * 1000} or less, or a larger machine"
    where = ", its frames mapped from disk" if budget.mapped else ""
    yield _room("memory", available_bytes(), memory, f"{text} {_size(memory)}{where}", fitting)
    needed = budget.disk_bytes + ROOM_BYTES
    room = f"free space on the disk of {folder}"
    yield _room("disk", shutil.disk_usage(folder).free, needed, f"{text} {_size(budget.disk_bytes)}", room)


def check_writable(runs: Path) -> Check:
    """The run folder's parent takes files."""
    folder = _nearest_folder(runs)
    try:
        with tempfile.TemporaryFile(dir=folder):
            return Check("runs folder", f"{runs}/ can be written")
    except OSError as error:
        return Check("runs folder", f"{folder}: {error.strerror}", "fail", f"make {folder} writable for this user")


def check_gpus(task: str | None) -> Iterator[Check]:
    """CUDA devices by name, bf16, and the EGL device that each rank will draw on."""
    try:
        cuda = importlib.import_module("torch").cuda
        count = cuda.device_count() if cuda.is_available() else 0
    except (ImportError, RuntimeError, OSError) as error:
        yield Check("gpu", f"torch does not import: {error}", "fail", SETUP)
        return
    if not count:
        yield Check("gpu", "none: training runs on the CPU")
    for rank in range(count):
        bf16 = "bf16" if cuda.is_bf16_supported() else "no bf16"
        yield Check(f"gpu {rank}", f"{cuda.get_device_name(rank)}, {bf16}")
        if task:
            yield _egl_device(task, (rank, gpu_uuid(rank)), several=count > 1)


def _egl_device(task: str, gpu: GPU, *, several: bool) -> Check:
    check = check_backend("egl", task=task, gpu=gpu)
    on_gpu = check.state == "ok" and "llvmpipe" not in check.finding
    fix = "" if on_gpu else "give the container the driver's graphics part: NVIDIA_DRIVER_CAPABILITIES=all"
    # one rank's frames may come from the CPU; those of several ranks would take it from each other
    state: State = "ok" if on_gpu else "fail" if several else "note"
    return Check(f"egl of rank {gpu[0]}", check.finding, state, fix)


def suite_task(config: Mapping[str, Any]) -> str | None:
    """The control suite task to draw, None where the environment needs no GL."""
    return config["task"]["name"] if config["task"]["source"] == "dmc" else None


def _capacity(config: Mapping[str, Any]) -> int | str:
    capacity = config["data"]["capacity"]
    if isinstance(capacity, str):
        with suppress(ValueError):
            parse_bytes(capacity)
            return capacity
    if isinstance(capacity, bool) or not isinstance(capacity, int) or capacity < 1:
        raise BadValue(f"data.capacity: expected a whole number of rows, or bytes like 12GB, got {capacity!r}")
    return capacity


def _room(name: str, free: int, need: int, text: str, fix: str) -> Check:
    finding = f"{_size(free)} free; {text}"
    return Check(name, finding) if free >= need else Check(name, finding, "fail", fix)


def _nearest_folder(path: Path) -> Path:
    path = path.resolve()
    return next((folder for folder in (path, *path.parents) if folder.is_dir()), Path("/"))


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB"
