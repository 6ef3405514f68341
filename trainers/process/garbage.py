"""Python's garbage collection where time counts.

A full collection looks at every object that torch and its like have made on import, 200,000 of them: 180 to 290 ms on
one core, in the middle of whatever a program does, with the interpreter's lock held. It comes when there are a quarter
more of them, minutes or hours after the start.
"""

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.RLock()  # one who forgot to leave does so in a collection, wherever that comes
_open = 0


@contextmanager
def short_collections() -> Iterator[None]:
    """Leave everything that is there out of collections, so that each takes as long as what came since is large.

    May be entered by several at once; the last one that leaves takes the objects back into collections. A program
    that has frozen its objects itself (`gc.freeze`) keeps that as it is.
    """
    global _open
    with _lock:
        ours = _open > 0 or gc.get_freeze_count() == 0
        if ours and _open == 0:
            gc.freeze()
        _open += ours
    try:
        yield
    finally:
        with _lock:
            _open -= ours
            if ours and _open == 0:
                gc.unfreeze()
