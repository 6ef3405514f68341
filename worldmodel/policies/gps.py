"""Guided policy search (Algorithm 30, with the sign of line 4 corrected): local controllers teach the policy.

Levine and Koltun, Guided Policy Search (2013); Levine and Abbeel, Learning Neural Network Policies with Guided Policy
Search under Unknown Dynamics (2014); for segments Zhang, Kahn, Levine and Abbeel, Learning Deep Control Policies for
Autonomous Aerial Vehicles with MPC-Guided Policy Search (2016).
"""

import operator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.latent_rows import LatentRows
from worldmodel.limits import require_number, require_whole
from worldmodel.local_models.control_space import (
    ControlSpace,
    Paths,
    mean_return,
    of_controllers,
    of_network,
    returns,
    roll_out,
    surely_worse,
)
from worldmodel.local_models.controllers import LocalControllers
from worldmodel.local_models.kl_constraint import constrain_kl
from worldmodel.local_models.linear_gaussian import Gaussian, LinearGaussianPolicy, forward_pass, policy_kl
from worldmodel.local_models.quadratic_cost import expected_cost
from worldmodel.policies._guided import GuidedActor
from worldmodel.policy_spec import PolicySpec
from worldmodel.records import choose

_RANGE = 30.0  # of λ around its first: a network that cannot follow would make controllers that only follow it

_LEAST_STEP = 1 / 64  # of the limit, after steps that were taken back


class GuidedPolicySearch(GuidedActor):
    """Improves linear-Gaussian controllers from replayed latents in imagination, and fits the actor to them.

    One iteration: sample trajectories of every controller, fit local dynamics to them, improve the controllers within
    a bound on their KL at minus λ log π of cost, and `updates` steps of the actor towards them. λ, per start, doubles
    where a controller is further than twice `agreement_kl` from the policy and halves where it is nearer than half.

    Episodes are long, so this is MPC-GPS: a controller is solved for a segment of `horizon` decisions from a replayed
    latent, not for a whole episode, and the first `segment` of them teach; after `iterations` other latents follow.
    Actor and controllers are Gaussians of controls u, the action is tanh(u): the encoder is read by both, so the
    policy acts on pixels.

    Args:
        spec: what the actor is built from.
        iterations: of the same controllers.
        controllers: at a time.
        agreement: first λ, what a nat between controller and policy costs, in reward.
        agreement_kl: nats per decision between them that λ aims at; 0 leaves λ as it is.
        options: those of `GuidedActor`; a controller's limit is less after a step that made it worse.
    """

    options_go_to = GuidedActor
    reported = ("local_return", "kl_step", "kl_global", "lambda")

    def __init__(
        self,
        *,
        spec: PolicySpec,
        controllers: int = 8,
        iterations: int = 4,
        agreement: float = 0.02,
        agreement_kl: float = 0.5,
        **options: Any,
    ) -> None:
        require_whole(iterations=iterations)
        require_number(agreement=agreement, agreement_kl=agreement_kl, least=0)
        super().__init__(spec=spec, controllers=controllers, **options)
        self.iterations, self.agreement, self.agreement_kl = iterations, agreement, agreement_kl
        self.controllers = LocalControllers(
            horizon=self.horizon, starts=controllers, latent_dim=spec.latent_dim, action_dim=spec.action_dim
        )

    def iterate(self, world: ControlSpace, rows: LatentRows) -> None:
        """Improve the controllers; after `iterations` of them there are others, from other latents."""
        fresh = self.done // self.updates % self.iterations == 0
        paths = self._open(world, rows.starts()) if fresh else self._roll_out(world)
        before, price = self.controllers.policy, self.controllers.price
        dynamics, cost, policy = self.local_problem(world, paths, rows)
        if fresh:
            before, price = policy, torch.full_like(price, self.agreement)
            self.controllers.take(before, price)
            self.controllers.step.fill_(1.0)
        start = Gaussian.point(self.controllers.start)
        away = policy_kl(before, policy, forward_pass(dynamics, before, start)).mean(1)
        if not fresh:
            price = self._adapted(price, away)
        found = constrain_kl(
            dynamics,
            cost,
            before,
            start,
            limit=self.limit * self.horizon * self.controllers.step,
            temperature=self.temperature,
            attractors=[(policy, price)],
        )
        self.controllers.take(found.policy, price)
        costs = (expected_cost(cost, p, forward_pass(dynamics, p, start)) for p in (before, found.policy))
        paths = self._confirmed(world, before, paths, operator.sub(*costs))
        self.teachers.take(self.controllers.policy, paths, price)
        numbers = [mean_return(world, paths), found.kl.mean() / self.horizon, away.mean(), price.mean()]
        self.report.copy_(torch.stack([number.to(self.report) for number in numbers]))

    def _open(self, world: ControlSpace, latents: Float[Tensor, "R D"]) -> Paths:
        """Trajectories of the policy from other starts."""
        chosen = torch.randint(len(latents), (len(self.controllers.start),), device=latents.device)
        self.controllers.start.copy_(latents[chosen])
        act = of_network(self.actor.moments)
        return roll_out(world, latents[chosen], act, samples=self.samples, horizon=self.horizon)

    def _roll_out(self, world: ControlSpace) -> Paths:
        """Trajectories of the controllers."""
        start, act = self.controllers.start.to(self.teachers.states), of_controllers(self.controllers.policy)
        return roll_out(world, start, act, samples=self.samples, horizon=self.horizon)

    def _confirmed(
        self, world: ControlSpace, before: LinearGaussianPolicy, paths: Paths, expected: Float[Tensor, "B"]
    ) -> Paths:
        """Trajectories of the improved controllers; steps that these refute are taken back, the next are smaller."""
        after = self._roll_out(world)
        old, new = (returns(world, of, control_cost=self.control_cost) for of in (paths, after))
        refuted, step = surely_worse(new, old, expected=expected), self.controllers.step
        self.controllers.take(choose(refuted, before, self.controllers.policy), self.controllers.price)
        step.copy_(torch.where(refuted, step / 2, 2 * step).clamp(_LEAST_STEP, 1.0))
        return choose(refuted, paths, after)

    def _adapted(self, price: Float[Tensor, "B"], away: Float[Tensor, "B"]) -> Float[Tensor, "B"]:
        """λ, twice as large where controller and policy are far from each other, half where they are near."""
        if not self.agreement_kl:
            return price
        price = torch.where(away > 2 * self.agreement_kl, 2 * price, price)
        return torch.where(away < 0.5 * self.agreement_kl, 0.5 * price, price).clamp(
            self.agreement / _RANGE, self.agreement * _RANGE
        )


make = GuidedPolicySearch
