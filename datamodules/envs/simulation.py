"""What Gymnasium's MuJoCo tasks leave open: a view that the seed fixes, and a simulation that has blown up."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from datamodules.envs.errors import Diverged

# of the model, where a task has it: it moves along with the robot
CAMERA = "track"
_CHOICES = ("camera_id", "camera_name", "default_camera_config")


def fix_view(env: Any, kwargs: Mapping[str, Any]) -> str | None:
    """Let a task be drawn from a view that depends on its state alone, and say which; None for what has no renderer.

    Gymnasium's free camera looks at where the geoms were when the first frame was drawn, so that the frames of a seed
    depend on what was played before. A model's camera "track" is taken instead, or else the free one looks at where
    the geoms are in the model's own pose.

    Args:
        env: A Gymnasium environment that has drawn nothing yet.
        kwargs: Its constructor's arguments; a camera that they choose is taken.
    """
    chosen = {**(getattr(env.spec, "kwargs", None) or {}), **kwargs}
    renderer: Any = getattr(env.unwrapped, "mujoco_renderer", None)
    if not hasattr(renderer, "camera_id") or not hasattr(renderer, "default_cam_config"):
        return None
    import mujoco

    model = renderer.model
    if not any(chosen.get(name) is not None for name in _CHOICES):
        track = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, CAMERA)
        if track >= 0:
            renderer.camera_id = track
    if renderer.camera_id not in (-1, None):
        return f"the model's camera {model.camera(renderer.camera_id).name or renderer.camera_id!r}"
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    middle = np.median(data.geom_xpos, axis=0)
    renderer.default_cam_config = {"lookat": middle, **(renderer.default_cam_config or {})}
    return "a free camera that stands still"


def require_intact(env: Any) -> None:
    """Raise Diverged where MuJoCo has reset a simulation whose numbers had grown beyond all bounds.

    It does so on its own in the midst of a step: the state jumps to the model's first pose, and rewards and
    observations of the jump look like any other. The warnings stay until the next reset.

    Args:
        env: Whatever holds MuJoCo's data as `data`, or as `physics.data`.
    """
    data: Any = getattr(env, "data", None)
    if data is None:
        data = getattr(getattr(env, "physics", None), "data", None)
    warnings = getattr(data, "warning", None)
    numbers = getattr(warnings, "number", None)
    if numbers is None:
        return
    for name, number in _bad_states():
        if numbers[number]:
            raise Diverged(f"simulation: expected a bounded state, got MuJoCo's warning {name} at {data.time:.4g} s")


@cache
def _bad_states() -> tuple[tuple[str, int], ...]:
    from mujoco import mjtWarning

    return tuple((name, int(getattr(mjtWarning, f"mjWARN_{name}"))) for name in ("BADQPOS", "BADQVEL", "BADQACC"))
