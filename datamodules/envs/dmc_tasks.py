"""What a dm_control environment has to be: physics to draw, a seed, bounds and a step limit; and one decision in it."""

import copy
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.envs.errors import BadOption, BadSpace, Diverged, UnknownTask
from datamodules.envs.import_path import import_callable


def own_loader(path: str, kwargs: Mapping[str, Any]) -> Callable[[], Any]:
    """What builds the environment of `package.module:function`; raises UnknownTask, or BadOption for its arguments."""
    function = import_callable(path)
    try:
        inspect.signature(function).bind(**kwargs)
    except TypeError as error:
        raise BadOption(f"{path}{inspect.signature(function)}: {error}", key="kwargs") from error

    def load() -> Any:
        env = function(**copy.deepcopy(dict(kwargs)))  # it may be built twice
        missing = [name for name in ("physics", "task", "action_spec", "reset", "step") if not hasattr(env, name)]
        if missing:
            got = f"{type(env).__name__} without {', '.join(missing)}"
            raise UnknownTask(f"expected a dm_control Environment from {path}, got {got}")
        _require_actions(env.action_spec(), path)
        return env

    return load


def random_of(env: Any) -> np.random.RandomState:
    """The generator from which an environment draws its episodes; raises BadOption where it shows none."""
    for found in (getattr(env.task, "random", None), getattr(env, "random_state", None)):
        if isinstance(found, np.random.RandomState):
            return found
    raise BadOption(
        "expected its generator as task.random, or as random_state of the Environment, found none", key="task"
    )


def step_limit(env: Any) -> float:
    """Control steps of an episode, infinite where the environment knows of none."""
    # neither has a public name; steps is time_limit / control_timestep, as step() itself compares it
    steps, seconds = getattr(env, "_step_limit", None), getattr(env, "_time_limit", math.inf)
    if steps is not None:
        return float(steps)
    # 1.0 / 0.02 must not become 51
    return seconds if math.isinf(seconds) else math.ceil(seconds / env.control_timestep() - 1e-6)


def may_terminate(env: Any) -> bool:
    """Whether the task ends episodes itself, by its own version of what never does so (of the suite lqr alone)."""
    asked = (getattr(type(env.task), name, None) for name in ("get_termination", "should_terminate_episode"))
    inherited = ("dm_control.rl.control", "dm_control.composer.task")
    return any(ends is not None and ends.__module__ not in inherited for ends in asked)


def stepped(env: Any, control: NDArray[Any]) -> Any:
    """One control step; raises Diverged where the simulation has blown up."""
    try:
        return env.step(control)
    except RuntimeError as error:
        if type(error).__name__ != "PhysicsError":  # dm_control's own, which is not imported here
            raise
        raise Diverged(f"simulation: expected a bounded state, got {error}") from error


def _require_actions(bounds: Any, path: str) -> None:
    if not hasattr(bounds, "minimum") or len(bounds.shape) != 1 or bounds.shape[0] == 0 or bounds.dtype.kind != "f":
        raise BadSpace(f"action: expected a BoundedArray of floats [A] from {path}, got {bounds}")
