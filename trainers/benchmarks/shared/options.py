"""What a benchmark is told: a configuration, lists of names and of numbers."""

from collections.abc import Collection
from typing import Any

from trainers.build.check_parts import fit_options
from trainers.command.configuration import BadConfig, load_config, whole_number
from trainers.machine.precision import with_precision


def configuration(overrides: list[str]) -> dict[str, Any]:
    """The configuration that a run with these overrides has; raises UserError as that would."""
    return with_precision(fit_options(load_config(overrides), overrides))


def names(key: str, text: str, known: Collection[str]) -> list[str]:
    """Names with commas between them; raises BadConfig for one that is not `known`."""
    chosen = [name for name in text.split(",") if name]
    if unknown := [name for name in chosen if name not in known]:
        raise BadConfig(f"{key}: expected some of {', '.join(known)}, got {', '.join(unknown)}")
    return chosen


def numbers(key: str, text: str) -> list[int]:
    """Whole numbers of at least 1 with commas between them; raises BadConfig for any other text."""
    return [whole_number(key, part) for part in text.split(",")]
