"""Guided policy search as mirror descent: local policies bounded by their KL from the global policy, linearised.

Montgomery and Levine, Guided Policy Search via Approximate Mirror Descent (2016). No multipliers, and no controllers
that live on: the policy itself is what the next ones start from.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from worldmodel.actors.squashed_normal import SquashedNormalActor
from worldmodel.interfaces import Loss
from worldmodel.limits import require_number, require_whole
from worldmodel.local_models.control_space import ControlSpace, mean_return, of_controllers, of_network, roll_out
from worldmodel.local_models.global_policy import linearise_policy
from worldmodel.local_models.kl_constraint import constrain_kl
from worldmodel.local_models.linear_gaussian import Gaussian
from worldmodel.local_models.local_problem import Recorded, local_problem
from worldmodel.local_models.teachers import Teachers
from worldmodel.policies import LatentRows, PolicyLearner, PolicySpec
from worldmodel.simulators.latent import LatentSimulator


class MirrorDescentGPS(PolicyLearner):
    """Like `gps`, with min E[cost] subject to KL(p || linearised policy) <= limit as its one local step.

    Every iteration takes other replayed latents, so it is MPC-GPS as well: segments, not whole episodes.

    Args:
        spec: what the actor is built from.
        actor: options of the actor.
        horizon: H, decisions of a local policy.
        segment: its first decisions, which teach; at most H.
        starts: local policies at a time.
        samples: trajectories of each.
        updates: of the actor in an iteration.
        strength: samples that the learned model weighs against theirs.
        control_cost: of ½ |u|² of a decision, in reward.
        temperature: what a nat of a local policy's entropy is worth, in reward.
        limit: nats per decision between local policies and the policy.

    Raises:
        ValueError: for an option out of its range.
    """

    to_action: Callable[[Tensor], Tensor] = staticmethod(torch.tanh)
    report: Tensor

    def __init__(
        self,
        *,
        spec: PolicySpec,
        actor: Mapping[str, Any] = MappingProxyType({}),
        horizon: int = 10,
        segment: int = 6,
        starts: int = 8,
        samples: int = 4,
        updates: int = 4,
        strength: float = 10.0,
        control_cost: float = 0.01,
        temperature: float = 0.02,
        limit: float = 1.0,
    ) -> None:
        require_whole(horizon=horizon, starts=starts, samples=samples, updates=updates)
        require_whole(segment=segment, most=horizon)
        require_number(strength=strength, temperature=temperature, limit=limit, above=0)
        require_number(control_cost=control_cost, least=0)
        super().__init__()
        self.horizon, self.starts, self.samples, self.updates = horizon, starts, samples, updates
        self.strength, self.control_cost = strength, control_cost
        self.temperature, self.limit = temperature, limit
        self.actor: SquashedNormalActor = spec.build_actor(actor)  # type: ignore[assignment]
        self.planning_value = None
        sizes = {"latent_dim": spec.latent_dim, "action_dim": spec.action_dim}
        self.teachers = Teachers(starts=starts, samples=samples, steps=segment, **sizes)
        self.done = 0
        self.register_buffer("report", torch.zeros(2))

    def losses(self, simulator: LatentSimulator, rows: LatentRows) -> Loss:
        """The actor's KL from its teachers; there are new ones before every `updates`-th of these."""
        if self.done % self.updates == 0:
            with torch.no_grad():
                self._iterate(ControlSpace(simulator, self.to_action), rows)
        self.done += 1
        loss = self.teachers.loss(self.actor.moments(self.teachers.states))
        names = ("local_return", "kl_step")
        metrics = {f"policy/{name}": number for name, number in zip(names, self.report.clone(), strict=True)}
        return Loss(loss, {"loss/actor": loss.detach(), **metrics})

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """The actor's weights."""
        return {"actor": [*self.actor.parameters()]}

    def get_extra_state(self) -> Tensor:
        """The number of updates, on the host: asking a GPU for it would make every update wait."""
        return torch.tensor(self.done)

    def set_extra_state(self, state: Tensor) -> None:
        """Go on from a checkpoint's number of updates."""
        self.done = int(state)

    def _iterate(self, world: ControlSpace, rows: LatentRows) -> None:
        steps, latents, moments = rows.transitions(), rows.starts(), self.actor.moments
        recorded = Recorded.of(world.simulator.step(steps.latent, steps.action), steps.next_latent, steps.latent)
        start = latents[torch.randint(len(latents), (self.starts,), device=latents.device)]
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
        self.teachers.take(local, paths, found.kl.new_ones(self.starts))
        self.report.copy_(torch.stack([mean_return(world, paths), found.kl.to(self.report).mean() / self.horizon]))


make = MirrorDescentGPS
