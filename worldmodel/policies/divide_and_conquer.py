"""Divide and conquer: a policy for each part of the starts, held together by one for all of them.

Ghosh, Singh, Rajeswaran, Kumar and Levine, Divide-and-Conquer Reinforcement Learning (2018). Guided policy search with
networks for local controllers; what improves them is `policy=backprop`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from worldmodel.actors.squashed_normal import SquashedNormalActor
from worldmodel.distributions import Moments, gaussian_kl
from worldmodel.interfaces import Loss
from worldmodel.latent_rows import LatentRows
from worldmodel.limits import require_number, require_whole
from worldmodel.policies.backprop import BackpropImagination
from worldmodel.policies.learner import CountsUpdates
from worldmodel.policy_spec import PolicySpec
from worldmodel.simulators.latent import LatentSimulator


class DivideAndConquer(CountsUpdates):
    """Local policies learn from their own starts, at a price on their KL from the central one, which follows them.

    Recorded latents, where imagination starts, are divided by k-means. Local policy i maximises its imagined returns
    minus `agreement` (E KL(π_i || π_c) over its own starts + E KL(π_c || π_i) over the others'). The central policy
    π_c minimises E KL(π_i || π_c) over the starts of each, at every update; after `reset_every` of them the local
    policies begin again as copies of it. With one part this is `policy=backprop`.

    Args:
        spec: what actors and values are built from.
        actor: options of every actor.
        parts: C, local policies.
        agreement: what a nat of KL costs, in returns of order 1.
        reset_every: updates after which the local policies become the central one.
        starts: replayed latents that are continued per update, over all parts.
        options: those of `BackpropImagination`, which a local policy is.
    """

    options_go_to = BackpropImagination

    def __init__(
        self,
        *,
        spec: PolicySpec,
        actor: Mapping[str, Any] = MappingProxyType({}),
        parts: int = 3,
        agreement: float = 0.1,
        reset_every: int = 200,
        starts: int = 96,
        **options: Any,
    ) -> None:
        require_whole(parts=parts, reset_every=reset_every, starts=starts)
        require_number(agreement=agreement, least=0)
        super().__init__()
        self.agreement, self.reset_every = agreement, reset_every
        options = {"spec": spec, "actor": actor, "starts": -(-starts // parts), **options}
        every = (BackpropImagination(**options) for _ in range(parts))
        self.locals: Sequence[BackpropImagination] = nn.ModuleList(every)  # type: ignore[assignment]
        if parts == 1:
            return
        self.central: SquashedNormalActor = spec.build_actor(actor)  # type: ignore[assignment]
        self.value = spec.build_value(spec.latent_dim)
        self.partition = Partition(parts, spec.latent_dim)
        self._reset()

    @property
    def actor(self) -> SquashedNormalActor:  # type: ignore[override]
        """The central policy."""
        return self.locals[0].actor if len(self.locals) == 1 else self.central

    @property
    def planning_value(self) -> nn.Module:  # type: ignore[override]
        """The central value."""
        return self.locals[0].planning_value if len(self.locals) == 1 else self.value

    def losses(self, simulator: LatentSimulator, rows: LatentRows) -> Loss:
        """Those of all local policies, of their agreement, and of the central policy and value that follow them."""
        if len(self.locals) == 1:
            return self.locals[0].losses(simulator, rows)
        latent, valid = rows.belief.latent, rows.belief.valid
        valid = torch.ones_like(rows.batch.is_first) if valid is None else valid
        self.partition.follow(latent[valid])
        belongs = self.partition.members(latent, valid)
        total, reports = self._central(latent, belongs), []
        for local, own in zip(self.locals, belongs, strict=True):
            improved = local.losses(simulator, LatentRows(rows.batch, replace(rows.belief, valid=own)))
            apart = self._apart(local.actor, latent[own], latent[valid & ~own])
            total = total + improved.total + self.agreement * apart
            reports.append({**improved.metrics, "policy/kl_local": apart.detach()})
        return Loss(total, {name: torch.stack([report[name] for report in reports]).mean() for name in reports[0]})

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Weights of all actors, and of all values."""
        every = [local.parameter_groups() for local in self.locals]
        groups = {name: [weight for of in every for weight in of[name]] for name in every[0]}
        if len(self.locals) > 1:
            groups["actor"] += self.central.parameters()
            groups["value"] += self.value.parameters()
        return groups

    def follow(self) -> None:
        """Let target values follow, and local policies begin again where it is time."""
        for local in self.locals:
            local.follow()
        if len(self.locals) > 1:
            self.done += 1
            if self.done % self.reset_every == 0:
                self._reset()

    def _reset(self) -> None:
        for local in self.locals:
            local.actor.load_state_dict(self.central.state_dict())

    def _apart(
        self, local: SquashedNormalActor, own: Float[Tensor, "R D"], others: Float[Tensor, "others D"]
    ) -> Float[Tensor, ""]:
        """KL between a local policy and the central one, which is not moved by it."""
        apart = gaussian_kl(local.moments(own), _detached(self.central.moments(own))).mean()
        if len(others):
            apart = apart + gaussian_kl(_detached(self.central.moments(others)), local.moments(others)).mean()
        return apart

    def _central(self, latent: Float[Tensor, "B T D"], belongs: Bool[Tensor, "C B T"]) -> Float[Tensor, ""]:
        """The losses of the central policy and value, each part's share being that of its starts."""
        total = latent.new_zeros(())
        for local, own in zip(self.locals, belongs, strict=True):
            states = latent[own]
            share = len(states) / belongs.sum()
            taught = gaussian_kl(_detached(local.actor.moments(states)), self.central.moments(states)).mean()
            value = self.value.loss(states, local.planning_value(states).detach()).mean()
            total = total + share * (taught + value)
        return total


class Partition(nn.Module):
    """k-means of what comes by: Sculley, Web-Scale K-Means Clustering (2010), with a rate that does not vanish.

    Args:
        parts: how many.
        dim: numbers of a latent.
        rate: the least share of the new rows' mean in a centre.
    """

    centres: Tensor
    counts: Tensor

    def __init__(self, parts: int, dim: int, *, rate: float = 0.02) -> None:
        super().__init__()
        self.rate = rate
        self.register_buffer("centres", torch.zeros(parts, dim))
        self.register_buffer("counts", torch.zeros(parts))

    @torch.no_grad()
    def follow(self, rows: Float[Tensor, "R D"]) -> None:
        """Move the centres towards the rows that are nearest to each."""
        if not self.counts.any():
            self.centres.copy_(_spread_out(rows, len(self.centres)))
        nearest = self.nearest(rows)
        for part in range(len(self.centres)):
            own = rows[nearest == part]
            if len(own):
                self.counts[part] += len(own)
                share = (len(own) / self.counts[part]).clamp_min(self.rate)
                self.centres[part].lerp_(own.mean(0), share)

    def nearest(self, rows: Float[Tensor, "*R D"]) -> Int64[Tensor, "*R"]:
        """The part of every row."""
        return torch.cdist(rows.flatten(0, -2), self.centres).argmin(-1).view(rows.shape[:-1])

    def members(self, rows: Float[Tensor, "B T D"], valid: Bool[Tensor, "B T"]) -> Bool[Tensor, "parts B T"]:
        """The valid rows of every part, and its nearest one where it has none."""
        parts = torch.arange(len(self.centres), device=rows.device)[:, None, None]
        belongs = (self.nearest(rows) == parts) & valid
        distance = torch.cdist(self.centres, rows.flatten(0, 1)).masked_fill(~valid.flatten(), torch.inf)
        closest = torch.zeros_like(distance, dtype=torch.bool).scatter_(1, distance.argmin(1, keepdim=True), True)
        empty = ~belongs.flatten(1).any(1)
        return belongs | (closest & empty[:, None]).view_as(belongs)


def _spread_out(rows: Float[Tensor, "R D"], count: int) -> Float[Tensor, "count D"]:
    """Rows far from each other: Arthur and Vassilvitskii, k-means++ (2007), always the farthest."""
    chosen = rows[:1]
    while len(chosen) < count:
        distance = torch.cdist(rows, chosen).amin(1)
        chosen = torch.cat([chosen, rows[distance.argmax()][None]])
    return chosen


def _detached(moments: Moments) -> Moments:
    mean, std = moments
    return mean.detach(), std.detach()


make = DivideAndConquer
