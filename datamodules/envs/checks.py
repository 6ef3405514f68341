"""The checks of what goes into an environment and of what comes out."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from datamodules.envs.errors import BadAction, BadObservation, BadOption, BadReward, NotReset
from datamodules.envs.protocol import Step
from datamodules.observation import misfit
from worldmodel.limits import wrong_whole
from worldmodel.spec import EnvSpec

# no task's reward comes near this; a simulation that has diverged does
REWARD_LIMIT = 1e6


def checked_action(action: ArrayLike, *, action_dim: int) -> NDArray[np.float32]:
    """Return `action` as float32 [A], clipped to [-1, 1]; raises BadAction on a wrong shape or a non-finite value."""
    values = np.asarray(action, dtype=np.float32)
    if values.shape != (action_dim,):
        raise BadAction(f"action: expected shape ({action_dim},), got {values.shape}")
    # the usual case in one pass: NaN fails this comparison too
    if np.abs(values).max() <= 1.0:
        return values
    if not np.isfinite(values).all():
        raise BadAction(f"action: expected finite values, got {values.tolist()}")
    return np.clip(values, -1.0, 1.0)


def require_open(is_open: bool) -> None:
    """Raise NotReset unless an episode is open."""
    if not is_open:
        raise NotReset("step: expected a reset first, the episode has not begun or has ended")


def require_whole(key: str, value: object, *, least: int, most: float = math.inf) -> None:
    """Raise BadOption that names `key` unless `value` is a whole number within [least, most]."""
    if wrong := wrong_whole(value, least=least, most=most):
        raise BadOption(wrong, key=key)


def require_bool(key: str, value: object) -> None:
    """Raise BadOption that names `key` unless `value` is true or false."""
    if not isinstance(value, bool):
        raise BadOption(f"expected true or false, got {value!r}", key=key)


def checked_reward(reward: object) -> float:
    """Return a reward as a float; raises BadReward unless it is one finite number within REWARD_LIMIT."""
    try:
        value = float(np.asarray(reward).item())
    except (TypeError, ValueError) as error:
        raise BadReward(f"reward: expected one number, got {reward!r}") from error
    if not abs(value) <= REWARD_LIMIT:
        raise BadReward(f"reward: expected a finite number within {REWARD_LIMIT:g}, got {value}")
    return value


def check_row(step: Step, spec: EnvSpec, *, opens: bool) -> None:
    """Raise BadObservation or BadReward unless a row of a reset (opens) or of a step is one that `spec` allows."""
    if wrong := misfit(spec, step.observation):
        raise BadObservation(wrong)
    if bool(step.is_first) != opens or (opens and step.is_last) or (step.is_terminal and not step.is_last):
        flags = f"is_first={step.is_first} is_last={step.is_last} is_terminal={step.is_terminal}"
        raise BadObservation(f"flags: expected those of a {'reset' if opens else 'step'}, got {flags}")
    if not 0 <= step.env_steps <= spec.episode_steps:
        raise BadObservation(f"env_steps: expected 0..{spec.episode_steps}, got {step.env_steps}")
    checked_reward(step.reward)
