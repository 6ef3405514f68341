"""Whether a frame can be drawn here, found out in a child process: GL may hang or take the interpreter down."""

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from datamodules.envs.gl import GPU
from trainers.process.child import start_module

BACKENDS = ("egl", "osmesa")
TIMEOUT_SECONDS = 30.0
PACKAGES = {"egl": ("libegl1", "libgl1-mesa-dri"), "osmesa": ("libosmesa6",)}
FIXES = {name: f"sudo apt-get update && sudo apt-get install -y {' '.join(PACKAGES[name])}" for name in BACKENDS}
PROGRAM = "trainers.machine.draw_frames"

State = Literal["ok", "note", "fail"]


@dataclass(frozen=True)
class Check:
    """One finding: "ok", "note" (worth knowing, nothing breaks) or "fail" (needed, and `fix` says what to do)."""

    name: str
    finding: str
    state: State = "ok"
    fix: str = ""


def check_render(task: str | None = "cartpole_swingup") -> Check:
    """Draw one frame on the backend that training will use: MUJOCO_GL where it is set, else the first that works.

    task: of the suite, None where the environment needs no GL.
    """
    if task is None:
        return Check("render", "this task draws without GL")
    checks: dict[str, Check] = {}
    for backend in wanted_backends():
        checks[backend] = check_backend(backend, task=task)
        if checks[backend].state == "ok":
            break
    return verdict(checks)


def wanted_backends() -> tuple[str, ...]:
    """The GL backends that training may choose from, in its order."""
    chosen = os.environ.get("MUJOCO_GL")
    return (chosen,) if chosen else BACKENDS


def verdict(checks: Mapping[str, Check]) -> Check:
    """Whether one of the wanted backends draws, from the findings by backend; without one, the fix."""
    wanted = {backend: checks[backend] for backend in wanted_backends() if backend in checks}
    working = next((backend for backend, check in wanted.items() if check.state == "ok"), None)
    if working:
        return Check("render", f"{working}: {wanted[working].finding}")
    findings = "; ".join(f"{backend}: {check.finding}" for backend, check in wanted.items())
    return Check("render", findings, "fail", _fix(next(iter(wanted), BACKENDS[0]), findings))


def check_backend(
    backend: str, *, task: str = "cartpole_swingup", gpu: GPU | None = None, timeout_s: float = TIMEOUT_SECONDS
) -> Check:
    """Draw with one GL backend, on a GPU if one is given; a failing backend is a note, training may use another."""
    name = f"render {backend}" + (f" gpu {gpu[0]}" if gpu is not None else "")
    drawn = probe(backend, task=task, gpu=gpu, timeout_s=timeout_s)
    if "error" in drawn:
        return Check(name, drawn["error"], "note")
    if drawn["blank"]:
        return Check(name, f"{drawn['renderer']} draws a blank frame", "note")
    times = f"fast {drawn['fast_ms']:.1f} ms, suite {drawn['suite_ms']:.1f} ms a frame"
    return Check(name, f"{times} ({drawn['renderer']})")


def probe(backend: str, *, task: str, gpu: GPU | None = None, timeout_s: float = TIMEOUT_SECONDS) -> dict[str, Any]:
    """What a child saw: fast_ms, suite_ms, blank, renderer; or error, one line."""
    child = start_module(
        PROGRAM,
        json.dumps([task, gpu]),
        environ={**os.environ, "MUJOCO_GL": backend},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    try:
        out, complaint = child.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        return {"error": f"no frame within {timeout_s:.0f} s: the driver hangs"}
    finally:
        child.kill()
        child.wait()
    if child.returncode:
        return {"error": _cause(complaint, child.returncode)}
    drawn: dict[str, Any] = json.loads(out.splitlines()[-1])
    return drawn


def _cause(complaint: str, code: int) -> str:
    lines = [line.strip() for line in complaint.splitlines() if line.strip()]
    if code < 0:
        return f"the drawing process was killed by signal {-code}"
    last = lines[-1] if lines else f"exit status {code}"
    if "'NoneType' object has no attribute 'gl" in last or "'NoneType' object has no attribute 'egl" in last:
        return "its library cannot be loaded"
    return last.split("; cause: ")[-1].removeprefix("datamodules.envs.errors.")


def _fix(backend: str, findings: str) -> str:
    if "UnknownTask" in findings:
        return "choose a task of the control suite"
    if "No module named" in findings:
        return "make setup"
    return FIXES.get(backend, "unset MUJOCO_GL")
