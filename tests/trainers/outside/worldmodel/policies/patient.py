"""Backpropagation through the model with a discounted share of the policy's loss."""

from worldmodel.policies.backprop import BackpropImagination


class Patient(BackpropImagination):
    def __init__(self, *, value, patience: float = 0.5):
        super().__init__(value=value, horizon=3, starts=16)
        self.patience = patience

    def losses(self, simulator, actor, latent):
        policy, value = super().losses(simulator, actor, latent)
        return policy * self.patience, value


make = Patient
