"""The reference workload of planner benchmarks: PlaNet's dynamics and reward, 341,231 parameters, random weights.

Hafner et al., Learning Latent Dynamics for Planning from Pixels (2019), sizes as in its appendix.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from worldmodel._packed import Product
from worldmodel.dynamics._packed_rollout import State, spread
from worldmodel.heads.head import Head

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
        cell = dynamics.cell
        self._inputs = Product(dynamics.inputs.weight, dynamics.inputs.bias, dtype, "relu")
        # torch's update gate keeps, `State.mix` replaces: 1 - σ(u) = σ(-u); the candidate is tanh(x / 2) there
        scale = torch.tensor([1.0, -1.0, 2.0]).repeat_interleave(D)
        of_x, of_h, shift_x, shift_h = (
            (part.t() * scale).t() for part in (cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh)
        )
        gates, candidate = slice(2 * D), slice(2 * D, None)
        self._gates_x = Product(of_x[gates], None, dtype)
        self._gates_h = Product(of_h[gates], (shift_x + shift_h)[gates], dtype)
        self._candidate_x = Product(of_x[candidate], shift_x[candidate], dtype)
        self._candidate_h = Product(of_h[candidate], shift_h[candidate], dtype)
        self._prior = Product(dynamics.prior.weight, dynamics.prior.bias, dtype)

    def __call__(
        self, latent: Float[Tensor, "B D"], actions: Float[Tensor, "H R A"], out: Float[Tensor, "G R D"]
    ) -> Iterator[Tensor]:
        """As `worldmodel.interfaces.Rollout` says."""
        H, R, A = actions.shape
        D, S = DETERMINISTIC, STOCHASTIC
        h, z = latent.to(self.dtype).split([D, S], -1)
        gates, candidate, z = (spread(rows, R) for rows in (self._gates_h(h), self._candidate_h(h), z))
        state = State(spread(latent[:, :D], R))
        inputs = latent.new_empty(H, R, S + A, dtype=self.dtype)
        inputs[..., S:] = actions
        for k in range(H):
            slot = out[k % len(out)]
            inputs[k, :, :S] = z
            x = self._inputs(inputs[k])
            if k:
                gates, candidate = self._gates_h(h), self._candidate_h(h)
            reset, update = self._gates_x.added(x, gates).sigmoid_().split(D, -1)
            mixed = self._candidate_x(x).addcmul_(reset, candidate)
            h, z = slot.split([D, S], -1)
            state.mix(mixed.sigmoid_(), update, out=h)
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


def random_world() -> tuple[GRUDynamics, GRUReward, Float[Tensor, "1 D"]]:
    """Dynamics and reward with random weights, and a latent to plan from."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        dynamics, reward = GRUDynamics(), GRUReward()
    for parameter in [*dynamics.inputs.parameters(), *reward.parameters()]:
        parameter.data *= GAIN
    h = torch.rand(1, DETERMINISTIC, generator=generator) - 0.5
    with torch.no_grad():
        latent = torch.cat([h, dynamics.prior(h)], -1)
    return dynamics.requires_grad_(False), reward.requires_grad_(False), latent
