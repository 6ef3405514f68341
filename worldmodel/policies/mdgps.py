"""Guided policy search as mirror descent: local policies bounded by their KL from the global policy, linearised.

Montgomery and Levine, Guided Policy Search via Approximate Mirror Descent (2016). No multipliers, and no controllers
that live on: the policy itself is what the next ones start from.
"""

import torch

from worldmodel.latent_rows import LatentRows
from worldmodel.local_models.control_space import ControlSpace, mean_return, of_controllers, of_network, roll_out
from worldmodel.local_models.kl_constraint import constrain_kl
from worldmodel.local_models.linear_gaussian import Gaussian
from worldmodel.policies._guided import GuidedActor


class MirrorDescentGPS(GuidedActor):
    """Like `gps`, with min E[cost] subject to KL(p || linearised policy) <= limit as its one local step.

    Every iteration takes other replayed latents, so it is MPC-GPS as well: segments, not whole episodes. Options are
    those of `GuidedActor`.
    """

    reported = ("local_return", "kl_step")

    def iterate(self, world: ControlSpace, rows: LatentRows) -> None:
        """One local step from the linearised policy, for other latents every time."""
        latents = rows.starts()
        start = latents[torch.randint(len(latents), (len(self.teachers.weight),), device=latents.device)]
        sizes = {"samples": self.samples, "horizon": self.horizon}
        paths = roll_out(world, start, of_network(self.actor.moments), **sizes)
        dynamics, cost, policy = self.local_problem(world, paths, rows)
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
        self.teachers.take(local, paths, torch.ones_like(found.kl))
        self.report.copy_(torch.stack([mean_return(world, paths), found.kl.to(self.report).mean() / self.horizon]))


make = MirrorDescentGPS
