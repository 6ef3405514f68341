"""Checks of a part's own options: whatever a constructor is given is refused by name, whoever calls it.

Every constructor of a part raises BadValue for an option out of its range; it is said here once for all.
"""

import math
from collections.abc import Collection, Sequence

from worldmodel.errors import BadFact, BadValue, did_you_mean

_FREE = {"least": -math.inf, "above": -math.inf, "below": math.inf, "most": math.inf}
_WORDS = {"least": "of at least", "above": "above", "below": "below", "most": "at most"}


def wrong_whole(value: object, *, least: int = 1, most: float = math.inf, shown: object = None) -> str:
    """Why a value is no whole number within [least, most], as "expected ..., got ..."; empty where it is one.

    Args:
        value: what was given.
        least, most: the bounds.
        shown: what a message says was given, where that is not `value`.
    """
    if type(value) is int and least <= value <= most:
        return ""
    return f"expected a whole number {_bounds(least=least, most=most)}, got {value if shown is None else shown!r}"


def wrong_number(value: object, *, shown: object = None, **bounds: float) -> str:
    """Why a value is no finite number within bounds, as `wrong_whole` says it.

    Args:
        value: what was given.
        shown: what a message says was given, where that is not `value`.
        bounds: `least`, `above`, `below` and `most`, each where there is one.
    """
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        least, above, below, most = (bounds.get(name, free) for name, free in _FREE.items())
        if least <= value <= most and above < value < below:
            return ""
    expected = f"a finite number {_bounds(**bounds)}".rstrip()
    return f"expected {expected}, got {value if shown is None else shown!r}"


def require_whole(*, least: int = 1, most: float = math.inf, **numbers: object) -> None:
    """Raise BadValue for the first of `numbers`, by their options' names, that is no whole number within the bounds."""
    for name, number in numbers.items():
        if wrong := wrong_whole(number, least=least, most=most):
            raise BadValue(f"{name}: {wrong}")


def require_number(
    *,
    least: float = -math.inf,
    above: float = -math.inf,
    below: float = math.inf,
    most: float = math.inf,
    **numbers: object,
) -> None:
    """Raise BadValue for the first of `numbers`, by their options' names, that is not finite and within the bounds."""
    for name, number in numbers.items():
        if wrong := wrong_number(number, least=least, above=above, below=below, most=most):
            raise BadValue(f"{name}: {wrong}")


def _bounds(**bounds: float) -> str:
    """In words, those that bind."""
    binding = {name: bound for name, bound in bounds.items() if math.isfinite(bound)}
    return " and ".join(f"{words} {binding[name]}" for name, words in _WORDS.items() if name in binding)


def require_one_of(known: Collection[str], **choices: object) -> None:
    """Raise BadValue for the first of `choices`, by their options' names, that is not `known`, listed in this order."""
    for name, choice in choices.items():
        if choice not in known:
            raise BadValue(f"{name}: expected one of {', '.join(known)}, got {choice!r}{did_you_mean(choice, known)}")


def require_multiples(of: int, *, pixels: tuple[int, int, int]) -> None:
    """Raise BadFact for frames (c, h, w) whose height or width is no multiple of a number."""
    _, height, width = pixels
    if height % of or width % of:
        raise BadFact(f"pixels: expected height and width to be multiples of {of}, got {height}x{width}")


def require_sizes(**lists: object) -> None:
    """Raise BadValue for the first that is not a list of whole numbers of at least 1."""
    for name, sizes in lists.items():
        whole = isinstance(sizes, Sequence) and len(sizes) > 0 and all(type(n) is int and n >= 1 for n in sizes)
        if not whole:
            raise BadValue(f"{name}: expected whole numbers of at least 1, got {sizes!r}")
