"""Policy and value from imagined rollouts, the policy by the score function, without derivatives of the model (5.6).

Hafner et al., Mastering Diverse Domains through World Models (2023), equations 5 to 7: it takes the score function for
continuous actions as well.
"""

from typing import Any

import torch

from worldmodel.imagination import detached, endings, imagine, lambda_return, subsample, track_spread
from worldmodel.interfaces import Loss
from worldmodel.latent_rows import LatentRows
from worldmodel.policies.actor_and_value import ActorAndValue
from worldmodel.simulators.latent import LatentSimulator


class ScoreFunction(ActorAndValue):
    """Makes imagined actions more likely by how much more their λ-return was than the value, in units of their range.

    Options are those of `ActorAndValue`; the entropy weighs against advantages of order 1.
    """

    options_go_to = ActorAndValue

    def __init__(self, *, starts: int = 192, entropy: float = 3e-4, **options: Any) -> None:
        super().__init__(starts=starts, entropy=entropy, **options)

    def losses(self, simulator: LatentSimulator, rows: LatentRows) -> Loss:
        """The actor's loss, minus log π weighted by advantages, and the value's."""
        start = subsample(rows.starts(), self.starts)
        imagined = imagine(simulator, self.actor.held_sample, start, horizon=self.horizon, passed_on=detached)
        states, (log_probs, entropies) = imagined.states.detach(), imagined.kept.unbind(-1)
        ends = endings(simulator, states)
        with torch.no_grad():
            values = self.slow_value.module(states)
            returns = lambda_return(imagined.rewards, values[1:], discount=ends.discount, mix=self.mix)
            track_spread(self.spread, returns)
            advantage = (returns - values[:-1]) / self.spread
        actor_loss = -ends.mean(advantage * log_probs + self.entropy * entropies)
        value_loss = ends.mean(self.value.loss(states[:-1], returns))
        metrics = {
            "policy/entropy": entropies.detach().mean(),
            "policy/imagined_return": returns.mean(),
            "loss/value": value_loss.detach(),
        }
        return Loss(actor_loss + value_loss, metrics)


make = ScoreFunction
