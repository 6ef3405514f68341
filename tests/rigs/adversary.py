"""A world that lies: every row of a batch has its own way to break down, written into its latent.

Latents [R, 9]: three numbers that move, then the row's lies about rewards, states, values and proposals (indices of
LIES), the share of answers that are lies, and a phase that decides which ones.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.distributions import standard_normal
from worldmodel.interfaces import Noise

MOVING, LATENT, ACTION = 3, 9, 2
LIES: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "nan": lambda x: torch.full_like(x, math.nan),
    "inf": lambda x: torch.full_like(x, math.inf),
    "-inf": lambda x: torch.full_like(x, -math.inf),
    "1e38": lambda x: torch.full_like(x, 1e38),
    "-1e38": lambda x: torch.full_like(x, -1e38),
    "1e-40": lambda x: torch.full_like(x, 1e-40),
    "constant": torch.zeros_like,
    "ties": torch.round,
    "times 1e30": lambda x: 1e30 * x,
    "alternating 1e38": lambda x: torch.where(torch.sin(1e4 * x) > 0, 1e38, -1e38),
    "no gradient": torch.detach,
    "infinite gradient": lambda x: x.abs().clamp_min(0).sqrt() + (0.0 * x).abs().sqrt(),
    "log of zero": lambda x: (x - x.detach()).log() + x,
}


class Adversary:
    """Tells the truth about a smooth world, except where a row's lies come in; has two members too."""

    action_dim, discount = ACTION, 0.95
    members, latent_dim, noisy_dims = 2, LATENT, LATENT

    def __init__(self, seed: int = 0, *, terminates: bool = False) -> None:
        generator = torch.Generator().manual_seed(seed)
        self._mix = torch.randn(MOVING + ACTION, MOVING, generator=generator) / 2
        self.dynamics, self.terminates = self, terminates

    @staticmethod
    def draw(rows: int, generator: torch.Generator) -> Float[Tensor, "R 9"]:
        """Starts with lies drawn at random, a tenth of them not finite or huge."""

        def some(high: int) -> Tensor:
            return torch.randint(high, (rows, 1), generator=generator)

        moving = torch.randn(rows, MOVING, generator=generator)
        spoiled = torch.tensor([math.nan, math.inf, -math.inf, 1e38, 0.0])[some(5)]
        moving = torch.where(some(10) == 0, spoiled, moving)
        told = [some(len(LIES)) * some(2) for _ in range(4)]  # half of the parts are honest
        share = torch.tensor([0.01, 0.1, 0.5, 1.0])[some(4)]
        return torch.cat([moving, *told, share, 10 * torch.rand(rows, 1, generator=generator)], 1)

    def step(self, latent: Float[Tensor, "*R 9"], action: Float[Tensor, "*R 2"]) -> Float[Tensor, "*R 9"]:
        """The moving part moves; lies stay what they are."""
        moved = torch.tanh(torch.cat([latent[..., :MOVING], action], -1) @ self._mix)
        return torch.cat([_lie(moved, latent, 1), latent[..., MOVING:]], -1)

    def moments(self, latent: Float[Tensor, "M R 9"], action: Float[Tensor, "M R 2"]) -> tuple[Tensor, Tensor]:
        """Members start a little beside the latent; their stds lie as states do."""
        offset = torch.tensor([-0.1, 0.1]).view(-1, *[1] * (latent.ndim - 1))
        moving, fixed = latent[..., :MOVING], latent[..., MOVING:]
        mean = self.step(torch.cat([moving + offset, fixed], -1), action)
        std = _lie(torch.full_like(moving, 0.1), latent, 1)
        return mean, torch.cat([std, torch.zeros_like(fixed)], -1)

    def reward(self, latent: Float[Tensor, "*R 9"]) -> Float[Tensor, "*R"]:
        """Nearness to the origin."""
        return _lie(-latent[..., :MOVING].square().sum(-1, keepdim=True), latent, 0)[..., 0]

    def value(self, latent: Float[Tensor, "*R 9"]) -> Float[Tensor, "*R"]:
        """The first number."""
        return _lie(latent[..., :1], latent, 2)[..., 0]

    def continues(self, latent: Float[Tensor, "*R 9"]) -> Float[Tensor, "*R"]:
        """Less and less to the right; lies as values do."""
        return _lie(torch.sigmoid(2 - latent[..., :1]), latent, 2)[..., 0]

    def propose(self, latent: Float[Tensor, "R 9"], generator: Noise) -> Float[Tensor, "R 2"]:
        """Noise around the latent."""
        noise = standard_normal(len(latent), ACTION, generator=generator, device=latent.device)
        return _lie(torch.tanh(latent[..., :ACTION]) + 0.5 * noise, latent, 3)


def _lie(truth: Tensor, latent: Tensor, part: int) -> Tensor:
    """What the row says instead of the truth, where its phase and the state decide so."""
    kind, share, phase = latent[..., MOVING + part, None], latent[..., 7, None], latent[..., 8, None]
    draw = (torch.sin(latent[..., :MOVING].nan_to_num(0.0, 1.0, -1.0).sum(-1, keepdim=True) * 97 + phase) * 1e3) % 1
    said = truth
    for index, (name, lie) in enumerate(LIES.items()):
        if name != "none":
            said = torch.where((kind == index) & (draw < share), lie(truth), said)
    return said
