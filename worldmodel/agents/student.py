"""A small policy from observations straight to actions, taught by agents that plan, for one task or several."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from worldmodel.distillation.planner_gaussian import PlannerTarget, planner_kl
from worldmodel.distributions import Moments
from worldmodel.dynamics.stack import carried, stack
from worldmodel.interfaces import ActionNoise, Carry, Decision, Dynamics, Loss, Noise, Observation
from worldmodel.limits import require_number, require_whole
from worldmodel.nets import mlp
from worldmodel.observations import ObservationEncoder, ObservationNorm


class TaskInput(nn.Module):
    """What of a student belongs to one task: how it is seen, and how many actions it has.

    Args:
        norm: makes the task's observations numbers of unit scale.
        encoder: normalised observations [B T ...] to embeddings [B T E]; tasks that look alike can share one.
        read: embeddings, or latents where there is a filter, to features [B T F], shared as the encoder is.
        action_dim: A, the task's action dimensions.
        filter: a teacher's, from embeddings to latents, which know more of the past than a few frames; None for none.
    """

    def __init__(
        self,
        norm: ObservationNorm,
        encoder: ObservationEncoder,
        read: nn.Module,
        *,
        action_dim: int,
        filter: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.norm, self.encoder, self.read, self.action_dim = norm, encoder, read, action_dim
        self.filter: Dynamics | None = filter  # type: ignore[assignment]
        self.carry_dim = 0 if self.filter is None else self.filter.carry_dim

    def forward(
        self,
        observation: Observation,
        action: Float[Tensor, "B T A"],
        is_first: Bool[Tensor, "B T"],
        carry: Float[Tensor, "B C"],
    ) -> tuple[Float[Tensor, "B T E"], Float[Tensor, "B C"]]:
        """Embeddings, or filtered latents, of windows, and the filter's carry after them."""
        embed = self.encoder(self.norm(observation))
        if self.filter is None:
            return embed, carry
        belief = self.filter.observe(embed, action, is_first, carry, sample=False)
        return belief.latent, belief.carry


class Student(nn.Module):
    """N(tanh(m), σ) over actions from the last k frames and the actions between them: nothing is planned.

    A frame is read once and remembered; a few of them show what velocity is. All tasks share what follows, which is
    told the task, and of the outputs a task reads as many as it has actions.

    Args:
        tasks: one or several; the layers behind them are shared.
        features: F, outputs of every task's `read`.
        hidden, layers: width and number of the shared layers.
        stack: k, frames that are seen.
        discount: per decision, of the teachers.
        task: number of the task that `act` acts in.
        min_std, max_std: bounds of σ.
    """

    def __init__(
        self,
        tasks: Sequence[TaskInput],
        *,
        features: int,
        hidden: int = 256,
        layers: int = 2,
        stack: int = 3,
        discount: float = 0.99,
        task: int = 0,
        min_std: float = 0.05,
        max_std: float = 1.0,
    ) -> None:
        require_whole(stack=stack)
        require_whole(task=task, least=0, most=len(tasks) - 1)
        require_number(min_std=min_std, above=0, most=max_std)
        super().__init__()
        self.tasks: Sequence[TaskInput] = nn.ModuleList(tasks)  # type: ignore[assignment]
        self.stack, self.discount, self.task = stack, discount, task
        self.min_std, self.max_std = min_std, max_std
        self.most_actions = max(one.action_dim for one in tasks)
        self.row = features + self.most_actions  # what is remembered of a row
        self.net = mlp(stack * self.row + len(tasks), hidden, layers, 2 * self.most_actions)

    @property
    def action_dim(self) -> int:
        """Of the task that `act` acts in."""
        return self.tasks[self.task].action_dim

    def reads_frozen(self, task: int) -> bool:
        """Whether a task's encoder is not trained, so that an embedding is the same at every update."""
        return not any(weight.requires_grad for weight in self.tasks[task].encoder.parameters())

    def embed(
        self, observation: Observation, action: Float[Tensor, "B T A"], is_first: Bool[Tensor, "B T"], *, task: int
    ) -> Float[Tensor, "B T E"]:
        """What a task's encoder, and its filter where it has one, make of windows that nothing is known before."""
        part = self.tasks[task]
        return part(observation, action, is_first, action.new_zeros(len(action), part.carry_dim))[0]

    def moments(
        self,
        embed: Float[Tensor, "B T E"],
        action: Float[Tensor, "B T A"],
        is_first: Bool[Tensor, "B T"],
        carry: Float[Tensor, "B C"],
        *,
        task: int,
    ) -> tuple[Moments, Float[Tensor, "B C"], Bool[Tensor, "B T"]]:
        """The policy at every row of windows of one task.

        Args:
            embed: of every row, from `embed`.
            action: that led to each row; ignored where an episode opens.
            is_first: rows that open an episode.
            carry: what the last call returned, zeros where nothing is known.
            task: its number.

        Returns:
            Mean and std [B T A], the carry, and the rows of which all k frames were seen.
        """
        part = self.tasks[task]
        last = torch.where(is_first[..., None], 0.0, action)
        last = F.pad(last, (0, self.most_actions - last.shape[-1]))
        stacked, carry, complete = stack(torch.cat([part.read(embed), last], -1), is_first, carry, count=self.stack)
        which = F.one_hot(torch.tensor(task, device=last.device), len(self.tasks)).to(last.dtype)
        inputs = torch.cat([stacked, which.expand(*last.shape[:-1], -1)], -1)
        mean, raw = (half[..., : part.action_dim] for half in self.net(inputs).float().chunk(2, -1))
        return (torch.tanh(mean), self.min_std + (self.max_std - self.min_std) * torch.sigmoid(raw)), carry, complete

    def losses(
        self,
        embed: Float[Tensor, "B T E"],
        action: Float[Tensor, "B T A"],
        is_first: Bool[Tensor, "B T"],
        target: PlannerTarget,
        *,
        task: int,
    ) -> Loss:
        """KL to the planner's Gaussian per action dimension, over rows that have a target and all their frames.

        Args:
            embed, action, is_first, task: as in `moments`, windows of one task.
            target: [B T A], NaN where nothing was planned.
        """
        policy, _, complete = self.moments(embed, action, is_first, self._blank(len(embed)), task=task)
        counts = complete & target.mean.isfinite().all(-1)
        goal = PlannerTarget(*(torch.where(counts[..., None], x, 1.0) for x in (target.mean, target.std)))
        weight = counts.to(policy[0].dtype) / counts.sum().clamp_min(1)
        kl = (planner_kl(policy, goal) * weight).sum() / goal.mean.shape[-1]
        error = ((policy[0] - goal.mean).square().mean(-1) * weight).sum().sqrt()
        return Loss(kl, {"loss/student": kl.detach(), "student/error": error.detach()})

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """All weights that are trained, those that tasks share once: an encoder can be frozen."""
        return {"student": [weight for weight in self.parameters() if weight.requires_grad]}

    # --- acting ---------------------------------------------------------------------------------------------------

    def initial_carry(self, batch: int) -> Carry:
        blank = self._blank(batch)
        blank = torch.cat([blank.new_zeros(batch, self.tasks[self.task].carry_dim), blank], -1)
        actions = blank.new_zeros(batch, self.action_dim)
        executed = torch.ones(batch, dtype=torch.int64, device=blank.device)
        return Carry(belief=blank, action=actions, plan=actions[:, None][:, :0], executed=executed)

    @torch.no_grad()
    def act(
        self,
        observation: Observation,
        is_first: Bool[Tensor, "B"],
        carry: Carry,
        *,
        exploration: ActionNoise | None = None,
        generator: Noise = None,
    ) -> Decision:
        """The policy's mean, as `interfaces.Acts.act` has it, 0 where it is not finite; no return is predicted."""
        rows = {name: part[:, None] for name, part in observation.items()}
        first, part = is_first[:, None], self.tasks[self.task]
        last = torch.where(first, 0.0, carry.action)[:, None]
        filtered, stacked = carry.belief.tensor_split([part.carry_dim], -1)
        embed, filtered = part(rows, last, first, filtered)
        (mean, _), stacked, _ = self.moments(embed, last, first, stacked, task=self.task)
        belief = torch.cat([filtered, stacked], -1)
        action = mean[:, 0].nan_to_num(0.0)
        if exploration is not None:
            action = exploration.disturb(action)
        unknown = action.new_full((len(action),), torch.nan)
        return Decision(action, Carry(belief, action, carry.plan, carry.executed), unknown)

    def _blank(self, batch: int) -> Tensor:
        return next(self.parameters()).new_zeros(batch, carried(self.row, self.stack))


def reading(embed_dim: int, features: int) -> nn.Sequential:
    """The layer that a task's embeddings go through."""
    return nn.Sequential(nn.Linear(embed_dim, features), nn.LayerNorm(features), nn.SiLU())
