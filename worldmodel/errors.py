"""The base of all errors that a user can cause and mend; no torch here."""

from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """A command shows its message as one line, without a traceback: it names what was expected and what came."""


class BadValue(UserError, ValueError):
    """A value that cannot be, as "key: expected ..., got ..."; a part says its own option's name for the key."""


@contextmanager
def naming(option: str) -> Iterator[None]:
    """Put the name of an option before those that a part within names when it raises BadValue."""
    try:
        yield
    except BadValue as error:
        if type(error) is not BadValue:
            raise  # with a whole key of its own
        raise BadValue(f"{option}.{error}") from error
