"""Values Q(z, a) of finitely many actions: which actions those are, and networks that value all of them at once."""

from worldmodel.action_values.action_sets import ActionSet
from worldmodel.action_values.discrete_q import BestValue, DiscreteQ

__all__ = ["ActionSet", "BestValue", "DiscreteQ"]
