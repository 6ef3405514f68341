"""Losses on latents that were predicted several steps ahead, for any dynamics."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from worldmodel.capabilities import SamplesPrior, UnrollStarts
from worldmodel.distributions import Statistics, categorical_kl, gaussian_kl
from worldmodel.errors import BadValue
from worldmodel.interfaces import Belief, Dynamics, Predictor
from worldmodel.model import Model, Seen


def unroll(
    dynamics: Predictor, latent: Float[Tensor, "B T D"], action: Float[Tensor, "B T A"], *, steps: int
) -> Float[Tensor, "B L K D"]:
    """Open-loop predictions of `steps` = K rows from each of the first L = T - K rows, by the recorded actions.

    Entry [b, t, k] predicts the latent of row t + k + 1.
    """
    starts = latent.shape[1] - steps
    if starts < 1:
        raise BadValue(f"agent.unroll: expected fewer steps than a window's {latent.shape[1]} rows, got {steps}")
    state, predictions = latent[:, :starts], []
    for k in range(steps):
        state = dynamics.predict(state, action[:, k + 1 : k + 1 + starts])
        predictions.append(state)
    return torch.stack(predictions, 2)


def later_rows(rows: Shaped[Tensor, "B T *F"], *, steps: int) -> Shaped[Tensor, "B L K *F"]:
    """What `unroll`'s entries predict: rows t + 1 to t + K of each of the first T - K rows."""
    windows = rows[:, 1:].unfold(1, steps, 1)  # [B L *F K]
    return windows.movedim(-1, 2)


def same_episode(is_first: Bool[Tensor, "B T"], *, steps: int) -> Bool[Tensor, "B L K"]:
    """Whether what `unroll`'s entries predict belongs to the episode of the row that they start from."""
    episode = is_first.cumsum(1)
    return later_rows(episode, steps=steps) == episode[:, :-steps, None]


def mean_within_episodes(
    belief: Belief, losses: Float[Tensor, "B L K"], within: Bool[Tensor, "B L K"]
) -> Float[Tensor, ""]:
    """The mean of valid rows' losses, of those predictions that do not run over the end of an episode."""
    weight = within.to(losses.dtype)
    # the share that stays within is that of valid rows: others may end sooner or later
    return belief.mean(losses * weight) / belief.mean(weight).clamp_min(1e-12)


def open_loop_losses(
    model: Model, seen: Seen, *, target: Float[Tensor, "B T D"], steps: int
) -> dict[str, Float[Tensor, ""]]:
    """What `unroll` of `steps` rows misses: `consistency`, squared distance to the targets, and `unrolled_reward`.

    With a continuation head, `unrolled_continuation` as well.
    """
    # a model that acts from other latents than it learns with must keep its ground from those
    batch, belief = seen.batch, seen.belief
    starts = model.dynamics.starts(belief) if isinstance(model.dynamics, UnrollStarts) else belief.latent
    predicted = unroll(model.dynamics, starts, batch.action, steps=steps)
    losses = {
        "consistency": latent_consistency(predicted, target),
        "unrolled_reward": model.reward.loss(predicted, later_rows(batch.reward, steps=steps)),
    }
    if model.continuation is not None:
        ends = later_rows(batch.is_terminal, steps=steps)
        counted = steps * belief.counted(ends.shape[1])
        losses["unrolled_continuation"] = model.continuation.rows_loss(predicted, ends, rows=counted)
    within = same_episode(batch.is_first, steps=steps)
    return {name: mean_within_episodes(belief, loss, within) for name, loss in losses.items()}


def latent_consistency(predicted: Float[Tensor, "B L K D"], latent: Float[Tensor, "B T D"]) -> Float[Tensor, "B L K"]:
    """Squared distance of predicted latents to the inferred ones, held still (equation 5.3.6, third term)."""
    # stop-grad: else the cheapest way to be predictable is to carry no information
    target = later_rows(latent.detach(), steps=predicted.shape[2])
    return (predicted - target).square().mean(-1)


Ahead = Callable[[Tensor, Tensor], tuple[Tensor, Statistics]]


def latent_overshooting(
    ahead: Ahead, latent: Float[Tensor, "B T D"], posterior: Statistics, action: Float[Tensor, "B T A"], *, steps: int
) -> Float[Tensor, "B L K"]:
    """KL(q(s_t+k) || p(s_t+k | s_t, a)) for k = 1 to `steps` = K from each of the first L = T - K rows, in nats.

    ahead: a sample of the next latent and the statistics it was drawn with; it is rolled on its own samples.
    posterior: of every row, held still. k = 1 is the ELBO's own term.
    """
    starts = latent.shape[1] - steps
    if starts < 1 or steps < 1:
        raise BadValue(f"objective.steps: expected 1 to {latent.shape[1] - 1}, got {steps}")
    state, rolled = latent[:, :starts], []
    for k in range(steps):
        state, prior = ahead(state, action[:, k + 1 : k + 1 + starts])
        rolled.append(prior)
    # stop-grad: far priors must not blur the posteriors
    target = tuple(later_rows(x.detach(), steps=steps) for x in posterior)
    kl: Callable[..., Tensor] = gaussian_kl if len(posterior) == 2 else categorical_kl
    return kl(target, tuple(torch.stack(column, 2) for column in zip(*rolled, strict=True)))


def stepper(dynamics: Dynamics) -> Ahead:
    """The dynamics' own `ahead`; one that only predicts has Gaussians of unit std around its predictions."""

    def around(latent: Tensor, action: Tensor) -> tuple[Tensor, Statistics]:
        mean = dynamics.predict(latent, action)
        return mean, (mean, torch.ones_like(mean))

    return dynamics.ahead if isinstance(dynamics, SamplesPrior) else around


def posterior_of(belief: Belief) -> Statistics:
    """What the filter drew its latents with; unit std around them where it draws nothing."""
    stats = belief.statistics
    if "posterior" in stats:
        return (stats["posterior"],)
    if "posterior_mean" in stats:
        return belief.moments("posterior")
    return belief.latent, torch.ones_like(belief.latent)
