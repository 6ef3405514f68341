"""Episodes read by a thread while the one before is worked on: unpacking and writing take a core each."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def read_ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items in the same order, one ahead; what an item raises comes where it would have come.

    `items` belongs to the thread until this iterator ends or is closed.
    """
    end = object()
    with ThreadPoolExecutor(1, thread_name_prefix="read_ahead") as thread:
        ahead = thread.submit(next, items, end)
        while (item := ahead.result()) is not end:
            ahead = thread.submit(next, items, end)
            yield item  # type: ignore[misc]
