"""A renderer that draws nothing, or the same for ever, is seen by its frames."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.envs.errors import BlankFrame, FrozenFrame


class FrameWatch:
    """Counts frames of one constant colour in a row, and the states that went by while the frame stayed the same.

    blank_frames, frozen_frames: how many are too many, 0 for never. Frozen frames need the environment's
    `state_fingerprint()`; without it they are not looked for, since a world may stand still.
    """

    def __init__(self, env: Any, *, blank_frames: int, frozen_frames: int) -> None:
        self._fingerprint = getattr(env, "state_fingerprint", None) if frozen_frames else None
        self._blank_frames, self._frozen_frames = blank_frames, frozen_frames
        self._blank = 0
        self._states: set[bytes] = set()

    def first(self, pixels: NDArray[np.uint8]) -> None:
        """Look at the first frame [C, h, w] of a worker's life; raises BlankFrame."""
        if is_blank(pixels):
            raise BlankFrame("the first frame is one constant colour: the renderer draws nothing, check MUJOCO_GL")

    def see(self, pixels: NDArray[np.uint8], last: NDArray[np.uint8], *, opens: bool) -> None:
        """Look at a frame [C, h, w] and at the one before it; raises BlankFrame or FrozenFrame."""
        # counted across episodes: those of some tasks are shorter than `blank_frames`
        self._blank = self._blank + 1 if is_blank(pixels) else 0
        if 0 < self._blank_frames <= self._blank:
            raise BlankFrame(f"{self._blank} frames in a row are one constant colour")
        if self._fingerprint is None:
            return
        if opens or not np.array_equal(pixels, last):
            self._states = set()
        self._states.add(self._fingerprint())
        if len(self._states) > self._frozen_frames:
            raise FrozenFrame(f"the frame stayed the same in {len(self._states)} different states")


def is_blank(pixels: NDArray[np.uint8]) -> bool:
    """Whether every channel of a frame [C, h, w] is constant."""
    # a few pixels first: nearly every frame is settled by them
    if (pixels[:, ::13, ::13] != pixels[:, :1, :1]).any():
        return False
    return bool((pixels == pixels[:, :1, :1]).all())
