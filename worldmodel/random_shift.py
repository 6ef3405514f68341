"""Windows moved by a few pixels while learning: what was seen at one place is then known at its neighbours too.

An object that stands still within an episode is seen at as many places as there are episodes. Yarats et al., Image
Augmentation Is All You Need (2021), shift each frame by itself; here a window's frames are moved alike, so that
nothing in it jumps.
"""

from dataclasses import replace

import torch
from jaxtyping import UInt8
from torch import Tensor

from worldmodel.interfaces import Batch


def shift_windows(batch: Batch, *, pixels: int) -> Batch:
    """The batch with every window's images moved, each of them by up to so many pixels in both directions."""
    images = {
        name: _shift(rows, pixels) if rows.dtype == torch.uint8 else rows for name, rows in batch.observation.items()
    }
    return replace(batch, observation=images)


def _shift(frames: UInt8[Tensor, "B T c h w"], pixels: int) -> UInt8[Tensor, "B T c h w"]:
    """What comes in at an edge repeats it."""
    B, T, c, h, w = frames.shape
    down, right = torch.randint(-pixels, pixels + 1, (2, B, 1), device=frames.device)
    row = (torch.arange(h, device=frames.device) - down).clamp(0, h - 1)
    column = (torch.arange(w, device=frames.device) - right).clamp(0, w - 1)
    # one gather for all: a window at a time would be many small copies
    place = (row[:, :, None] * w + column[:, None, :]).view(B, 1, h * w).expand(-1, T * c, -1)
    return frames.reshape(B, T * c, h * w).gather(2, place).view_as(frames)
