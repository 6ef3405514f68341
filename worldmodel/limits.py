"""Checks of a part's own options: whatever a constructor is given is refused by name, whoever calls it."""

import math
from collections.abc import Collection, Sequence

from worldmodel.errors import BadFact, BadValue, did_you_mean


def require_whole(*, least: int = 1, most: float = math.inf, **numbers: object) -> None:
    """Raise BadValue for the first that is not a whole number within [least, most].

    Args:
        least, most: the bounds.
        numbers: by the names of the options.
    """
    for name, number in numbers.items():
        if type(number) is not int or not least <= number <= most:
            bounds = f"at least {least}" + ("" if most == math.inf else f" and at most {most}")
            raise BadValue(f"{name}: expected a whole number of {bounds}, got {number!r}")


def require_number(
    *, least: float = -math.inf, above: float = -math.inf, most: float = math.inf, **numbers: object
) -> None:
    """Raise BadValue for the first that is not a finite number of at least `least`, above `above`, at most `most`.

    Args:
        least, above, most: the bounds.
        numbers: by the names of the options.
    """
    words = [
        f"of at least {least}" if least > -math.inf else "",
        f"above {above}" if above > -math.inf else "",
        f"at most {most}" if most < math.inf else "",
    ]
    expected = " and ".join(word for word in words if word)
    for name, number in numbers.items():
        known = isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number)
        if not (known and number > above and least <= number <= most):  # type: ignore[operator]
            raise BadValue(f"{name}: expected a finite number {expected}".rstrip() + f", got {number!r}")


def require_one_of(known: Collection[str], **choices: object) -> None:
    """Raise BadValue for the first that is none of the names that are known.

    Args:
        known: names, in the order in which a message lists them.
        choices: by the names of the options.
    """
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
