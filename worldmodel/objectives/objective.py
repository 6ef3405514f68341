"""An objective: losses beside the reward's that any dynamics can be trained with."""

from abc import ABC, abstractmethod
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

from worldmodel.model import Model, Seen


@runtime_checkable
class Embeds(Protocol):
    """An encoder whose embeddings have `embed_dim` numbers."""

    embed_dim: int


@runtime_checkable
class Latents(Protocol):
    """Dynamics whose latents have `latent_dim` numbers."""

    latent_dim: int


class Objective(nn.Module, ABC):
    """One choice of the config group `objective`; `make` takes the agent's encoder and dynamics, for their sizes.

    loss_weights: of its terms by name; 1 for those without. decodes: whether the model has a decoder.
    looks_ahead: whether it trains open-loop predictions, in place of the agent's `unroll`.
    """

    decodes = False
    looks_ahead = False

    def __init__(self, **weights: float) -> None:
        super().__init__()
        self.loss_weights: dict[str, float] = weights

    @abstractmethod
    def losses(self, model: Model, seen: Seen) -> dict[str, Float[Tensor, ""]]:
        """Its terms by name, means over the batch."""

    def follow(self, model: Model) -> None:
        """Move what follows the model slowly; called after every optimiser step."""
        return
