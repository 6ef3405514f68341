"""Algorithm 27 as the chapter has it: the summed rewards of imagined rollouts, backpropagated into the policy.

No value is learned. Gradients pass through every imagined step, where they may vanish or explode (5.5.1); the remedies
are options, and the norms of what flows back are logged.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from worldmodel.actors.squashed_normal import SquashedNormalActor
from worldmodel.imagination import endings, imagine, lambda_return, subsample
from worldmodel.interfaces import Loss
from worldmodel.latent_rows import LatentRows
from worldmodel.limits import require_number, require_whole
from worldmodel.policies.learner import PolicyLearner
from worldmodel.policy_gradients import StepGradients
from worldmodel.policy_spec import PolicySpec
from worldmodel.simulators.latent import LatentSimulator


class BackpropRewards(PolicyLearner):
    """Maximises Σ γ^t r(s_t) over imagined rollouts from replayed latents.

    Args:
        spec: what the actor is built from.
        actor: options of the actor.
        horizon: decisions imagined; without a value nothing later counts.
        starts: at most so many replayed latents are continued per update.
        entropy: weight of the policy's entropy, summed over the rollout as rewards are.
        clip: largest norm of the gradient that flows back through an imagined state; None for any.
        detach_every: steps after which no gradient flows back; None for the whole horizon.
    """

    planning_value = None

    def __init__(
        self,
        *,
        spec: PolicySpec,
        actor: Mapping[str, Any] = MappingProxyType({}),
        horizon: int = 15,
        starts: int = 96,
        entropy: float = 0.0,
        clip: float | None = None,
        detach_every: int | None = None,
    ) -> None:
        require_whole(horizon=horizon, starts=starts)
        require_number(entropy=entropy, least=0)
        if clip is not None:
            require_number(clip=clip, above=0)
        if detach_every is not None:
            require_whole(detach_every=detach_every)
        super().__init__()
        self.horizon, self.starts, self.entropy, self.clip = horizon, starts, entropy, clip
        self.detach_every = detach_every
        self.actor: SquashedNormalActor = spec.build_actor(actor)  # type: ignore[assignment]

    def losses(self, simulator: LatentSimulator, rows: LatentRows) -> Loss:
        """Minus the mean over rollouts of their summed rewards; `policy/delta_norm_t` is known after backward."""
        steps = StepGradients(self.horizon, discount=simulator.discount, clip=self.clip, detach_every=self.detach_every)
        start = subsample(rows.starts(), self.starts)
        imagined = imagine(simulator, self.actor, start, horizon=self.horizon, passed_on=steps.passed_on)
        ends = endings(simulator, imagined.states)
        rewards = imagined.rewards - self.entropy * imagined.kept
        returns = lambda_return(rewards, torch.zeros_like(rewards), discount=ends.discount, mix=1.0)[0]
        metrics = {
            "policy/entropy": -imagined.kept.detach().mean(),
            "policy/imagined_return": returns.detach().mean(),
            **steps.report(),
        }
        return Loss(-ends.of_rollouts(returns).mean(), metrics)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {"actor": [*self.actor.parameters()]}


make = BackpropRewards
