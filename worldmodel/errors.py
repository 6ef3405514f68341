"""The base of all errors that a user can cause and mend; no torch here."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from difflib import get_close_matches


class UserError(Exception):
    """A command shows its message as one line, without a traceback: it names what was expected and what came."""


class SettingError(UserError):
    """An error of one setting; whoever knows that setting by another name says `said` of that name.

    Args:
        said: "expected ..., got ...".
        key: the setting's name, which the message begins with; "" where `said` has it, or where it is of no setting.
    """

    def __init__(self, said: str, *, key: str = "") -> None:
        super().__init__(f"{key}: {said}" if key else said)
        self.said, self.key = said, key


class BadValue(UserError, ValueError):
    """A value that cannot be, as "key: expected ..., got ..."; a part says its own option's name for the key."""


class BadFact(BadValue):
    """A part cannot be built for a fact that no option decides, such as the size of frames."""


@contextmanager
def naming(option: str) -> Iterator[None]:
    """Put the name of an option before those that a part within names when it raises BadValue."""
    try:
        yield
    except BadValue as error:
        if type(error) is not BadValue:
            raise  # with a whole key of its own, or of no option
        raise BadValue(f"{option}.{error}") from error


def did_you_mean(word: object, known: Collection[str]) -> str:
    """The end of a message that names the nearest of what is known, empty where nothing is near."""
    near = get_close_matches(word, known, n=3) if isinstance(word, str) else []
    return f", did you mean {', '.join(near)}?" if near else ""
