"""What the losses of a world model are taken on: its parts, and a batch as they see it."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from worldmodel.heads.continuation import ContinuationHead
from worldmodel.heads.head import Head
from worldmodel.interfaces import Batch, Belief, Dynamics
from worldmodel.observations import ObservationDecoder, ObservationEncoder, ObservationNorm


@dataclass(frozen=True, slots=True)
class Seen:
    """A batch, the embeddings of its frames and what the dynamics model inferred from them."""

    batch: Batch
    embed: Float[Tensor, "B T E"]
    belief: Belief


class Model(nn.Module):
    """The parts that an objective may train: the agent is one."""

    norm: ObservationNorm
    encoder: ObservationEncoder
    decoder: ObservationDecoder | None
    dynamics: Dynamics
    reward: Head
    continuation: ContinuationHead | None  # None where episodes never end by termination
