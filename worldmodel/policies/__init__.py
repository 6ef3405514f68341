"""How a policy is learned in a model: one file a method, each a `PolicyLearner`."""

from worldmodel.latent_rows import LatentRows, Transitions
from worldmodel.policies.actor_and_value import ActorAndValue
from worldmodel.policies.learner import CountsUpdates, PolicyLearner
from worldmodel.policy_spec import PolicySpec

__all__ = ["ActorAndValue", "CountsUpdates", "LatentRows", "PolicyLearner", "PolicySpec", "Transitions"]
