"""What a part may offer beyond its protocol in `interfaces`: whoever uses it asks with isinstance.

A part takes a capability up by having the members that its protocol names; nothing is inherited or registered.
"""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.distributions import Moments, Statistics
from worldmodel.interfaces import Batch, Belief, Rollout, Simulator

# --- of losses ----------------------------------------------------------------------------------------------------


@runtime_checkable
class WeightedLosses(Protocol):
    """Dynamics or an objective whose loss terms do not all weigh 1; `agent.weights` goes before these."""

    loss_weights: Mapping[str, float]


@runtime_checkable
class CountsRows(Protocol):
    """A part that weighs a prior over weights against the number of recorded rows."""

    def count_rows(self, rows: int) -> None:
        """Take note of how many different rows batches can come from."""


@runtime_checkable
class HoldsSamples(Protocol):
    """A module whose buffers are samples, of which ranks have no mean: all of them go on with rank 0's."""

    samples_of_rank_zero: bool


# --- of dynamics --------------------------------------------------------------------------------------------------


@runtime_checkable
class HasRollout(Protocol):
    """Dynamics with a fast way through many steps of `predict` without gradients."""

    def rollout(self, dtype: torch.dtype) -> Rollout:
        """A rollout with the weights of now, its products in `dtype`."""


@runtime_checkable
class SamplesSteps(Protocol):
    """What of dynamics imagination needs."""

    def imagine(self, latent: Float[Tensor, "*R D"], action: Float[Tensor, "*R A"]) -> Float[Tensor, "*R D"]:
        """A reparameterised sample of the next latent."""


@runtime_checkable
class SamplesPrior(Protocol):
    """Dynamics whose prior is a distribution."""

    def ahead(
        self, latent: Float[Tensor, "*R D"], action: Float[Tensor, "*R A"]
    ) -> tuple[Float[Tensor, "*R D"], Statistics]:
        """A sample of the next latent, and the statistics that it was drawn with."""


@runtime_checkable
class UnrollStarts(Protocol):
    """Dynamics that act from other latents than they learn with: open-loop losses must start from those."""

    def starts(self, belief: Belief) -> Float[Tensor, "B T D"]:
        """The latents to unroll from."""


@runtime_checkable
class ReportsBelief(Protocol):
    """Dynamics that say more of a window than their losses."""

    def report(self, belief: Belief, batch: Batch) -> Mapping[str, Float[Tensor, ""]]:
        """Scalars to log by their whole name, such as `model/entropy`."""


@runtime_checkable
class FitsAtOnce(Protocol):
    """Dynamics that take something from all recorded rows at once, before a round of updates."""

    def fit_at_once(self, embed: Float[Tensor, "B T E"], batch: Batch) -> None:
        """Fit to windows that hold every transition once, and their embeddings."""


@runtime_checkable
class MeasuresSteps(Protocol):
    """Dynamics that can tell how far their one-step predictions of observed states are off."""

    def one_step_error(self, embed: Float[Tensor, "B T E"], batch: Batch) -> Float[Tensor, ""]:
        """Root mean square over the transitions of windows, in units of a change under the base policy."""


@runtime_checkable
class Members(Protocol):
    """Dynamics with M transition models, which differ in the last `noisy_dims` dimensions of a latent."""

    members: int
    latent_dim: int
    noisy_dims: int

    def moments(self, latent: Float[Tensor, "M R D"], action: Float[Tensor, "M R A"]) -> Moments:
        """Mean and std of each member's step from rows of its own."""


@runtime_checkable
class Disagrees(Protocol):
    """Dynamics of several models, whose predictions differ where they have not learned enough."""

    def disagreement(self, latent: Float[Tensor, "*R D"], action: Float[Tensor, "*R A"]) -> Float[Tensor, "*R"]:
        """Variance between the models' next latents, averaged over the dimensions in which they differ."""


# --- of heads -----------------------------------------------------------------------------------------------------


@runtime_checkable
class FitsPosterior(Protocol):
    """A head with a posterior that is read off its training rows."""

    def condition(
        self, latent: Float[Tensor, "*R D"], target: Float[Tensor, "*R"], weight: Float[Tensor, "*R"]
    ) -> None:
        """Rows for the posterior to take in, each by its weight."""


@runtime_checkable
class Epistemic(Protocol):
    """A head that knows how sure it is."""

    def epistemic(self, latent: Float[Tensor, "*R D"]) -> Float[Tensor, "*R"]:
        """Std of what is not known of the number's mean, in its own unit."""


@runtime_checkable
class ReportsLatent(Protocol):
    """A head that says more of latents than its loss."""

    def report(self, latent: Float[Tensor, "*R D"]) -> Mapping[str, Float[Tensor, ""]]:
        """Scalars to log, named without the head."""


# --- of simulators ------------------------------------------------------------------------------------------------


@runtime_checkable
class ScoresSequences(Protocol):
    """A simulator with a fast way to the returns of whole action sequences, without gradients."""

    def returns(self, latent: Float[Tensor, "B D"], actions: Float[Tensor, "B N H A"]) -> Float[Tensor, "B N"]:
        """Discounted returns of all candidates."""


@runtime_checkable
class Terminates(Protocol):
    """A simulator that knows whether, and where, episodes end by termination."""

    terminates: bool

    def continues(self, latent: Float[Tensor, "*R D"]) -> Float[Tensor, "*R"]:
        """The probability that an episode goes on after a latent; 1 everywhere unless it `terminates`."""


@runtime_checkable
class SaysIfValued(Protocol):
    """A simulator that says whether its `value` estimates what follows, or is 0 but for a price of risk."""

    valued: bool


@runtime_checkable
class HasDynamics(Protocol):
    """A simulator that is made of dynamics and heads."""

    dynamics: object


@runtime_checkable
class Confident(Simulator, Protocol):
    """A simulator that says how sure it is of its rewards."""

    def reward_std(self, latent: Float[Tensor, "*R D"]) -> Float[Tensor, "*R"]:
        """Std of what is not known of the reward's mean."""


@runtime_checkable
class ProposesMode(Protocol):
    """A simulator with a policy that has a most probable action."""

    def propose_mode(self, latent: Float[Tensor, "R D"]) -> Float[Tensor, "R A"] | None:
        """The policy's most probable action, or None where there is no policy."""


# --- of planners --------------------------------------------------------------------------------------------------


@runtime_checkable
class ChoosesAmong(Protocol):
    """A planner that searches among finitely many actions."""

    def action_set(self, action_dim: int) -> Float[Tensor, "choices A"]:
        """The actions; a BadValue where there are too many."""
