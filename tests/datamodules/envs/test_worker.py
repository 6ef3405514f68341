import numpy as np
import pytest

from datamodules.envs.errors import BlankFrame
from datamodules.envs.worker import FrameWatch

BLANK, DRAWN = np.zeros((3, 4, 4), np.uint8), np.arange(48, dtype=np.uint8).reshape(3, 4, 4)


def watched(frames, *, episode_steps):
    """The number of frames that pass, in episodes of so many rows."""
    watch = FrameWatch(None, blank_frames=5, frozen_frames=0)
    for t, frame in enumerate(frames):
        try:
            watch.see(frame, frames[t - 1], opens=t % episode_steps == 0)
        except BlankFrame:
            return t
    return len(frames)


@pytest.mark.parametrize("episode_steps", [1, 4, 100])
def test_blank_frames_are_counted_across_episodes(episode_steps):
    assert watched([BLANK] * 20, episode_steps=episode_steps) == 4
    assert watched([DRAWN, *[BLANK] * 4] * 4, episode_steps=episode_steps) == 20
