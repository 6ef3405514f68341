"""Whether an episode goes on after a latent, as a logistic regression."""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from worldmodel.heads.head import Head
from worldmodel.nets import mlp, zero_last

_FIRST_LOGIT = 4.0  # episodes seem to go on, with 0.98, before anything is learned: ends are rare


class ContinuationHead(Head):
    """The probability that the episode goes on after a latent, 1 - p(terminal | s).

    Args:
        latent_dim, hidden, layers: as in `Head`.
        even: whether every row of an episode lies in as many windows, as where windows run over ends of episodes.
    """

    def __init__(self, *, latent_dim: int, hidden: int = 200, layers: int = 2, even: bool = False) -> None:
        super().__init__()
        self.even = even
        self.net = zero_last(mlp(latent_dim, hidden, layers, 1))
        last = self.net[-1]
        assert isinstance(last, nn.Linear), last
        nn.init.constant_(last.bias, _FIRST_LOGIT)

    def read(self, outputs: Float[Tensor, "*R 1"]) -> Float[Tensor, "*R"]:
        """The probability, in [0, 1]."""
        return outputs.squeeze(-1).float().sigmoid()

    def rows_loss(
        self, latent: Float[Tensor, "*R D"], is_terminal: Bool[Tensor, "*R"], *, rows: int | Int64[Tensor, "B"]
    ) -> Float[Tensor, "*R"]:
        """`loss` of the rows of windows, in which a terminal row counts as often as others.

        A row within a long episode lies in as many windows as a window has rows, its last row in one of them. In
        episodes not much longer than windows, rows near their starts are rare as well, and ends seem more likely.

        Args:
            latent: of the rows.
            is_terminal: whether an episode ended there by termination.
            rows: of a window that count, or of each of them, [B] with B the rows' first axis; of predictions, how many
                a window has, one of which is of its last row.
        """
        weight = rows.float().view(-1, *[1] * (is_terminal.ndim - 1)) if isinstance(rows, Tensor) else float(rows)
        return torch.where(is_terminal, 1.0 if self.even else weight, 1.0) * self.loss(latent, (~is_terminal).float())

    def loss(self, latent: Float[Tensor, "*R D"], target: Float[Tensor, "*R"]) -> Float[Tensor, "*R"]:
        """The cross-entropy in nats; the target is 0 where the row is terminal, else 1."""
        return F.binary_cross_entropy_with_logits(self.net(latent).squeeze(-1).float(), target, reduction="none")
