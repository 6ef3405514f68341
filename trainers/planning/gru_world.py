"""The reference workload of planner benchmarks: PlaNet's dynamics and reward, 341,231 parameters, random weights.

Hafner et al., Learning Latent Dynamics for Planning from Pixels (2019), sizes as in its appendix.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from worldmodel.heads import Head
from worldmodel.rollouts.gru import State, spread, tanh_
from worldmodel.rollouts.perceptron import linear

DETERMINISTIC, STOCHASTIC, HIDDEN, ACTION = 200, 30, 200, 6
GAIN = 3.0  # of random weights: at torch's own, hardly anything depends on the actions


class GRUDynamics(nn.Module):
    """Latents [h, z]: h by a GRU cell on a layer of [z, a], z the prior's mean given h."""

    def __init__(self) -> None:
        super().__init__()
        self.latent_dim = self.carry_dim = DETERMINISTIC + STOCHASTIC
        self.inputs = nn.Linear(STOCHASTIC + ACTION, DETERMINISTIC)
        self.cell = nn.GRUCell(DETERMINISTIC, DETERMINISTIC)
        self.prior = nn.Linear(DETERMINISTIC, STOCHASTIC)

    def predict(self, latent: Float[Tensor, "R D"], action: Float[Tensor, "R A"]) -> Float[Tensor, "R D"]:
        """One step, each layer by itself: what the fast rollout is compared with, and what peers are given."""
        h, z = latent.split([DETERMINISTIC, STOCHASTIC], -1)
        h = self.cell(F.relu(self.inputs(torch.cat([z, action], -1))), h)
        return torch.cat([h, self.prior(h)], -1)

    def rollout(self, dtype: torch.dtype) -> "GRURollout":
        """`predict` for planners."""
        return GRURollout(self, dtype)


class GRURollout:
    """`GRUDynamics.predict` over many rows."""

    def __init__(self, dynamics: GRUDynamics, dtype: torch.dtype) -> None:
        self.dtype, D = dtype, DETERMINISTIC
        cell, weight = dynamics.cell, dynamics.inputs.weight.to(dtype)
        self._of_z, self._of_action = weight[:, :STOCHASTIC].t(), weight[:, STOCHASTIC:].t()
        self._input_bias = dynamics.inputs.bias.to(dtype)
        # torch's update gate keeps, `State.mix` replaces: 1 - σ(u) = σ(-u); `tanh_` halves what the candidate doubles
        scale = torch.tensor([1.0, -1.0, 2.0]).repeat_interleave(D)
        of_x, of_h = ((scale[:, None] * w).to(dtype).t() for w in (cell.weight_ih, cell.weight_hh))
        shift_x, shift_h = (scale * b for b in (cell.bias_ih, cell.bias_hh))
        self._gates_x, self._gates_h = of_x[:, : 2 * D], of_h[:, : 2 * D]
        self._candidate_x, self._candidate_h = of_x[:, 2 * D :], of_h[:, 2 * D :]
        self._gates_bias = (shift_x + shift_h)[: 2 * D].to(dtype)
        self._bias_x, self._bias_h = shift_x[2 * D :].to(dtype), shift_h[2 * D :].to(dtype)
        self._prior = linear(dynamics.prior.weight, dynamics.prior.bias, dtype)

    def __call__(
        self, latent: Float[Tensor, "B D"], actions: Float[Tensor, "H R A"], out: Float[Tensor, "G R D"]
    ) -> Iterator[Tensor]:
        """As `worldmodel.rollouts.Rollout` says."""
        H, R, _ = actions.shape
        D = DETERMINISTIC
        h, z = latent.to(self.dtype).split([D, STOCHASTIC], -1)
        from_z = spread(torch.mm(z, self._of_z), R)
        gates = spread(torch.addmm(self._gates_bias, h, self._gates_h), R)
        candidate = spread(torch.addmm(self._bias_h, h, self._candidate_h), R)
        flat = actions.flatten(0, 1).to(self.dtype)
        sums = torch.addmm(self._input_bias, flat, self._of_action).view(H, R, D)
        state = State(spread(latent[:, :D], R), self.dtype)
        gates_room, *rooms = (sums.new_empty(R, size) for size in (2 * D, D, D))
        for k in range(H):
            slot = out[k % len(out)]
            x = (sums[k].addmm_(z, self._of_z) if k else sums[k].add_(from_z)).relu_()
            if k:
                gates = torch.addmm(self._gates_bias, h, self._gates_h, out=gates_room).addmm_(x, self._gates_x)
                candidate = torch.addmm(self._bias_h, h, self._candidate_h, out=rooms[0])
            else:
                gates = torch.addmm(gates, x, self._gates_x, out=gates_room)
            reset, update = gates.sigmoid_().split(D, -1)
            mixed = torch.addmm(self._bias_x, x, self._candidate_x, out=rooms[1]).addcmul_(reset, candidate)
            h, z = slot.split([D, STOCHASTIC], -1)
            state.mix(tanh_(mixed), update, out=h)
            z.copy_(self._prior(h))
            yield slot


class GRUReward(Head):
    """A perceptron of two layers of 200."""

    def __init__(self) -> None:
        super().__init__()
        D = DETERMINISTIC + STOCHASTIC
        hidden = [nn.Linear(D, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU()]
        self.net = nn.Sequential(*hidden, nn.Linear(HIDDEN, 1))

    def read(self, outputs: Float[Tensor, "*R 1"]) -> Float[Tensor, "*R"]:
        """The reward."""
        return outputs.squeeze(-1)

    def loss(self, latent: Float[Tensor, "*R D"], target: Float[Tensor, "*R"]) -> Float[Tensor, "*R"]:
        """Squared error."""
        return (self(latent) - target).square()


def random_world(seed: int = 0) -> tuple[GRUDynamics, GRUReward, Float[Tensor, "1 D"]]:
    """Dynamics and reward with random weights, and a latent to plan from."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        dynamics, reward = GRUDynamics(), GRUReward()
    for parameter in [*dynamics.inputs.parameters(), *reward.parameters()]:
        parameter.data *= GAIN
    h = torch.rand(1, DETERMINISTIC, generator=generator) - 0.5
    with torch.no_grad():
        latent = torch.cat([h, dynamics.prior(h)], -1)
    return dynamics.requires_grad_(False), reward.requires_grad_(False), latent
