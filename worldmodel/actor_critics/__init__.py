"""Model-free learners of a policy and its action values, which Dyna feeds with recorded and imagined rows."""

from worldmodel.actor_critics.actor_critic import ActorCritic, Metrics, PolicyValue, QEnsemble, weighted_mean

__all__ = ["ActorCritic", "Metrics", "PolicyValue", "QEnsemble", "weighted_mean"]
