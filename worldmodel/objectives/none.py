"""Nothing beside the losses of dynamics and reward: for states that are observed."""

from jaxtyping import Float
from torch import Tensor

from worldmodel.model import Model, Seen
from worldmodel.objectives.objective import Embeds, Latents, Objective


class NoObjective(Objective):
    """No terms."""

    def __init__(self, *, encoder: Embeds, dynamics: Latents) -> None:
        super().__init__()

    def losses(self, model: Model, seen: Seen) -> dict[str, Float[Tensor, ""]]:
        return {}


make = NoObjective
