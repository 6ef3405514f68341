"""Typed errors of the environment side, and how they travel from a worker process as text."""

import traceback
from typing import Any

from worldmodel.errors import SettingError, UserError


class EnvError(UserError):
    """Anything an environment or its worker can report.

    kind: what it is counted as when a worker raises it. trace: where a foreign error was raised, as Python prints it.
    """

    kind = "exception"
    trace = ""


class UnknownSource(EnvError):
    """No module of that name in datamodules/envs has a `make`."""


class BadOption(EnvError, SettingError):
    """A keyword argument of `make` is unknown, missing or out of range; `key` begins with its name."""


class UnknownTask(EnvError, SettingError):
    """The environment source has no task of that name."""

    def __init__(self, said: str, *, key: str = "task") -> None:
        super().__init__(said, key=key)


class BadAction(EnvError):
    """An action has the wrong shape or is not finite."""


class BadSpace(EnvError):
    """An observation or action space that no agent here can take."""


class BadObservation(EnvError):
    """An observation of another shape, type or range than its space says, or a row whose flags or counts cannot be."""

    kind = "observation"


class BadReward(EnvError):
    """A reward that is not one finite number of a size that tasks have."""

    kind = "reward"


class Diverged(EnvError):
    """A simulation has blown up: the episode is over, and the next reset mends it."""

    kind = "diverged"


class NotReset(EnvError):
    """A step was asked for while no episode is open."""


class MissingPackage(EnvError):
    """An environment, or another optional part, needs a package that is not installed."""


class MissingGL(EnvError):
    """No OpenGL library can draw off screen."""


class BlankFrame(EnvError):
    """Frames are one constant colour: the renderer draws nothing."""

    kind = "blank"


class FrozenFrame(EnvError):
    """Frames stay the same while the environment's state changes."""

    kind = "frozen"


class WorkerFault(EnvError):
    """One worker failed outside `reset` and `step`; its index needs a reset."""


class WorkerLost(EnvError):
    """A worker failed more often than the allowed restarts."""


NAME_LIMIT, MESSAGE_LIMIT, TRACE_LIMIT = 200, 4000, 20_000  # characters

_REQUESTS = (UnknownSource, BadSpace, BadAction, NotReset, MissingPackage, MissingGL)
_OF_SETTINGS = {c.__name__: c for c in (UnknownTask, BadOption)}
_TRAVELLING = {c.__name__: c for c in (*_REQUESTS, BlankFrame, FrozenFrame, BadObservation, BadReward, Diverged)}


def to_fields(error: BaseException) -> dict[str, Any]:
    """A JSON-able dict of an error's class, message and trace, cut where they are long; `from_fields` restores it."""
    trace = "" if isinstance(error, EnvError) else "".join(traceback.format_exception(error))[-TRACE_LIMIT:]
    said, key = (error.said, error.key) if isinstance(error, SettingError) else (str(error), "")
    fields = {"error": type(error).__name__, "key": key}
    return {name: text[:NAME_LIMIT] for name, text in fields.items()} | {
        "message": said[:MESSAGE_LIMIT],
        "trace": trace,
    }


def from_fields(fields: Any) -> EnvError:
    """The typed error written by `to_fields`; foreign classes become EnvError with their name in the message."""
    name, message = str(fields["error"]), str(fields["message"])
    if name in _OF_SETTINGS:
        error: EnvError = _OF_SETTINGS[name](message, key=str(fields["key"]))
    else:
        error = _TRAVELLING[name](message) if name in _TRAVELLING else EnvError(f"{name}: {message}")
    error.trace = str(fields.get("trace", ""))
    return error
