"""General Dyna in latent space (Algorithm 29): any model-free learner, on recorded rows and on short imagined branches.

Sutton, Dyna (1991); branches from recorded states as in Janner et al., When to Trust Your Model (2019).
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from worldmodel.actor_critics.actor_critic import ActorCritic, PolicyValue, weighted_mean
from worldmodel.actors.squashed_normal import SquashedNormalActor
from worldmodel.dyna.branches import branch, draw
from worldmodel.dyna.rollout_length import RolloutLength
from worldmodel.interfaces import Loss
from worldmodel.latent_rows import LatentRows
from worldmodel.limits import require_number
from worldmodel.parts import Options, build
from worldmodel.policies.learner import PolicyLearner
from worldmodel.policy_spec import PolicySpec
from worldmodel.records import joined
from worldmodel.simulators.latent import LatentSimulator
from worldmodel.value_targets.value_target import ValueTarget


class GeneralDyna(PolicyLearner):
    """A learner of policy and action values in a world that is half recorded and half imagined.

    Args:
        spec: what it is built from.
        actor: options of the actor.
        learner: its name, a module of `worldmodel.actor_critics`, and options of its own.
        target: of `worldmodel.value_targets`, and options.
        rollout: how long branches are, of `worldmodel.dyna`, and options.
        ratio: imagined rows for each recorded one, at least 0.
    """

    varies_by_update = True  # rows of a batch are chosen by what they are

    def __init__(
        self,
        *,
        spec: PolicySpec,
        actor: Mapping[str, Any] = MappingProxyType({}),
        learner: Options = MappingProxyType({"name": "max_q"}),
        target: Options = MappingProxyType({"name": "td"}),
        rollout: Options = MappingProxyType({"name": "by_reward_error"}),
        ratio: float = 1.0,
    ) -> None:
        require_number(ratio=ratio, least=0)
        super().__init__()
        self.learner: ActorCritic = build("worldmodel.actor_critics", learner, key="learner", spec=spec, actor=actor)
        self.target: ValueTarget = build("worldmodel.value_targets", target, key="target")
        self.length: RolloutLength = build("worldmodel.dyna", rollout, key="rollout")
        self.ratio = ratio

    @property
    def actor(self) -> SquashedNormalActor:  # type: ignore[override]
        return self.learner.actor

    @property
    def planning_value(self) -> nn.Module:  # type: ignore[override]
        """The slow Q of the policy's mode."""
        return PolicyValue(self.learner.slow_q.module, self.learner.actor)

    def losses(self, simulator: LatentSimulator, rows: LatentRows) -> Loss:
        """Of values and actor on recorded and imagined rows together."""
        steps = self.length.next(simulator, rows)
        real = rows.transitions()
        start = real.latent[draw(real, round(self.ratio * len(real.reward) / steps))]
        imagined, alive = branch(simulator, start, first=self._act, then=self._act, steps=steps)
        every, weight = joined([real, imagined]), torch.cat([torch.ones_like(real.reward), alive])
        error = self.learner.q.loss(every.latent, every.action, self.target(self.learner, simulator, every))
        value_loss = weighted_mean(error, weight)
        actor_loss, metrics = self.learner.actor_loss(every.latent, weight)
        named = {
            **metrics,
            "loss/value": value_loss.detach(),
            "policy/recorded_error": error[: len(real.reward)].detach().mean(),
            "policy/rollout": torch.full((), float(steps), device=value_loss.device),
        }
        return Loss(value_loss + actor_loss, named)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return self.learner.groups()

    def follow(self) -> None:
        self.learner.follow()

    def _act(self, latent: Tensor) -> Tensor:
        return self.learner.act(latent)[0]


make = GeneralDyna
