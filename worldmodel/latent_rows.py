"""Recorded rows as learners of policies and values see them: their latents, and the steps between these."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from worldmodel.interfaces import Batch, Belief


@dataclass(frozen=True, slots=True)
class Transitions:
    """Steps within episodes, one a row."""

    latent: Float[Tensor, "R D"]
    action: Float[Tensor, "R A"]
    reward: Float[Tensor, "R"]  # that arrived with next_latent
    continues: Float[Tensor, "R"]  # 0 where next_latent is terminal, else 1: values bootstrap across a truncation
    next_latent: Float[Tensor, "R D"]


@dataclass(frozen=True, slots=True)
class LatentRows:
    """Recorded windows and the latents that the model inferred for them, without gradients."""

    batch: Batch
    belief: Belief

    @classmethod
    def of(cls, batch: Batch, belief: Belief) -> "LatentRows":
        """The rows of a belief about a batch, cut off from its graph."""
        detached = {name: rows.detach() for name, rows in belief.statistics.items()}
        return cls(batch, Belief(belief.latent.detach(), belief.carry.detach(), detached, belief.valid))

    def starts(self) -> Float[Tensor, "R D"]:
        """The latents of all valid rows."""
        return self.belief.select(self.belief.latent)

    def transitions(self) -> Transitions:
        """The steps between neighbouring valid rows of one episode."""
        batch, latent = self.batch, self.belief.latent
        kept = self.belief.continued(batch.is_first).flatten().nonzero().squeeze(-1)  # once: a GPU's host waits for it

        def before(rows: Tensor) -> Tensor:
            return rows[:, :-1].flatten(0, 1)[kept]

        def after(rows: Tensor) -> Tensor:
            return rows[:, 1:].flatten(0, 1)[kept]

        return Transitions(
            latent=before(latent),
            action=after(batch.action),
            reward=after(batch.reward),
            continues=(~after(batch.is_terminal)).to(batch.reward.dtype),
            next_latent=after(latent),
        )
