"""Rollouts of the Gaussian RSSM's prior mean."""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn

from worldmodel.nets import NormGRUCell
from worldmodel.rollouts.gru import State, spread, tanh_
from worldmodel.rollouts.perceptron import in_place, linear


class GaussianRollout:
    """`GaussianRSSM.predict` over many rows: h by a normed GRU cell on a layer of [z, a], z by a perceptron of h.

    inputs: linear, LayerNorm, SiLU. prior: a perceptron whose first `stochastic` outputs are the mean of z.
    """

    def __init__(
        self, *, inputs: nn.Sequential, cell: NormGRUCell, prior: nn.Sequential, stochastic: int, dtype: torch.dtype
    ) -> None:
        self.stochastic, self.dtype = stochastic, dtype
        first, *normed = inputs
        assert isinstance(first, nn.Linear), first
        weight, D = first.weight.to(dtype), cell.gates.out_features // 3
        self._of_z, self._of_action = weight[:, :stochastic].t(), weight[:, stochastic:].t()
        self._inputs = [in_place(layer, dtype) for layer in normed]
        gates = cell.gates.weight.to(dtype)
        self._of_x, self._of_h = gates[:, :-D].t(), gates[:, -D:].t()
        self._gates_norm = in_place(_folded(cell.norm, D), dtype)
        *hidden, last = prior
        assert isinstance(last, nn.Linear), last
        self._prior = [in_place(layer, dtype) for layer in hidden]
        self._prior.append(linear(last.weight[:stochastic], last.bias[:stochastic], dtype))

    def __call__(
        self, latent: Float[Tensor, "B D"], actions: Float[Tensor, "H R A"], out: Float[Tensor, "G R D"]
    ) -> Iterator[Tensor]:
        """As `Rollout` says; what depends on the latents alone is computed once for each."""
        H, R, _ = actions.shape
        D = latent.shape[1] - self.stochastic
        h, z = latent.to(self.dtype).split([D, self.stochastic], -1)
        from_z, gates = spread(torch.mm(z, self._of_z), R), spread(torch.mm(h, self._of_h), R)
        sums = torch.mm(actions.flatten(0, 1).to(self.dtype), self._of_action).view(H, R, -1)
        state, room = State(spread(latent[:, :D], R), self.dtype), sums.new_empty(R, 3 * D)
        for k in range(H):
            slot = out[k % len(out)]
            x = sums[k].add_(from_z) if k == 0 else sums[k].addmm_(z, self._of_z)
            for layer in self._inputs:
                x = layer(x)
            if k:
                gates = torch.mm(h, self._of_h, out=room)
            gates = torch.addmm(gates, x, self._of_x, out=room)
            reset, candidate, update = self._gates_norm(gates).split(D, -1)
            h, mean = slot.split([D, self.stochastic], -1)
            state.mix(tanh_(reset.sigmoid_().mul_(candidate)), update.sigmoid_(), out=h)
            z = h
            for layer in self._prior:
                z = layer(z)
            mean.copy_(z)
            yield slot


def _folded(norm: nn.LayerNorm, D: int) -> nn.LayerNorm:
    """The norm of (reset, candidate, update) with what follows it in the cell: 2 candidate, update - 1."""
    folded = nn.LayerNorm(3 * D, norm.eps, device=norm.weight.device)
    scale = norm.weight.new_ones(3 * D)
    scale[D : 2 * D] = 2
    with torch.no_grad():
        folded.weight.copy_(scale * norm.weight)
        folded.bias.copy_(scale * norm.bias)
        folded.bias[2 * D :] -= 1
    return folded
