"""What both forms of guided policy search share: an actor fitted to the local policies of the last iteration."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from worldmodel.actors.squashed_normal import SquashedNormalActor
from worldmodel.interfaces import Loss
from worldmodel.limits import require_number, require_whole
from worldmodel.local_models.control_space import ControlSpace
from worldmodel.local_models.teachers import Teachers
from worldmodel.policies import CountsUpdates, LatentRows, PolicySpec
from worldmodel.simulators.latent import LatentSimulator


class GuidedActor(CountsUpdates):
    """Solves local policies before every `updates`-th update, which all move the actor towards them.

    The options are those of `gps` and `mdgps`, which have the same names.

    Raises:
        BadValue: for an option out of its range.
    """

    to_action: Callable[[Tensor], Tensor] = staticmethod(torch.tanh)
    reported: ClassVar[tuple[str, ...]]  # names of what an iteration puts into `report`
    report: Tensor

    def __init__(
        self,
        *,
        spec: PolicySpec,
        actor: Mapping[str, Any],
        horizon: int,
        segment: int,
        controllers: int,
        samples: int,
        updates: int,
        strength: float,
        control_cost: float,
        temperature: float,
        limit: float,
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
        """The actor's weights."""
        return {"actor": [*self.actor.parameters()]}
