import mmap

import numpy as np
import pytest

from datamodules.envs import counting, wire
from datamodules.envs.errors import BlankFrame, FrozenFrame
from datamodules.envs.worker import FrameWatch, OneLane, Server

BLANK = {"pixels": np.zeros((3, 4, 4), np.uint8)}
DRAWN = {"pixels": np.arange(48, dtype=np.uint8).reshape(3, 4, 4)}


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


def test_first_frames_may_be_blank_where_nobody_minds():
    FrameWatch(None, blank_frames=0, frozen_frames=0).first(BLANK)
    with pytest.raises(BlankFrame, match="first frame"):
        FrameWatch(None, blank_frames=1, frozen_frames=0).first(BLANK)


def test_a_request_gives_an_environment_an_action_of_its_own():
    class Halving(counting.CountingEnv):
        def step(self, action):
            action *= 0.5
            return super().step(action)

    env = counting.make()
    env.__class__ = Halving
    request = wire.LANE.pack(True, 5) + np.float32([0.8, 0]).tobytes()
    with mmap.mmap(-1, wire.memory_size(env.spec, 1)) as memory:
        watch = FrameWatch(env, blank_frames=0, frozen_frames=0)
        server = Server(lanes=OneLane(env), memory=memory, watches=[watch])
        server.answer(wire.REQUEST.pack(wire.OP_RESET, 1, 0) + request)
        assert server.answer(wire.REQUEST.pack(wire.OP_STEP, 2, 0) + request).status == wire.DONE
        assert wire.ROW.unpack_from(server._shared.rows)[0] == pytest.approx(100.4)
        server.release()


def test_each_image_is_watched_and_a_still_one_beside_a_moving_one_is_no_fault():
    watch = FrameWatch(None, blank_frames=3, frozen_frames=0)
    seen = {"front": DRAWN["pixels"], "wrist": BLANK["pixels"], "state": np.zeros(3, np.float32)}
    watch.see(seen, seen, opens=True), watch.see(seen, seen, opens=False)
    with pytest.raises(BlankFrame, match="3 frames of wrist in a row"):
        watch.see(seen, seen, opens=False)
    with pytest.raises(BlankFrame, match="the first frame of wrist"):
        FrameWatch(None, blank_frames=1, frozen_frames=0).first(seen)

    env = counting.make(cameras={"front": 16, "side": 8}, vectors={"clock": 2})
    watch = FrameWatch(env, blank_frames=0, frozen_frames=2)
    first = env.reset(0).observation
    for step in range(6):
        moving = env.step(np.zeros(2, np.float32)).observation
        watch.see(moving | {"side": first["side"]}, first, opens=step == 0)
        first |= {"front": moving["front"]}
    still = counting.make(cameras={"front": 16, "side": 8}, fault="frozen", fault_at=0)
    watch, last = FrameWatch(still, blank_frames=0, frozen_frames=2), still.reset(0).observation
    watch.see(last, last, opens=True)
    watch.see(still.step(np.zeros(2, np.float32)).observation, last, opens=False)
    with pytest.raises(FrozenFrame, match="3 different states"):
        watch.see(still.step(np.zeros(2, np.float32)).observation, last, opens=False)


@pytest.mark.parametrize("name", ["front", "wrist"])
def test_a_camera_that_draws_nothing_is_a_fault_beside_one_that_does(name):
    env = counting.make(cameras={"front": 16, "wrist": 16})
    env.draws_other_states = lambda: {"front"}
    watch = FrameWatch(env, blank_frames=3, frozen_frames=0)
    seen = {"front": DRAWN["pixels"], "wrist": DRAWN["pixels"]} | {name: BLANK["pixels"]}
    for _ in range(2):
        watch.see(seen, seen, opens=False)
    if name == "wrist":
        with pytest.raises(BlankFrame, match="3 frames of wrist in a row"):
            watch.see(seen, seen, opens=False)
    else:  # in other states it shows something else
        for _ in range(10):
            watch.see(seen, seen, opens=False)
