"""Policy and value from imagined rollouts, the policy by both gradient estimators, weighted by their variances (5.6).

Parmas et al., PIPPS: Flexible Model-Based Policy Search Robust to the Curse of Chaos (2018), weigh so: where the model
is chaotic the pathwise gradient explodes and the score function takes over.
"""

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from worldmodel.imagination import Imagined, detached, endings, imagine, lambda_return, subsample, track_spread
from worldmodel.interfaces import Loss
from worldmodel.latent_rows import LatentRows
from worldmodel.limits import require_number, require_whole
from worldmodel.policies.actor_and_value import ActorAndValue
from worldmodel.policy_gradients import score_function
from worldmodel.simulators.latent import LatentSimulator

_LARGEST = 1e30  # variance of a gradient that is not finite


class MixedGradients(ActorAndValue):
    """Maximises the λ-return of replayed latents by α · pathwise + (1 - α) · score function.

    α = V_score / (V_score + V_pathwise), V being the variances of the two, measured as what two halves of a batch
    disagree about, averaged over past updates: the present one has no say in its weights, so that both stay unbiased.

    Args:
        alpha: a weight of the pathwise gradient that stays, from 0 to 1; None for that of the variances.
        variance_rate: how fast measured variances are followed, per update.
        options: those of `ActorAndValue`; starts are of each estimator, at least 2.
    """

    options_go_to = ActorAndValue
    variances: Tensor

    def __init__(self, *, alpha: float | None = None, variance_rate: float = 0.05, **options: Any) -> None:
        require_number(variance_rate=variance_rate, above=0, most=1)
        if alpha is not None:
            require_number(alpha=alpha, least=0, most=1)
        super().__init__(**options)
        require_whole(starts=self.starts, least=2)
        self.alpha, self.variance_rate = alpha, variance_rate
        self.register_buffer("variances", torch.ones(2))  # of the pathwise and the score function's gradient

    def losses(self, simulator: LatentSimulator, rows: LatentRows) -> Loss:
        """The actor's loss, whose gradient is the mixture, and the value's."""
        start = subsample(rows.starts(), self.starts)
        halves = start.chunk(2) if len(start) > 1 else (start, start)
        weights = [*self.actor.parameters()]
        paths = [self._pathwise(simulator, half) for half in halves]
        scores = [self._score(simulator, half) for half in halves]
        gradients = [_gradients([J for J, _, _ in paths], weights), _gradients(scores, weights)]
        alpha = self._mixture(gradients)
        mean = alpha * gradients[0].mean(0).nan_to_num(0.0, 0.0, 0.0) + (1 - alpha) * gradients[1].mean(0)
        # a sum whose derivative by the weights is what was mixed: it costs no second backward pass
        actor_loss = -(_flat(weights) * mean).sum()
        value_loss = torch.stack([loss for _, loss, _ in paths]).mean()
        returns = torch.cat([path for _, _, path in paths], 1)
        track_spread(self.spread, returns)
        metrics = {
            "policy/imagined_return": returns.mean(),
            "policy/alpha": alpha,
            "policy/variance_pathwise": self.variances[0].clone(),
            "policy/variance_score": self.variances[1].clone(),
            "loss/value": value_loss.detach(),
        }
        return Loss(actor_loss + value_loss, metrics)

    def _pathwise(self, simulator: LatentSimulator, start: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """J with its graph, the value's loss on the same rollouts, and their returns [H R]."""
        imagined = imagine(simulator, self.actor, start, horizon=self.horizon)
        states, ends = imagined.states, endings(simulator, imagined.states)
        values = self.slow_value.module(states[1:])
        returns = lambda_return(imagined.rewards, values, discount=ends.discount, mix=self.mix)
        J = ends.of_rollouts(returns[0]).mean() / self.spread - self.entropy * ends.mean(imagined.kept)
        returns = returns.detach()
        return J, ends.mean(self.value.loss(states[:-1].detach(), returns)), returns

    def _score(self, simulator: LatentSimulator, start: Tensor) -> Tensor:
        """A surrogate of the same J, from rollouts of its own."""
        imagined: Imagined = imagine(simulator, self.actor.held_sample, start, horizon=self.horizon, passed_on=detached)
        states, (log_probs, entropies) = imagined.states.detach(), imagined.kept.unbind(-1)
        ends = endings(simulator, states)
        options: dict[str, Any] = {"discount": ends.discount, "mix": self.mix}
        with torch.no_grad():
            values = self.slow_value.module(states)
            returns = lambda_return(imagined.rewards, values[1:], **options)
        J = score_function(ends.of_rollouts(log_probs), returns, values[:-1], **options)
        # an action moves the entropies of the states that it leads to as well
        counted = ends.of_decisions(entropies).detach()
        later = counted.flip(0).cumsum(0).flip(0) - counted
        return J / self.spread + self.entropy * (ends.mean(entropies) + (later * log_probs).mean())

    @torch.no_grad()
    def _mixture(self, gradients: list[Float[Tensor, "halves weights"]]) -> Float[Tensor, ""]:
        """α by the variances so far, and these brought up to date with what the halves disagree about."""
        between = [(rows[0] - rows[1]).square().sum() / 4 for rows in gradients]
        measured = torch.stack(between).nan_to_num(_LARGEST, _LARGEST, _LARGEST).clamp_max(_LARGEST)
        before = self.variances.clamp_min(1e-30)
        alpha = before[1] / before.sum() if self.alpha is None else before.new_full((), self.alpha)
        self.variances.lerp_(measured, self.variance_rate)
        return torch.where(measured[0] < _LARGEST, alpha, 0.0)


def _flat(tensors: Iterable[Tensor]) -> Float[Tensor, "weights"]:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def _gradients(objectives: list[Tensor], weights: list[nn.Parameter]) -> Float[Tensor, "halves weights"]:
    return torch.stack([_flat(torch.autograd.grad(J, weights)) for J in objectives]).float()


make = MixedGradients
