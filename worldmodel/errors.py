"""The base of all errors that a user can cause and mend; no torch here."""


class UserError(Exception):
    """A command shows its message as one line, without a traceback: it names what was expected and what came."""
