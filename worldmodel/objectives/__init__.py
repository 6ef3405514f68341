"""What keeps latents informative of the frames: losses beside the reward's that any dynamics can be trained with."""

from worldmodel.model import Model, Seen
from worldmodel.objectives.objective import Embeds, Latents, Objective

__all__ = ["Embeds", "Latents", "Model", "Objective", "Seen"]
