"""What both forms of guided policy search share: an actor fitted to the local policies of the last iteration."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from worldmodel.actors.squashed_normal import SquashedNormalActor
from worldmodel.interfaces import Loss
from worldmodel.latent_rows import LatentRows
from worldmodel.limits import require_number, require_whole
from worldmodel.local_models.control_space import ControlSpace, Paths
from worldmodel.local_models.fitting import Recorded, local_problem
from worldmodel.local_models.global_policy import linearise_policy
from worldmodel.local_models.linear_gaussian import LinearGaussianDynamics, LinearGaussianPolicy
from worldmodel.local_models.quadratic_cost import QuadraticCost
from worldmodel.local_models.teachers import Teachers
from worldmodel.policies.learner import CountsUpdates
from worldmodel.policy_spec import PolicySpec
from worldmodel.simulators.latent import LatentSimulator


class GuidedActor(CountsUpdates):
    """Solves local policies before every `updates`-th update, which all move the actor towards them.

    Args:
        spec: what the actor is built from.
        actor: options of the actor.
        horizon: H, decisions of a local policy.
        segment: its first decisions, which teach; at most H.
        controllers: local policies at a time.
        samples: trajectories of each per iteration.
        updates: of the actor in an iteration.
        strength: samples that the learned model weighs against theirs.
        control_cost: of ½ |u|² of a decision, in reward.
        temperature: what a nat of a local policy's entropy is worth, in reward.
        limit: nats per decision that a local step may move.
    """

    to_action: Callable[[Tensor], Tensor] = staticmethod(torch.tanh)
    reported: ClassVar[tuple[str, ...]]  # names of what an iteration puts into `report`
    report: Tensor

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
        require_whole(horizon=horizon, controllers=controllers, samples=samples, updates=updates)
        require_whole(segment=segment, most=horizon)
        require_number(strength=strength, temperature=temperature, limit=limit, above=0)
        require_number(control_cost=control_cost, least=0)
        super().__init__()
        self.horizon, self.samples, self.updates = horizon, samples, updates
        self.strength, self.control_cost = strength, control_cost
        self.temperature, self.limit = temperature, limit
        self.actor: SquashedNormalActor = spec.build_actor(actor)  # type: ignore[assignment]
        self.planning_value = None
        sizes = {"latent_dim": spec.latent_dim, "action_dim": spec.action_dim}
        self.teachers = Teachers(starts=controllers, samples=samples, steps=segment, **sizes)
        self.register_buffer("report", torch.zeros(len(self.reported)))

    @abstractmethod
    def iterate(self, world: ControlSpace, rows: LatentRows) -> None:
        """Solve local policies and let `teachers` take them; called without gradients."""

    def local_problem(
        self, world: ControlSpace, paths: Paths, rows: LatentRows
    ) -> tuple[LinearGaussianDynamics, QuadraticCost, LinearGaussianPolicy]:
        """Dynamics and cost around trajectories, and the actor, linearised there."""
        recorded = Recorded.of(world.simulator, rows.transitions())
        strength, states = self.strength, paths.states[:, :, :-1]
        dynamics, cost = local_problem(world, paths, recorded, strength=strength, control_cost=self.control_cost)
        policy = linearise_policy(self.actor.moments, states, spread=recorded.spread, strength=strength)
        return dynamics, cost, policy

    def losses(self, simulator: LatentSimulator, rows: LatentRows) -> Loss:
        """The actor's KL from its teachers; there are new ones before every `updates`-th of these."""
        if self.done % self.updates == 0:
            # regressions and Riccati equations in the weights' precision, whatever autocast says
            with torch.no_grad(), torch.autocast(rows.belief.latent.device.type, enabled=False):
                self.iterate(ControlSpace(simulator, self.to_action), rows)
        self.done += 1
        loss = self.teachers.loss(self.actor.moments(self.teachers.states))
        metrics = {f"policy/{name}": number for name, number in zip(self.reported, self.report.clone(), strict=True)}
        return Loss(loss, {"loss/actor": loss.detach(), **metrics})

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {"actor": [*self.actor.parameters()]}
