"""One plan over many devices: the first rank of a process group searches, all ranks score a share of its candidates.

Sampling, refitting and deadlines stay where they are, so every planner that scores whole sequences has the plan that it
has on one device. An iteration costs one scatter of actions [B, N, H, A] and one gather of returns [B, N].
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, distributed

from worldmodel.interfaces import Simulator
from worldmodel.simulators.latent import score
from worldmodel.simulators.wrapped import WrappedSimulator

STOP, SAME_LATENT, NEW_LATENT = range(3)  # what the first rank asks of the others


class SimulatorOverRanks(WrappedSimulator):
    """The first rank's simulator; the others are in `score_for_first_rank` until it says `release`.

    Args:
        simulator: with the same weights as on the other ranks.
        device: of this rank, which its process group's backend can send from.
    """

    def __init__(self, simulator: Simulator, *, device: torch.device) -> None:
        super().__init__(simulator)
        self._device = device
        self._sent: Tensor | None = None

    def returns(self, latent: Float[Tensor, "B D"], actions: Float[Tensor, "B N H A"]) -> Float[Tensor, "B N"]:
        """Of all candidates, in their order; fewer of them than ranks are scored here."""
        ranks, (B, N, H, A) = distributed.get_world_size(), actions.shape
        if ranks > N:
            return score(self.simulator, latent, actions)
        share = -(-N // ranks)
        asked = SAME_LATENT if latent is self._sent else NEW_LATENT
        _tell(self._device, [asked, B, latent.shape[1], share, H, A])
        if asked == NEW_LATENT:
            distributed.broadcast(latent.contiguous(), src=0)
            self._sent = latent  # held, so that another tensor cannot have its address
        padded = torch.cat([actions, actions[:, : share * ranks - N]], 1)
        shares = [part.contiguous() for part in padded.split(share, 1)]
        distributed.scatter(torch.empty_like(shares[0]), shares, src=0)
        own = score(self.simulator, latent, shares[0])
        gathered = [torch.empty_like(own) for _ in range(ranks)]
        distributed.gather(own, gathered, dst=0)
        return torch.cat(gathered, 1)[:, :N]


def release(device: torch.device) -> None:
    """Let the other ranks leave `score_for_first_rank`; called by the first."""
    _tell(device, [STOP] + [0] * 5)


@torch.no_grad()
def score_for_first_rank(simulator: Simulator, *, device: torch.device) -> None:
    """Score what the first rank sends, with its weights, until it lets go; called by every other rank."""
    latent = torch.empty(0, device=device)
    while True:
        asked, B, D, N, H, A = _hear(device)
        if asked == STOP:
            return
        if asked == NEW_LATENT:
            latent = torch.empty(B, D, device=device)
            distributed.broadcast(latent, src=0)
        actions = torch.empty(B, N, H, A, device=device)
        distributed.scatter(actions, src=0)
        distributed.gather(score(simulator, latent, actions).contiguous(), dst=0)


def _tell(device: torch.device, numbers: Sequence[int]) -> None:
    distributed.broadcast(torch.tensor(numbers, device=device), src=0)


def _hear(device: torch.device) -> list[int]:
    numbers = torch.empty(6, dtype=torch.int64, device=device)
    distributed.broadcast(numbers, src=0)
    return numbers.tolist()
