"""Lists in the options of a benchmark, and what a misspelt one is told."""

from collections.abc import Collection

from trainers.command.configuration import BadConfig, whole_number


def names(key: str, text: str, known: Collection[str]) -> list[str]:
    """Names with commas between them; raises BadConfig for one that is not `known`."""
    chosen = [name for name in text.split(",") if name]
    if unknown := [name for name in chosen if name not in known]:
        raise BadConfig(f"{key}: expected some of {', '.join(known)}, got {', '.join(unknown)}")
    return chosen


def numbers(key: str, text: str) -> list[int]:
    """Whole numbers of at least 1 with commas between them; raises BadConfig for any other text."""
    return [whole_number(key, part) for part in text.split(",")]
