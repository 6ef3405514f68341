"""Dyna-Q in latent space (Algorithm 28): Q-learning on recorded rows and on rows that the model imagines from them.

Double Q-learning as in van Hasselt et al., Deep Reinforcement Learning with Double Q-learning (2016).
"""

from collections.abc import Mapping
from types import MappingProxyType

import torch
from jaxtyping import Float
from torch import Tensor, nn

from worldmodel.action_values.action_sets import ActionSet, Grid, OneHot, PerDimension
from worldmodel.action_values.discrete_q import BestValue, DiscreteQ, HuberQ, TwoHotQ
from worldmodel.actors.greedy_q import GreedyQActor
from worldmodel.distributions import uniform
from worldmodel.dyna.branches import branch, draw
from worldmodel.errors import BadValue
from worldmodel.interfaces import Loss
from worldmodel.latent_rows import LatentRows, Transitions
from worldmodel.limits import require_number, require_one_of, require_whole
from worldmodel.nets import SlowCopy
from worldmodel.policies.learner import PolicyLearner
from worldmodel.policy_spec import PolicySpec
from worldmodel.records import joined
from worldmodel.simulators.latent import LatentSimulator

LOSSES: dict[str, type[HuberQ] | type[TwoHotQ]] = {"huber": HuberQ, "two_hot": TwoHotQ}
ACTION_SETS: dict[str, type[Grid] | type[PerDimension]] = {"grid": Grid, "per_dimension": PerDimension}
SOURCES = ("buffer", "epsilon_greedy", "uniform")


class LatentDynaQ(PolicyLearner):
    """Q-learning over latents with discrete or discretised actions; the greedy policy acts and seeds planners.

    Args:
        spec: what it is built from.
        action_set: "grid", all combinations of bins; "per_dimension", a choice for each dimension on its own; "auto",
            a grid for up to two dimensions. An environment with discrete actions has its own.
        bins: values of an action dimension.
        loss: "huber" or "two_hot".
        hidden, layers: of Q's perceptron.
        epsilon: share of random choices in the policy's samples.
        ratio: imagined rows for each recorded one, at least 0.
        rollout: decisions of an imagined branch.
        first_actions: shares of branches whose first action is the recorded one (`buffer`), ε-greedy
            (`epsilon_greedy`) or any (`uniform`); later ones are ε-greedy.
        double: the online Q chooses what the slow one values, else the slow one does both.
        slow_rate: how fast the slow Q follows, per update.
    """

    varies_by_update = True  # rows of a batch are chosen by what they are

    def __init__(
        self,
        *,
        spec: PolicySpec,
        action_set: str = "auto",
        bins: int = 5,
        loss: str = "huber",
        hidden: int = 200,
        layers: int = 2,
        epsilon: float = 0.1,
        ratio: float = 2.0,
        rollout: int = 1,
        first_actions: Mapping[str, float] = MappingProxyType({"buffer": 1.0, "epsilon_greedy": 1.0, "uniform": 1.0}),
        double: bool = True,
        slow_rate: float = 0.05,
    ) -> None:
        require_whole(rollout=rollout)
        require_number(ratio=ratio, least=0)
        require_number(slow_rate=slow_rate, above=0, most=1)
        require_one_of(LOSSES, loss=loss)
        super().__init__()
        actions = _action_set(spec, action_set, bins)
        sizes = {"latent_dim": spec.latent_dim, "hidden": hidden, "layers": layers}
        q = LOSSES[loss](actions=actions, scale=spec.return_scale, **sizes)
        self.actor: GreedyQActor = GreedyQActor(q=q, epsilon=epsilon)
        self.slow = SlowCopy(q, rate=slow_rate)
        self.discount, self.ratio, self.rollout, self._double = spec.discount, ratio, rollout, double
        self.first_actions = _shares(first_actions)

    @property
    def q(self) -> DiscreteQ:
        """The learned action values."""
        return self.actor.q

    @property
    def planning_value(self) -> nn.Module:  # type: ignore[override]
        """max_a of the slow Q."""
        return BestValue(self.slow.module)  # type: ignore[arg-type]

    def losses(self, simulator: LatentSimulator, rows: LatentRows) -> Loss:
        """Lines 4 and 7 of Algorithm 28 in one: of recorded and of imagined rows."""
        real = rows.transitions()
        imagined, weight = self.imagined(simulator, real)
        every = joined([real, imagined])
        weight = torch.cat([torch.ones_like(real.reward), weight])
        error = self.q.loss(every.latent, every.action, self.target(every))
        total = (weight * error).sum() / weight.sum().clamp_min(1)
        metrics = {
            "loss/value": total.detach(),
            "policy/recorded_error": error[: len(real.reward)].detach().mean(),
            "policy/best_value": self.planning_value(real.latent).detach().mean(),
        }
        return Loss(total, metrics)

    @torch.no_grad()
    def target(self, rows: Transitions) -> Float[Tensor, "R"]:
        """r + γ max_a' Q(z', a'), nothing after an end."""
        slow: DiscreteQ = self.slow.module  # type: ignore[assignment]
        chosen = (self.q if self._double else slow).choose(rows.next_latent)
        return rows.reward + self.discount * rows.continues * slow.at(rows.next_latent, chosen)

    def imagined(self, simulator: LatentSimulator, real: Transitions) -> tuple[Transitions, Float[Tensor, "all_rows"]]:
        """Branches from recorded latents drawn with replacement, `ratio` rows for each recorded one, and weights."""
        start = draw(real, round(self.ratio * len(real.reward) / self.rollout))

        def policy(latent: Tensor) -> Tensor:
            return self.actor.sample(latent, generator=None)

        def first(latent: Tensor) -> Tensor:
            return self._first_action(latent, real.action[start])

        return branch(simulator, real.latent[start], first=first, then=policy, steps=self.rollout)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {"value": [*self.q.parameters()]}

    def follow(self) -> None:
        self.slow.follow(self.q)

    def _first_action(self, latent: Tensor, recorded: Tensor) -> Tensor:
        """Of each branch from one of the three sources, drawn by their shares."""
        drawn = uniform(len(latent), 1, generator=None, device=latent.device)
        buffer, greedy, _ = self.first_actions
        any_action = GreedyQActor(q=self.q, epsilon=1.0).sample(latent, generator=None)
        sampled = torch.where(drawn < buffer + greedy, self.actor.sample(latent, generator=None), any_action)
        return torch.where(drawn < buffer, recorded, sampled)


def _action_set(spec: PolicySpec, name: str, bins: int) -> ActionSet:
    require_one_of(["auto", *ACTION_SETS], action_set=name)
    if spec.discrete:
        return OneHot(action_dim=spec.action_dim)
    if name == "auto":
        name = "grid" if spec.action_dim <= 2 else "per_dimension"
    return ACTION_SETS[name](action_dim=spec.action_dim, bins=bins)


def _shares(given: Mapping[str, float]) -> tuple[float, ...]:
    """Shares of `SOURCES`, with sum 1."""
    if unknown := set(given) - set(SOURCES):
        raise BadValue(f"first_actions: expected shares of {', '.join(SOURCES)}, got {', '.join(sorted(unknown))}")
    require_number(least=0, **{f"first_actions.{name}": share for name, share in given.items()})
    parts = [float(given.get(name, 0.0)) for name in SOURCES]
    if not sum(parts):
        raise BadValue("first_actions: expected a share above 0, got none")
    return tuple(part / sum(parts) for part in parts)


make = LatentDynaQ
