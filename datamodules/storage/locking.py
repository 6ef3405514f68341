"""One thread at a time: how a collecting thread and a learner share one object."""

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

P, R = ParamSpec("P"), TypeVar("R")


def one_at_a_time(method: Callable[P, R]) -> Callable[P, R]:
    """A method that runs while its object's `lock` (a threading.RLock) is held."""

    @wraps(method)
    def alone(*args: P.args, **kwargs: P.kwargs) -> R:
        owner: Any = args[0]
        with owner.lock:
            return method(*args, **kwargs)

    return alone
