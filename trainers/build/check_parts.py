"""Whether the chosen parts take their options, before an environment starts: all are built without memory."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from trainers.build.agent import AGENTS_OWN, build_agent
from trainers.build.data import build_sampler
from trainers.command import registry
from trainers.command.registry import DoesNotFit, UnknownComponent
from worldmodel.errors import UserError, did_you_mean
from worldmodel.spec import EnvSpec

# where the parts of a group are, and what they are built from that no option can say
_GROUPS: dict[str, tuple[str, set[str]]] = {
    "planner": ("worldmodel.planners", set()),
    "dynamics": ("worldmodel.dynamics", {"embed_dim", "action_dim"}),
    "objective": ("worldmodel.objectives", {"encoder", "dynamics"}),
    "policy": ("worldmodel.policies", {"spec"}),
}


def fit_options(config: Mapping[str, Any], arguments: Sequence[str]) -> dict[str, Any]:
    """The configuration without options that the chosen parts do not have, as an experiment may leave them behind.

    Args:
        config: as it was composed.
        arguments: as typed; what is named there is not left out but refused.

    Raises:
        UnknownComponent: an option that was typed, with the nearest right names.
        BadValue: a value that a part refuses.
    """
    typed = {text.lstrip("+").partition("=")[0] for text in arguments}
    fitted = dict(config)
    for group in _GROUPS:
        options = config.get(group)
        if isinstance(options, Mapping) and options.get("name") is not None:
            fitted[group] = _fitting(group, options, typed)
    _build_without_memory(fitted)
    return fitted


def _fitting(group: str, options: Mapping[str, Any], typed: set[str]) -> dict[str, Any]:
    package, facts = _GROUPS[group]
    accepted = registry.accepted(package, options, key=group)
    if accepted is None:
        return dict(options)
    accepted = (accepted - facts) | (AGENTS_OWN if group == "dynamics" else set())
    for name in options.keys() - accepted - {"name"}:
        if f"{group}.{name}" in typed:
            near = did_you_mean(name, accepted) or f"; it takes {', '.join(sorted(accepted))}"
            raise UnknownComponent(f"{group}.{name}: no option of {group}={options['name']}{near}")
    return {name: value for name, value in options.items() if name in accepted | {"name"}}


def _build_without_memory(config: Mapping[str, Any]) -> None:
    """Let every part look at its options; what depends on the environment is seen when that is known."""
    size = config["task"]["env"].get("size", 64)
    repeat = config["task"]["env"].get("action_repeat", 1)
    if not (type(size) is int and type(repeat) is int and size > 0 and repeat > 0):
        return  # the environment says what is wrong with them
    spec = EnvSpec("", images={"pixels": (3, size, size)}, action_dim=1, action_repeat=repeat, episode_steps=1)
    try:
        if "sampler" in config["data"]:
            build_sampler(config, rank=0)
        if config["task"]["env"].get("observe", "pixels") == "pixels":
            with torch.device("meta"):
                build_agent(config, spec)
    except DoesNotFit:
        return  # to sizes that only the environment knows
    except UserError:
        raise
    except (ValueError, TypeError, RuntimeError, NotImplementedError):
        return  # of numbers that have no value yet
