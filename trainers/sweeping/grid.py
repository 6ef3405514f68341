"""Which runs a sweep has: every combination of what comma lists say, composed and checked before one of them starts."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from trainers.command.configuration import BadConfig, choices, quoted, run_title
from trainers.command.new_run import new_configuration
from trainers.command.preflight import check
from worldmodel.errors import UserError

LONGEST_NAME = 120
OWN = ("run_dir", "resume")  # what the sweep itself says of each run


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRun:
    """One run of a sweep."""

    name: str  # of its folder
    task: str
    seed: int
    variant: str  # the other keys in which runs of the sweep differ, `key=value` with commas; "" where there are none
    overrides: tuple[str, ...]  # of configs/fit.yaml
    config: Mapping[str, Any]  # what they compose to


def plan_runs(overrides: Sequence[str], *, group: str) -> list[PlannedRun]:
    """Every combination of the values of `overrides`; the first seed of all tasks comes first.

    Args:
        overrides: `key=value`, or `key=value,value` for several.
        group: of the runs in Weights & Biases, where that is the logger and no group is named.

    Raises:
        BadConfig: one of the runs could not start; names the key and the combination.
    """
    keys = _keys(overrides)
    axes = {key: choices(keys[key]) for key in sorted(keys, key=lambda key: {"seed": 0, "task": 2}.get(key, 1))}
    several = [key for key, texts in axes.items() if len(texts) > 1 and key not in ("task", "seed")]
    runs: dict[str, PlannedRun] = {}
    for combination in product(*axes.values()):
        words = dict(zip(axes, combination, strict=True))
        one = _planned([words[key] for key in keys], several, group=group)
        if one.name in runs:
            raise BadConfig(f"{' '.join(one.overrides)}: expected every run once, got {one.name} twice")
        runs[one.name] = one
    return list(runs.values())


def _keys(overrides: Sequence[str]) -> dict[str, str]:
    """Each key's last override, in the order of the keys' first ones."""
    keys = {text.partition("=")[0]: text for text in overrides}
    for key in OWN:
        if key in keys:
            raise BadConfig(f"{key}: expected no such key, since every run has its folder in out=")
    return keys


def _planned(words: list[str], several: Sequence[str], *, group: str) -> PlannedRun:
    try:
        config = new_configuration(words)
        if config["logger"]["name"] == "wandb" and config["logger"]["group"] is None:
            words = [*words, f"logger.group={quoted(group)}"]
            config = new_configuration(words)
        check(config)
        # torch takes seconds to load: a wrong word is answered before
        from trainers.build.check_parts import fit_options

        config = fit_options(config, words)
    except UserError as error:
        raise BadConfig(f"{error}; in the combination {' '.join(words)}") from error
    task, seed = run_title(config), int(config["seed"])
    varied = [word for word in words if word.partition("=")[0] in several]
    name = _name([task, *varied, f"seed={seed}"], words)
    return PlannedRun(name=name, task=task, seed=seed, variant=", ".join(varied), overrides=tuple(words), config=config)


def _name(parts: Sequence[str], words: Sequence[str]) -> str:
    """A file name that says what a run is; one that would be long ends with a hash of all that was typed."""
    name = "-".join(re.sub(r"[^\w.=+-]+", "_", part).strip("_") for part in parts)
    digest = hashlib.sha256(" ".join(words).encode()).hexdigest()[:8]
    return name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}-{digest}"
