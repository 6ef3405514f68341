"""How a policy is learned in a model: one file a method, each a `PolicyLearner`."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from worldmodel.actors import Policy
from worldmodel.actors.squashed_normal import SquashedNormalActor
from worldmodel.heads import Head
from worldmodel.interfaces import Batch, Belief, Loss
from worldmodel.limits import require_number, require_whole
from worldmodel.nets import SlowCopy
from worldmodel.simulators.latent import LatentSimulator


@dataclass(frozen=True, slots=True)
class Transitions:
    """Steps within episodes, one a row."""

    latent: Float[Tensor, "R D"]
    action: Float[Tensor, "R A"]
    reward: Float[Tensor, "R"]  # that arrived with next_latent
    continues: Float[Tensor, "R"]  # 0 where next_latent is terminal, else 1: values bootstrap across a truncation
    next_latent: Float[Tensor, "R D"]


@dataclass(frozen=True, slots=True)
class LatentRows:
    """Recorded windows and the latents that the model inferred for them, without gradients."""

    batch: Batch
    belief: Belief

    @classmethod
    def of(cls, batch: Batch, belief: Belief) -> "LatentRows":
        """The rows of a belief about a batch, cut off from its graph."""
        detached = {name: rows.detach() for name, rows in belief.statistics.items()}
        return cls(batch, Belief(belief.latent.detach(), belief.carry.detach(), detached, belief.valid))

    def starts(self) -> Float[Tensor, "R D"]:
        """The latents of all valid rows."""
        return self.belief.select(self.belief.latent)

    def transitions(self) -> Transitions:
        """The steps between neighbouring valid rows of one episode."""
        batch, latent = self.batch, self.belief.latent
        kept = self.belief.continued(batch.is_first).flatten().nonzero().squeeze(-1)  # once: a GPU's host waits for it

        def before(rows: Tensor) -> Tensor:
            return rows[:, :-1].flatten(0, 1)[kept]

        def after(rows: Tensor) -> Tensor:
            return rows[:, 1:].flatten(0, 1)[kept]

        return Transitions(
            latent=before(latent),
            action=after(batch.action),
            reward=after(batch.reward),
            continues=(~after(batch.is_terminal)).to(batch.reward.dtype),
            next_latent=after(latent),
        )


@dataclass(frozen=True, slots=True)
class PolicySpec:
    """What a learner is built from.

    Args:
        latent_dim: D, numbers of a latent.
        action_dim: A, action dimensions.
        discount: per decision, in (0, 1).
        build_actor: options of `policy.actor` to a policy over latents.
        build_value: number of inputs to a head whose numbers have the scale of a return, as `agent.heads` has it.
        return_scale: that scale, the action repeat over 1-γ.
        discrete: the environment takes the index of an action's largest entry.
    """

    latent_dim: int
    action_dim: int
    discount: float
    build_actor: Callable[[Mapping[str, Any]], nn.Module]
    build_value: Callable[[int], Head]
    return_scale: float = 1.0
    discrete: bool = False


class PolicyLearner(nn.Module, ABC):
    """One choice of the config group `policy`; its `make` takes `spec`, a PolicySpec, and options of its own.

    Attributes:
        actor: the policy that planners are seeded with, and that acts alone with agent.act_with=actor.
        planning_value: latents [*R D] to the return that follows [*R], which planners add after their horizon; None
            for planning on rewards alone.
    """

    actor: Policy
    planning_value: nn.Module | None

    @abstractmethod
    def losses(self, simulator: LatentSimulator, rows: LatentRows) -> Loss:
        """What to minimise for actor and values; the model's weights are frozen, gradients may flow through it.

        Args:
            simulator: the learned world, with this learner's actor and planning value.
            rows: recorded windows with their latents.

        Returns:
            A total whose parts train disjoint weights, and what to log.
        """

    @abstractmethod
    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Weights by the name of their learning rate: "actor", "value", or both."""

    def follow(self) -> None:
        """Move what follows slowly; called after every optimiser step."""
        return


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

    Raises:
        BadValue: for an option out of its range.
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


class CountsUpdates(PolicyLearner):
    """A learner that does something else every few updates: `done` is how many there were.

    It is kept on the host: asking a GPU for it would make every update wait.
    """

    done = 0

    def get_extra_state(self) -> Tensor:
        """The number of updates."""
        return torch.tensor(self.done)

    def set_extra_state(self, state: Tensor) -> None:
        """Go on from a checkpoint's number of updates."""
        self.done = int(state)
