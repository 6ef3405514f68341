"""A student in one of its tasks, in two halves as an agent has them: a filter, and a policy on what was filtered."""

from typing import Any, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from worldmodel.agents.student import Student
from worldmodel.interfaces import Belief, Carry, Dynamics


class StudentFilter(nn.Module):
    """Embeddings to latents [z | k rows of features and actions]: the teacher's latent, and what the policy reads.

    Only what belongs to one task is kept. Where the teacher's filter carries its latent on, or there is no such filter
    (and no z), the carry is the latent, so that a prediction can take a missing frame's place.
    """

    def __init__(self, student: Student, task: int) -> None:
        super().__init__()
        part = student.tasks[task]
        self.read, self.filter = part.read, part.filter
        self.row, self.stack, self._actions = student.row, student.stack, student.most_actions
        self._z = 0 if part.filter is None else part.filter.latent_dim
        self.carry_dim = part.carry_dim + self.stack * self.row
        self.latent_dim = self._z + self.stack * self.row

    def observe(
        self,
        embed: Float[Tensor, "B 1 E"],
        action: Float[Tensor, "B 1 A"],
        is_first: Bool[Tensor, "B 1"],
        carry: Float[Tensor, "B C"],
        *,
        sample: bool = False,
    ) -> Belief:
        """One row, as `Student.act` reads it: the first of an episode stands for all that are not there yet."""
        filtered, past = carry.split([self.carry_dim - self.stack * self.row, self.stack * self.row], -1)
        seen, z = embed[:, 0], embed[:, 0, :0]
        if self.filter is not None:
            belief = self.filter.observe(embed, action, is_first, filtered, sample=sample)
            seen, z, filtered = belief.latent[:, 0], belief.latent[:, 0], belief.carry
        row = self._remembered(self.read(seen), torch.where(is_first, 0.0, action[:, 0]))
        rows = torch.where(is_first, row.repeat(1, self.stack), self._after(past, row))
        return Belief(torch.cat([z, rows], -1)[:, None], torch.cat([filtered, rows], -1), {})

    def predict(self, latent: Float[Tensor, "*R D"], action: Float[Tensor, "*R A"]) -> Float[Tensor, "*R D"]:
        """By the teacher's model; without its filter nothing is known but what was seen last."""
        z, past = latent.split([self._z, self.stack * self.row], -1)
        features = past[..., -self.row : past.shape[-1] - self._actions]
        if self.filter is not None:
            z = self.filter.predict(z, action)
            features = self.read(z)
        return torch.cat([z, self._after(past, self._remembered(features, action))], -1)

    def _remembered(self, features: Tensor, action: Tensor) -> Tensor:
        return torch.cat([features, F.pad(action, (0, self._actions - action.shape[-1]))], -1)

    def _after(self, past: Tensor, row: Tensor) -> Tensor:
        return torch.cat([past[..., self.row :], row], -1)


class StudentActor(nn.Module):
    """The policy's mean on a `StudentFilter`'s latent."""

    def __init__(self, student: Student, task: int) -> None:
        super().__init__()
        self.net, self.size = student.net, student.stack * student.row
        self.action_dim = student.tasks[task].action_dim
        which = F.one_hot(torch.tensor(task), len(student.tasks)).float()
        self.register_buffer("which", which, persistent=False)

    def mode(self, latent: Float[Tensor, "*R D"]) -> Float[Tensor, "*R A"]:
        """Actions in [-1, 1]."""
        told = cast(Tensor, self.which).expand(*latent.shape[:-1], -1)
        mean, _ = self.net(torch.cat([latent[..., -self.size :], told], -1)).chunk(2, -1)
        return torch.tanh(mean[..., : self.action_dim])


class StudentInTask(nn.Module):
    """What a robot's program asks of an agent that has no planner.

    Args:
        student: acts in its task, `Student.task`; the other tasks' parts are left out.
    """

    def __init__(self, student: Student) -> None:
        super().__init__()
        part = student.tasks[student.task]
        self.norm, self.encoder, self.action_dim = part.norm, part.encoder, part.action_dim
        filter: Any = StudentFilter(student, student.task)
        self.dynamics: Dynamics = filter
        self.actor = StudentActor(student, student.task)
        self.predicts = part.filter is not None  # whether `dynamics.predict` is a model, the teacher's

    def initial_carry(self, batch: int) -> Carry:
        """What to remember before the first decision of `batch` environments; there is no plan."""
        like = next(self.parameters())
        action = like.new_zeros(batch, self.action_dim)
        return Carry(
            belief=like.new_zeros(batch, self.dynamics.carry_dim),
            action=action,
            plan=torch.full_like(action, torch.nan)[:, None],
            executed=torch.ones(batch, dtype=torch.int64, device=like.device),
        )
