"""Policy and value from imagined rollouts, the policy by backpropagation through the model (Algorithm 27).

The pathwise gradient of λ-returns; Hafner et al., Dream to Control (2020), equations 4 to 8.
"""

from worldmodel.imagination import endings, imagine, lambda_return, subsample, track_spread
from worldmodel.interfaces import Loss
from worldmodel.latent_rows import LatentRows
from worldmodel.policies.actor_and_value import ActorAndValue
from worldmodel.simulators.latent import LatentSimulator


class BackpropImagination(ActorAndValue):
    """Imagines rollouts of the actor from replayed latents and returns the losses of actor and value."""

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
