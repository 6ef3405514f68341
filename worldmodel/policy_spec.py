"""What learners of a policy are built from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from worldmodel.heads.head import Head


@dataclass(frozen=True, slots=True)
class PolicySpec:
    """What a learner is built from.

    Args:
        latent_dim: D, numbers of a latent.
        action_dim: A, action dimensions.
        discount: per decision, in (0, 1).
        build_actor: options of `policy.actor` to a policy over latents.
        build_value: number of inputs to a head whose numbers have the scale of a return, as `agent.heads` has it.
        return_scale: that scale, the action repeat over 1-γ.
        discrete: the environment takes the index of an action's largest entry.
    """

    latent_dim: int
    action_dim: int
    discount: float
    build_actor: Callable[[Mapping[str, Any]], nn.Module]
    build_value: Callable[[int], Head]
    return_scale: float = 1.0
    discrete: bool = False
