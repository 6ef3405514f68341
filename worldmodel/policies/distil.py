"""A policy that learns what a planner decides: KL to the planner's Gaussian, reanalysed a few latents at a time.

Wang et al., Bootstrapped Model Predictive Control (2025). The policy then seeds the planner that acts.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.distillation.answers import Answers
from worldmodel.distillation.planner_gaussian import LEAST_STD, PlannerTarget, sampled_planner_kl
from worldmodel.errors import naming
from worldmodel.imagination import Imagined, endings, imagine, lambda_return, subsample
from worldmodel.interfaces import Loss
from worldmodel.latent_rows import LatentRows
from worldmodel.limits import require_number, require_whole
from worldmodel.planners.cem import CEM
from worldmodel.policies.actor_and_value import ActorAndValue
from worldmodel.policies.learner import CountsUpdates
from worldmodel.policy_spec import PolicySpec
from worldmodel.simulators.latent import LatentSimulator


class PlannerDistillation(ActorAndValue, CountsUpdates):
    """Asks CEM about latents as it goes, remembers the answers, and moves the actor towards them.

    Half of the questions are replayed latents, half are met by the actor in imagination (DAgger without an
    environment), so that it is also told what to do where only its own mistakes lead. The value is that of the actor,
    from the same imagined rollouts.

    Args:
        spec: what actor and value are built from.
        planner: options of the CEM that is asked, see `planners.cem`.
        every: updates between two rounds of questions.
        queries: latents of a round.
        memory: answers that are kept; a new one takes the place of the oldest.
        batch: answers of an update.
        least_std: of an answer, see `PlannerTarget`.
        entropy: weight of the actor's entropy beside the KL.
        options: those of `ActorAndValue`; horizon, starts, mix and slow_rate are of the value.
    """

    options_go_to = ActorAndValue
    scales_returns = False  # its entropy stands beside a KL

    def __init__(
        self,
        *,
        spec: PolicySpec,
        planner: Mapping[str, Any] = MappingProxyType({}),
        every: int = 4,
        queries: int = 32,
        memory: int = 2048,
        batch: int = 256,
        least_std: float = LEAST_STD,
        entropy: float = 1e-4,
        **options: Any,
    ) -> None:
        require_whole(every=every, queries=queries, batch=batch)
        require_whole(memory=memory, least=queries)
        require_number(least_std=least_std, above=0)
        super().__init__(spec=spec, entropy=entropy, **options)
        self.every, self.queries, self.batch, self.least_std = every, queries, batch, least_std
        with naming("planner"):
            self.planner = CEM(**{"horizon": 5, "candidates": 64, "elites": 12, "iterations": 3, **planner})
        self.answers = Answers(size=memory, latent_dim=spec.latent_dim, action_dim=spec.action_dim)

    def losses(self, simulator: LatentSimulator, rows: LatentRows) -> Loss:
        """The actor's KL to what the planner answered, and the loss of its value."""
        replayed = rows.starts()
        with torch.no_grad():
            imagined = imagine(simulator, self.actor, subsample(replayed, self.starts), horizon=self.horizon)
        value_loss, returns = self._value_loss(simulator, imagined)
        if self.done % self.every == 0:
            met = subsample(imagined.states[1:].flatten(0, 1), self.queries - self.queries // 2)
            self._ask(simulator, torch.cat([subsample(replayed, self.queries // 2), met]))
        self.done += 1
        kl, log_prob = self._imitation()
        metrics = {
            "loss/policy_kl": kl.detach(),
            "policy/entropy": -log_prob.detach(),
            "policy/imagined_return": returns,
            "loss/value": value_loss.detach(),
        }
        return Loss(kl + self.entropy * log_prob + value_loss, metrics)

    def _ask(self, simulator: LatentSimulator, latent: Float[Tensor, "R D"]) -> None:
        """Plan from latents, and keep the answers."""
        self.answers.take(latent, PlannerTarget.of(self.planner.plan(simulator, latent), least_std=self.least_std))

    def _imitation(self) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """KL(π || planner) and log π, means over some of the answers."""
        latent, target = self.answers.draw(self.batch)
        action, log_prob = self.actor(latent)
        return sampled_planner_kl(action, log_prob, target).mean(), log_prob.mean()

    def _value_loss(
        self, simulator: LatentSimulator, imagined: Imagined
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """The loss of the actor's value on its rollouts, and the mean return."""
        states = imagined.states
        with torch.no_grad():
            ends, values = endings(simulator, states), self.slow_value.module(states[1:])
            returns = lambda_return(imagined.rewards, values, discount=ends.discount, mix=self.mix)
        return ends.mean(self.value.loss(states[:-1], returns)), returns.mean()


make = PlannerDistillation
