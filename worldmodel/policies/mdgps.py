"""Guided policy search as mirror descent: local policies bounded by their KL from the global policy, linearised.

Montgomery and Levine, Guided Policy Search via Approximate Mirror Descent (2016). No multipliers, and no controllers
that live on: the policy itself is what the next ones start from.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch

from worldmodel.local_models.control_space import ControlSpace, mean_return, of_controllers, of_network, roll_out
from worldmodel.local_models.global_policy import linearise_policy
from worldmodel.local_models.kl_constraint import constrain_kl
from worldmodel.local_models.linear_gaussian import Gaussian
from worldmodel.local_models.local_problem import Recorded, local_problem
from worldmodel.policies import LatentRows, PolicySpec
from worldmodel.policies._guided import GuidedActor


class MirrorDescentGPS(GuidedActor):
    """Like `gps`, with min E[cost] subject to KL(p || linearised policy) <= limit as its one local step.

    Every iteration takes other replayed latents, so it is MPC-GPS as well: segments, not whole episodes.

    Args:
        spec: what the actor is built from.
        actor: options of the actor.
        horizon: H, decisions of a local policy.
        segment: its first decisions, which teach; at most H.
        controllers: local policies at a time.
        samples: trajectories of each.
        updates: of the actor in an iteration.
        strength: samples that the learned model weighs against theirs.
        control_cost: of ½ |u|² of a decision, in reward.
        temperature: what a nat of a local policy's entropy is worth, in reward.
        limit: nats per decision between local policies and the policy.

    Raises:
        BadValue: for an option out of its range.
    """

    reported = ("local_return", "kl_step")

    def __init__(
        self,
        *,
        spec: PolicySpec,
        actor: Mapping[str, Any] = MappingProxyType({}),
        horizon: int = 10,
        segment: int = 6,
        controllers: int = 8,
        samples: int = 4,
        updates: int = 4,
        strength: float = 10.0,
        control_cost: float = 0.01,
        temperature: float = 0.02,
        limit: float = 1.0,
    ) -> None:
        super().__init__(
            spec=spec,
            actor=actor,
            horizon=horizon,
            segment=segment,
            controllers=controllers,
            samples=samples,
            updates=updates,
            strength=strength,
            control_cost=control_cost,
            temperature=temperature,
            limit=limit,
        )
        self.count = controllers

    def iterate(self, world: ControlSpace, rows: LatentRows) -> None:
        """One local step from the linearised policy, for other latents every time."""
        steps, latents, moments = rows.transitions(), rows.starts(), self.actor.moments
        recorded = Recorded.of(world.simulator.step(steps.latent, steps.action), steps.next_latent, steps.latent)
        start = latents[torch.randint(len(latents), (self.count,), device=latents.device)]
        sizes = {"samples": self.samples, "horizon": self.horizon}
        paths = roll_out(world, start, of_network(moments), **sizes)
        dynamics, cost = local_problem(world, paths, recorded, strength=self.strength, control_cost=self.control_cost)
        states, spread = paths.states[:, :, :-1], recorded.spread
        policy = linearise_policy(moments, states, spread=spread, strength=self.strength)
        found = constrain_kl(
            dynamics,
            cost,
            policy,
            Gaussian.point(start.double()),
            limit=self.limit * self.horizon,
            temperature=self.temperature,
        )
        local = found.policy.where_finite(policy)
        paths = roll_out(world, start, of_controllers(local), **sizes)
        self.teachers.take(local, paths, found.kl.new_ones(self.count))
        self.report.copy_(torch.stack([mean_return(world, paths), found.kl.to(self.report).mean() / self.horizon]))


make = MirrorDescentGPS
