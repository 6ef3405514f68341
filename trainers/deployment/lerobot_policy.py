"""A bundle in the shape of LeRobot's policies: `reset`, `select_action`, `predict_action_chunk` on batches of tensors.

LeRobot itself is not needed: a policy there is an object with these methods.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainers.deployment.controller import Controller
from trainers.deployment.status import Status
from worldmodel.errors import UserError

OBSERVATION = "observation."
IMAGE, IMAGES, STATE = f"{OBSERVATION}image", f"{OBSERVATION}images.", f"{OBSERVATION}state"
MARGIN = 0.5  # beyond [0, 1], which an interpolation may reach: other scales are further off


class BadBatch(UserError, ValueError):
    """A batch without the observations that the bundle needs."""


class LeRobotPolicy:
    """A controller for each row of a batch; the first batch after `reset` decides how many.

    Args:
        bundle: the folder.
        hz: decisions per second; the bundle's own by default.
        budget_s: seconds for one row's decision; None plans to the end, however long it takes.
    """

    name = "worldmodel"
    supports_rtc = False

    def __init__(self, bundle: str | Path, *, hz: float | None = None, budget_s: float | None = None) -> None:
        self._options: dict[str, Any] = {"hz": hz, "budget_s": 3600.0 if budget_s is None else budget_s}
        self._all = [Controller(bundle, **self._options, planner="inline")]
        self._controllers: list[Controller] = []  # of the episode's rows
        self.statuses: list[Status] = []

    def reset(self) -> None:
        """Begin an episode in every row."""
        self._controllers = []

    def drop_queued_actions(self) -> None:
        """There are none: every call plans anew."""

    def select_action(self, batch: Mapping[str, Any]) -> Tensor:
        """Actions for what is seen now.

        Args:
            batch: `observation.images.NAME` [B c h w], float in [0, 1] or uint8, and `observation.NAME` [B d] of every
                vector. A name may be another one where the agent has a single image, `observation.image` too;
                `observation.state` is the only vector, or all in the bundle's order. Other keys are left alone.

        Returns:
            float32 [B A] in the robot's units, int64 [B] where actions are discrete.

        Raises:
            BadBatch: an observation is missing, has no rows or another number of them than the others, or is of
                another type or range.
        """
        rows = self._rows(batch)
        if len(self._controllers) != len(rows):
            self._begin(len(rows))
        steps = [controller.step(row) for controller, row in zip(self._controllers, rows, strict=True)]
        self.statuses = [status for _, status in steps]
        return torch.from_numpy(np.stack([action for action, _ in steps]))

    def predict_action_chunk(self, batch: Mapping[str, Any]) -> Tensor:
        """As `select_action`, with the actions that would follow.

        Args:
            batch: as there.

        Returns:
            [B H A]; the first action of each row is the one for now.
        """
        self.select_action(batch)
        return torch.from_numpy(np.stack([controller.chunk() for controller in self._controllers]))

    def _begin(self, rows: int) -> None:
        first = self._all[0]
        for row in range(len(self._all), rows):
            planner = first.planner or "inline"  # a policy alone has none
            self._all.append(Controller(first.bundle, **self._options, planner=planner, seed=row))
        self._controllers = self._all[:rows]
        for controller in self._controllers:
            controller.reset()
            controller.release()

    def _rows(self, batch: Mapping[str, Any]) -> list[dict[str, NDArray[Any]]]:
        env = self._all[0].control.env
        cameras = {key.removeprefix(IMAGES): batch[key] for key in batch if key == IMAGE or key.startswith(IMAGES)}
        if len(env.images) == len(cameras) == 1:
            cameras = dict(zip(env.images, cameras.values(), strict=True))
        if missing := [name for name in env.images if name not in cameras]:
            raise BadBatch(f"batch: expected {IMAGES}{missing[0]}, got {', '.join(batch)}")
        parts = {name: _frames(name, cameras[name]) for name in env.images}
        parts |= _vectors(env.vectors, batch) if env.vectors else {}
        counts = [len(part) for part in parts.values()]
        if len(set(counts)) != 1 or not counts[0]:
            raise BadBatch(f"batch: expected as many rows of each, and at least one, got {counts}")
        return [dict(zip(parts, row, strict=True)) for row in zip(*parts.values(), strict=True)]


def _numbers(values: Any) -> NDArray[Any]:
    """On whatever device they are, and of bfloat16, which numpy has not."""
    if not isinstance(values, Tensor):
        return np.asarray(values)
    return (values.float() if values.is_floating_point() else values).detach().cpu().numpy()


def _vectors(sizes: Mapping[str, int], batch: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """[B d] by name, of a key each or of `observation.state`, which has them side by side."""
    keys = {name: f"{OBSERVATION}{name}" for name in sizes}
    if all(key in batch for key in keys.values()):
        return {name: _vector_rows(key, batch[key], {name: sizes[name]}) for name, key in keys.items()}
    if STATE not in batch:
        known = " and ".join(keys.values())
        raise BadBatch(f"batch: expected {known}, or {STATE} of all, got {', '.join(batch)}")
    ends = np.cumsum([*sizes.values()])
    return dict(zip(sizes, np.split(_vector_rows(STATE, batch[STATE], sizes), ends[:-1], 1), strict=True))


def _vector_rows(key: str, values: Any, sizes: Mapping[str, int]) -> NDArray[Any]:
    """[B d] of vectors of these sizes side by side."""
    rows = np.asarray(_numbers(values))
    if rows.ndim != 2 or rows.shape[1] != sum(sizes.values()) or rows.dtype.kind not in "fiu":
        parts = ", ".join(f"{name} {size}" for name, size in sizes.items())
        got = f"{rows.dtype} {list(rows.shape)}"
        raise BadBatch(f"batch: expected {key} [B {sum(sizes.values())}] ({parts}), got {got}")
    return rows


def _frames(name: str, images: Any) -> NDArray[Any]:
    """[B h w c] uint8 of [B c h w], floats in [0, 1] rounded; what is not finite becomes 0."""
    values = _numbers(images)
    if values.ndim != 4:
        raise BadBatch(f"batch: expected {IMAGES}{name} [B c h w], got {list(values.shape)}")
    if values.dtype.kind == "f":
        finite = values[np.isfinite(values)]
        if finite.size and not -MARGIN <= finite.min() <= finite.max() <= 1 + MARGIN:
            got = f"{finite.min():.3g} to {finite.max():.3g}"
            raise BadBatch(f"batch: expected {IMAGES}{name} of floats in [0, 1], or uint8, got {got}")
        values = np.rint(np.nan_to_num(values, nan=0.0, posinf=1.0, neginf=0.0).clip(0, 1) * 255).astype(np.uint8)
    elif values.dtype != np.uint8:
        raise BadBatch(f"batch: expected {IMAGES}{name} of floats in [0, 1], or uint8, got {values.dtype}")
    return np.moveaxis(values, 1, -1)
