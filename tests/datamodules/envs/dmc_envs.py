"""dm_control tasks for tests, named by import path: a ball that rolls on a line, in both of dm_control's styles."""

import dm_env
import numpy as np
from dm_control import composer, mujoco
from dm_control.rl import control
from dm_control.suite import base

MODEL = """
<mujoco>
  <option timestep="0.01"/>
  <worldbody>
    <light pos="0 0 3"/>
    <camera name="side" pos="0 -3 1" xyaxes="1 0 0 0 0.3 1"/>
    <geom type="plane" size="3 3 0.1" rgba="0.2 0.3 0.4 1"/>
    <body name="ball" pos="0 0 0.2"><joint name="x" type="slide" axis="1 0 0" damping="0.1"/>
      <geom type="sphere" size="0.2" mass="1" rgba="0.9 0.1 0.1 1"/></body>
  </worldbody>
  <actuator><motor joint="x" ctrlrange="0 4" ctrllimited="true"/></actuator>
</mujoco>
"""


class Roll(base.Task):
    """Reward is the position; the episode terminates past `line`."""

    def __init__(self, line):
        super().__init__(random=3)
        self.line = line

    def initialize_episode(self, physics):
        physics.named.data.qpos["x"] = self.random.uniform(-0.5, 0.5)

    def get_observation(self, physics):
        return {"x": physics.data.qpos.copy()}

    def get_reward(self, physics):
        return float(physics.data.qpos[0])

    def get_termination(self, physics):
        return 0.0 if physics.data.qpos[0] > self.line else None


def roll(line=1e9, time_limit=1.0):
    """In the suite's style, 50 control steps by default."""
    physics = mujoco.Physics.from_xml_string(MODEL)
    return control.Environment(physics, Roll(line), time_limit=time_limit, control_timestep=0.02)


class Halving(Roll):
    """Changes the action that it is given; reward is the control."""

    def before_step(self, action, physics):
        super().before_step(action, physics)
        action *= 0.5

    def get_reward(self, physics):
        return float(physics.data.ctrl[0])


def halving():
    """A task that is careless with actions."""
    return control.Environment(
        mujoco.Physics.from_xml_string(MODEL), Halving(1e9), time_limit=1.0, control_timestep=0.02
    )


class BlowsUp(Roll):
    """Meets a velocity beyond all bounds in step `at` of every episode."""

    def __init__(self, at):
        super().__init__(1e9)
        self.at = at

    def initialize_episode(self, physics):
        super().initialize_episode(physics)
        self.time = 0

    def before_step(self, action, physics):
        super().before_step(action, physics)
        self.time += 1
        if self.time == self.at:
            physics.data.qvel[0] = 1e11


def blows_up(at):
    """In the suite's style, which raises."""
    return control.Environment(
        mujoco.Physics.from_xml_string(MODEL), BlowsUp(at), time_limit=1.0, control_timestep=0.02
    )


class ComposedRoll(composer.Task):
    """The same ball, in a model that is compiled anew for every episode; `at`: as in BlowsUp."""

    def __init__(self, at=None):
        self._at = at
        self._arena = composer.Arena()
        model = self._arena.mjcf_model
        body = model.worldbody.add("body", name="ball", pos=(0, 0, 0.2))
        joint = body.add("joint", name="x", type="slide", axis=(1, 0, 0))
        body.add("geom", type="sphere", size=[0.2], mass=1, rgba=[0.9, 0.1, 0.1, 1])
        model.worldbody.add("light", pos=(0, 0, 3))
        model.worldbody.add("camera", name="side", pos=(0, -3, 1), xyaxes=(1, 0, 0, 0, 0.3, 1))
        model.actuator.add("motor", name="push", joint=joint, ctrlrange=(0, 4), ctrllimited=True)
        self.control_timestep = 0.02

    @property
    def root_entity(self):
        return self._arena

    def before_step(self, physics, action, random_state):
        super().before_step(physics, action, random_state)
        self._time += 1
        if self._time == self._at:
            physics.data.qvel[0] = 1e11

    def initialize_episode(self, physics, random_state):
        self._time = 0
        physics.data.qpos[:] = random_state.uniform(-0.5, 0.5)

    def get_reward(self, physics):
        return float(physics.data.qpos[0])


def composed():
    """In composer's style, 30 control steps."""
    return composer.Environment(ComposedRoll(), time_limit=0.6, random_state=3)


def composed_blows_up(at):
    """In composer's style, which calls it a termination."""
    return composer.Environment(
        ComposedRoll(at), time_limit=0.6, random_state=3, raise_exception_on_physics_error=False
    )


class Bodiless(dm_env.Environment):
    """An environment that nobody can draw."""

    task = None

    def reset(self):
        return dm_env.restart(np.zeros(1))

    def step(self, action):
        return dm_env.transition(0.0, np.zeros(1))

    def observation_spec(self):
        return None

    def action_spec(self):
        return None


def fails():
    """A function with a mistake in it."""
    return 1 / 0
