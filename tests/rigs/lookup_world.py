"""Worlds that look recorded transitions up: their models are exact, and what learners are taught has a closed form."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from worldmodel.heads.head import Head
from worldmodel.interfaces import Batch, Belief
from worldmodel.latent_rows import LatentRows, Transitions
from worldmodel.simulators.latent import LatentSimulator


class Lookup(nn.Module):
    """What followed the recorded latent and action that are nearest."""

    carry_dim = 1

    def __init__(self, rows: Transitions) -> None:
        super().__init__()
        self.rows, self.latent_dim = rows, rows.latent.shape[-1]

    def predict(self, latent: Tensor, action: Tensor) -> Tensor:
        known = torch.cat([self.rows.latent, self.rows.action], -1)
        asked = torch.cat([latent, action], -1)
        nearest = torch.cdist(asked.flatten(0, -2), known).argmin(-1)
        return self.rows.next_latent[nearest].view(latent.shape)

    imagine = predict

    def observe(self, embed, action, is_first, carry, *, sample):
        raise NotImplementedError

    def losses(self, belief: Belief, batch: Batch) -> Mapping[str, Tensor]:
        raise NotImplementedError


class LookupHead(Head):
    """The number that was recorded with the nearest latent."""

    def __init__(self, latent: Tensor, number: Tensor) -> None:
        super().__init__()
        self.net, self.latent, self.number = nn.Sequential(), latent, number

    def forward(self, latent: Tensor) -> Tensor:
        return self.number[torch.cdist(latent.flatten(0, -2), self.latent).argmin(-1)].view(latent.shape[:-1])

    def read(self, outputs):
        raise NotImplementedError

    def loss(self, latent, target):
        raise NotImplementedError


class LookupSimulator(LatentSimulator):
    """Steps, rewards and ends as they were recorded."""

    def __init__(self, rows: Transitions, *, discount: float) -> None:
        super().__init__(
            dynamics=Lookup(rows),
            reward=LookupHead(rows.next_latent, rows.reward),
            continuation=LookupHead(rows.next_latent, rows.continues),
            value=None,
            actor=None,
            action_dim=rows.action.shape[-1],
            discount=discount,
        )


@dataclass(frozen=True)
class Chain:
    """States 0 to `states` - 1 in a row as one-hot latents: -1 goes left, 1 right, into the last one earns and ends."""

    states: int = 6
    discount: float = 0.9

    def transitions(self) -> Transitions:
        """Every action of every state but the last, once."""
        here = torch.arange(self.states - 1).repeat_interleave(2)
        action = torch.tensor([-1.0, 1.0]).repeat(self.states - 1)
        after = (here + action.long()).clamp_min(0)
        ends = (after == self.states - 1).float()
        # each latent of arrival has one reward: a little for every state, which arriving there brings
        reward = ends + 0.01 * after.float()
        eye = torch.eye(self.states)
        return Transitions(eye[here], action[:, None], reward, 1 - ends, eye[after])

    def simulator(self) -> LookupSimulator:
        return LookupSimulator(self.transitions(), discount=self.discount)

    def values(self) -> Tensor:
        """Q [S-1, 2] of the optimal policy, by value iteration."""
        rows, q = self.transitions(), torch.zeros(self.states - 1, 2)
        for _ in range(500):
            best = torch.cat([q.amax(1), torch.zeros(1)])
            q = (rows.reward + self.discount * rows.continues * (rows.next_latent @ best)).view(-1, 2)
        return q


def as_rows(steps: Transitions) -> LatentRows:
    """Windows of two rows each, one for every transition."""
    R = len(steps.reward)
    flags = torch.zeros(R, 2, dtype=torch.bool)
    terminal, none = flags.clone(), torch.zeros(R)
    terminal[:, 1] = steps.continues == 0
    action = torch.stack([torch.zeros_like(steps.action), steps.action], 1)
    batch = Batch({}, action, torch.stack([none, steps.reward], 1), flags, terminal, terminal)
    latent = torch.stack([steps.latent, steps.next_latent], 1)
    return LatentRows.of(batch, Belief(latent, torch.zeros(R, 1), {}, None))


def random_steps(R: int = 12, D: int = 5, A: int = 2) -> Transitions:
    """Transitions between random latents, some of which are ends."""
    continues = (torch.rand(R) > 0.3).float()
    return Transitions(torch.randn(R, D), torch.rand(R, A) * 2 - 1, torch.randn(R), continues, torch.randn(R, D))
