"""What learners of an actor and of its value from imagined rollouts share."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from worldmodel.actors.squashed_normal import SquashedNormalActor
from worldmodel.limits import require_number, require_whole
from worldmodel.nets import SlowCopy
from worldmodel.policies.learner import PolicyLearner
from worldmodel.policy_spec import PolicySpec


class ActorAndValue(PolicyLearner):
    """A learner, from imagined rollouts, of an actor and of the return that follows a latent.

    A slow copy of the value is the target, and what planners add.

    Args:
        spec: what actor and value are built from.
        actor: options of the actor.
        horizon: decisions imagined.
        starts: at most so many replayed latents are continued per update.
        mix: λ.
        entropy: weight of the policy's entropy against returns of order 1.
        slow_rate: how fast the target value follows the learned one, per update.
    """

    scales_returns = True  # by their `spread`, see `imagination.track_spread`
    spread: Tensor

    def __init__(
        self,
        *,
        spec: PolicySpec,
        actor: Mapping[str, Any] = MappingProxyType({}),
        horizon: int = 8,
        starts: int = 96,
        mix: float = 0.95,
        entropy: float = 1e-3,
        slow_rate: float = 0.05,
    ) -> None:
        require_whole(horizon=horizon, starts=starts)
        require_number(slow_rate=slow_rate, above=0, most=1)
        require_number(mix=mix, least=0, most=1)
        require_number(entropy=entropy, least=0)
        super().__init__()
        self.horizon, self.starts, self.mix, self.entropy = horizon, starts, mix, entropy
        self.actor: SquashedNormalActor = spec.build_actor(actor)  # type: ignore[assignment]
        self.value = spec.build_value(spec.latent_dim)
        self.slow_value = SlowCopy(self.value, rate=slow_rate)
        if self.scales_returns:
            self.register_buffer("spread", torch.ones(()))

    @property
    def planning_value(self) -> nn.Module:  # type: ignore[override]
        """The slow copy of the value."""
        return self.slow_value.module

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {"actor": [*self.actor.parameters()], "value": [*self.value.parameters()]}

    def follow(self) -> None:
        self.slow_value.follow(self.value)
