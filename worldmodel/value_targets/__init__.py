"""What action values are taught: targets for Q(z, a) of recorded or imagined transitions."""

from worldmodel.value_targets.value_target import ValueTarget, expansions

__all__ = ["ValueTarget", "expansions"]
