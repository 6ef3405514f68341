"""Gymnasium environments for tests, named by import path: frames are watermarked with lane, episode and step."""

import os
import time
from functools import partial
from typing import ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces

SIDE = 16


def watermark(lane, episode, step):
    """A frame [16, 16, 3] that `read` reads; never one constant colour."""
    frame = np.empty((SIDE, SIDE, 3), np.uint8)
    frame[...] = lane, episode, step
    frame[0, 0] = 255 - frame[0, 0]
    return frame


def read(pixels):
    """(lane, episode, step) of a row's pixels [3, h, w]."""
    return tuple(int(channel[-1, -1]) for channel in pixels)


def reward_of(step, action):
    """The reward of the control step that arrives at `step`."""
    return 10.0 * step + float(np.asarray(action).ravel()[0])


class Watermarked(gymnasium.Env):
    """Episode k of lane i has `lengths[(k + i) % len(lengths)]` steps; every second episode ends by truncation."""

    metadata: ClassVar = {"render_modes": ["rgb_array"]}

    def __init__(self, lane=0, lengths=(4, 2, 3), observation="image", render_mode=None, spoil=None):
        self.lane, self.lengths, self.kind, self.render_mode, self.spoil = (
            lane,
            lengths,
            observation,
            render_mode,
            spoil,
        )
        self.action_space = spaces.Box(np.float32([0.0, -3.0]), np.float32([4.0, -1.0]))
        image = spaces.Box(0, 255, (SIDE, SIDE, 3), np.uint8)
        vector = spaces.Box(-np.inf, np.inf, (3,))
        self.observation_space = {
            "image": image,
            "vector": vector,
            "dict": spaces.Dict({"state": vector, "camera": spaces.Dict({"front": image})}),
            "two": spaces.Dict({"left": image, "right": image}),
            "chw": spaces.Box(0, 255, (3, SIDE, SIDE), np.uint8),
            "unit": spaces.Box(0.0, 1.0, (SIDE, SIDE, 3), np.float32),
        }[observation]
        self.episode, self.time, self.actions = -1, 0, []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.time = self.episode + 1, 0
        self.drawn = int(self.np_random.integers(1000))
        return self._observe(), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.time += 1
        self.actions.append(action)
        ends = self.time >= self.lengths[(self.episode + self.lane) % len(self.lengths)]
        cut = ends and self.episode % 2 == 1
        reward = float("nan") if self.spoil == "reward" else reward_of(self.time, action)
        return self._observe(), reward, ends and not cut, cut, {}

    def render(self):
        return None if self.spoil == "render" else watermark(self.lane, self.episode, self.time)

    def _observe(self):
        frame = watermark(self.lane, self.episode, self.time)
        if self.kind == "unit":
            frame = frame.astype(np.float32) / (np.float32("nan") if self.spoil == "pixels" and self.time else 255)
        if self.kind == "chw":
            frame = frame.transpose(2, 0, 1)
        parts = {"state": np.float32([self.lane, self.episode, self.time]), "camera": {"front": frame}}
        return {"dict": parts, "two": {"left": frame, "right": frame}, "vector": parts["state"]}.get(self.kind, frame)


class Discrete(Watermarked):
    """The same with three actions, 5, 6 and 7."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.action_space = spaces.Discrete(3, start=5)


def sync_lanes(num_envs, mode="NextStep", kind="Watermarked", **kwargs):
    """Watermarked lanes in Gymnasium's own vector environment."""
    lanes = [lambda lane=lane: globals()[kind](lane, **kwargs) for lane in range(num_envs)]
    return gymnasium.vector.SyncVectorEnv(lanes, autoreset_mode=gymnasium.vector.AutoresetMode(mode))


class Hanging(Watermarked):
    """Never answers a step, whoever is left to hear it."""

    def step(self, action):
        while True:
            time.sleep(3600)


def async_lanes(num_envs, **kwargs):
    """A process for each lane, as Gymnasium forks them."""
    return gymnasium.vector.AsyncVectorEnv([partial(Hanging, lane, **kwargs) for lane in range(num_envs)])


class NativeLanes(gymnasium.vector.VectorEnv):
    """Watermarked lanes that reset themselves, with one seed for all and no reset mask but in Disabled."""

    def __init__(self, num_envs, mode="NextStep", **kwargs):
        self.metadata = {"autoreset_mode": gymnasium.vector.AutoresetMode(mode)}
        self.num_envs, self.mode = num_envs, mode
        self.envs = [Watermarked(lane, **kwargs) for lane in range(num_envs)]
        self.single_observation_space = self.envs[0].observation_space
        self.single_action_space = self.envs[0].action_space
        self.ended = np.zeros(num_envs, bool)
        # written in place, as fast environments do
        self.frames = np.zeros((num_envs, SIDE, SIDE, 3), np.uint8)

    def reset(self, *, seed=None, options=None):
        mask = np.ones(self.num_envs, bool)
        if options is not None:
            assert self.mode == "Disabled"
            mask = options["reset_mask"]
        for lane in mask.nonzero()[0]:
            self.frames[lane], _ = self.envs[lane].reset(seed=seed)
        self.ended[mask] = False
        return self.frames, {}

    def step(self, actions):
        rewards, terminated, truncated = np.zeros(self.num_envs), self.ended & False, self.ended & False
        info, before = {}, self.ended.copy()
        assert not (before.any() and self.mode == "Disabled")
        for lane, env in enumerate(self.envs):
            if before[lane] and self.mode == "NextStep":
                self.frames[lane], _ = env.reset()
                continue
            self.frames[lane], rewards[lane], terminated[lane], truncated[lane], _ = env.step(actions[lane])
        self.ended = terminated | truncated
        if self.mode == "SameStep" and self.ended.any():
            info["final_obs"] = self.frames.copy()
            for lane in self.ended.nonzero()[0]:
                self.frames[lane], _ = self.envs[lane].reset()
            self.ended = self.ended & False
        return self.frames, rewards, terminated, truncated, info


def one_lane_too_many(num_envs):
    """Does not listen."""
    return sync_lanes(num_envs + 1)


def no_mode(num_envs):
    """Does not say how it resets."""
    lanes = NativeLanes(num_envs)
    lanes.metadata = {}
    lanes.max_episode_steps = 5
    return lanes


def one_bad_lane(num_envs, lengths):
    """The rewards of lane 1 are not finite."""
    lanes = NativeLanes(num_envs, lengths=lengths)
    lanes.envs[1].spoil = "reward"
    return lanes


class Halving(Watermarked):
    """Changes the action that it is given, as careless code does."""

    def step(self, action):
        given = np.array(action)
        action *= 0.5
        row = super().step(np.array([2.0, -2.0], np.float32))
        self.actions[-1] = given
        return row


class Highway(Watermarked):
    """Is drawn, black where SDL's driver is "dummy", as highway-env is."""

    def __init__(self, render_mode=None):
        super().__init__(observation="vector", render_mode=render_mode)
        self.enabled = os.environ.get("SDL_VIDEODRIVER") != "dummy"

    def render(self):
        return super().render() if self.enabled else np.zeros((SIDE, SIDE, 3), np.uint8)


class SmallSeeds(Watermarked):
    """Takes a seed as C code does."""

    def reset(self, *, seed=None, options=None):
        np.array(seed if seed is not None else 0).astype(np.int64).item().to_bytes(4, "little", signed=True)
        return super().reset(seed=seed)


def halving_lanes(num_envs):
    """Lanes in Gymnasium's own vector environment that change their actions."""
    return gymnasium.vector.SyncVectorEnv([lambda lane=lane: Halving(lane, lengths=(9,)) for lane in range(num_envs)])


class SmallSeedLanes(NativeLanes):
    """One seed for all lanes, from which each has its own, as ALE's vector environment does it."""

    def reset(self, *, seed=None, options=None):
        for lane in range(self.num_envs):
            int(seed + lane).to_bytes(4, "little", signed=True)
        return super().reset(seed=seed, options=options)


# registered by importing this module, the second as a name that looks like a function's
gymnasium.register("gym_envs/Marked-v0", entry_point=Watermarked, max_episode_steps=7)
gymnasium.register("gym_envs/Marked-v1", entry_point=Watermarked, max_episode_steps=8)
gymnasium.register("MarkedEnv", entry_point=Watermarked, max_episode_steps=9)


class OldReset(Watermarked):
    """As Gym had it before 0.26: no info."""

    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed, options=options)[0]


class OldStep(Watermarked):
    """As Gym had it before 0.26: one flag of both ends."""

    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, terminated or truncated, info


class Keyless(Watermarked):
    """Asks for what is not there, in step `at` of every episode."""

    def __init__(self, at=1, **kwargs):
        super().__init__(**kwargs)
        self.at = at

    def step(self, action):
        if self.time + 1 == self.at:
            raise KeyError("gripper")
        return super().step(action)
