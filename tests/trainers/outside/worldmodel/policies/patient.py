"""Backpropagation through the model with a share of its loss."""

from worldmodel.interfaces import Loss
from worldmodel.policies.backprop import BackpropImagination


class Patient(BackpropImagination):
    def __init__(self, *, spec, patience: float = 0.5):
        super().__init__(spec=spec, horizon=3, starts=16)
        self.patience = patience

    def losses(self, simulator, rows):
        loss = super().losses(simulator, rows)
        return Loss(loss.total * self.patience, loss.metrics)


make = Patient
