"""What Dyna's learners share: branches of the model, and how long they may be."""

from worldmodel.dyna.rollout_length import RolloutLength

__all__ = ["RolloutLength"]
