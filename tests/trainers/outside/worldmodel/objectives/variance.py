"""Latents must vary over a batch: an objective that decodes nothing."""

from worldmodel.objectives import Objective


class Variance(Objective):
    def __init__(self, *, encoder, dynamics, weight: float = 1.0):
        super().__init__(variance=weight)

    def losses(self, model, seen):
        return {"variance": (1 - seen.belief.latent.flatten(0, 1).std(0)).relu().mean()}


make = Variance
