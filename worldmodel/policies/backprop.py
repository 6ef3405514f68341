"""Policy and value from imagined rollouts, the policy by backpropagation through the model (Algorithm 27).

The pathwise gradient of λ-returns; Hafner et al., Dream to Control (2020), equations 4 to 8.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from worldmodel.imagination import endings, imagine, lambda_return, subsample, track_spread
from worldmodel.interfaces import Loss
from worldmodel.limits import require_number, require_whole
from worldmodel.policies import ActorAndValue, LatentRows, PolicySpec
from worldmodel.simulators.latent import LatentSimulator


class BackpropImagination(ActorAndValue):
    """Imagines rollouts of the actor from replayed latents and returns the losses of actor and value.

    Args:
        spec: what actor and value are built from.
        actor: options of the actor.
        horizon: decisions imagined.
        starts: at most so many replayed latents are continued per update.
        mix: λ.
        entropy: weight of the policy's entropy against returns of order 1.
        slow_rate: how fast the target value follows the learned one, per update.
    """

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
        super().__init__(spec=spec, actor=actor, slow_rate=slow_rate)
        self.horizon, self.starts, self.mix, self.entropy = horizon, starts, mix, entropy
        self.register_buffer("spread", torch.ones(()))

    def losses(self, simulator: LatentSimulator, rows: LatentRows) -> Loss:
        """The actor's loss, minus its imagined returns, and the value's."""
        start = subsample(rows.starts(), self.starts)
        imagined = imagine(simulator, self.actor, start, horizon=self.horizon)
        states, log_probs, ends = imagined.states, imagined.kept, endings(simulator, imagined.states)
        values = self.slow_value.module(states[1:])
        returns = lambda_return(imagined.rewards, values, discount=ends.discount, mix=self.mix)
        track_spread(self.spread, returns.detach())
        actor_loss = -ends.mean(returns / self.spread) + self.entropy * ends.mean(log_probs)
        value_loss = ends.mean(self.value.loss(states[:-1].detach(), returns.detach()))
        metrics = {
            "policy/entropy": -log_probs.detach().mean(),
            "policy/imagined_return": returns.detach().mean(),
            "loss/value": value_loss.detach(),
        }
        return Loss(actor_loss + value_loss, metrics)


make = BackpropImagination
