"""A disk that refuses for a moment is asked again; one that goes on refusing is named, and nothing is dropped."""

import shutil
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from datamodules.storage.durable import retried

P, R = ParamSpec("P"), TypeVar("R")


class ReplayWriteFailed(OSError):
    """Rows could not be written; names the folder, the cause, the free space and how to go on."""


def insisting(method: Callable[P, R]) -> Callable[P, R]:
    """A method that an OSError leaves without effect, called up to 3 times more; raises ReplayWriteFailed.

    Its object's `path` is the folder that it writes to, or None.
    """

    @wraps(method)
    def patient(*args: P.args, **kwargs: P.kwargs) -> R:
        owner: Any = args[0]
        try:
            return retried(lambda: method(*args, **kwargs))
        except OSError as error:
            free = shutil.disk_usage(owner.path).free if owner.path and owner.path.exists() else 0
            cause = f"replay in {owner.path}: {error.strerror or error} ({free / 1e9:.2f} GB are free)"
            way_on = "every row before is kept; call again, or resume the run, when the disk takes data again"
            raise ReplayWriteFailed(error.errno, f"{cause}: {way_on}") from error

    return patient
