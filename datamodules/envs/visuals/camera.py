"""Other cameras than the default one, or several, for sources that have them (dm_control)."""

from collections.abc import Sequence
from typing import Any

from datamodules.envs.errors import BadOption
from datamodules.envs.protocol import ChoosesCameras, Env


def make(env: Env, *, ids: Any) -> Env:
    """`env` seen through the cameras `ids` (indices or names), as channels [3 * n, h, w] in this order.

    The source draws them itself, so this option comes first. Videos by `render` show the first camera. Raises
    BadOption for a source without cameras, and for an unknown camera with those that there are.
    """
    if not isinstance(env, ChoosesCameras):
        raise BadOption("expected a source with cameras (dmc) and no option before it", key="visuals.camera")
    if isinstance(ids, str) or not isinstance(ids, Sequence) or not ids:
        raise BadOption(f"expected a list of cameras, got {ids!r}", key="visuals.camera.ids")
    env.use_cameras(ids)
    return env
