"""Model-based reinforcement learning with latent states and MPC (Algorithm 26), with learned values and a policy.

The encoder and the filter serve learning and acting alike: acting is `observe` with one row.
"""

from collections import ChainMap
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from worldmodel.agents.graphed_world import GraphedWorld
from worldmodel.agents.while_unchanged import WhileUnchanged
from worldmodel.capabilities import FitsAtOnce, FitsPosterior, ReportsBelief, ReportsLatent, WeightedLosses
from worldmodel.errors import BadValue
from worldmodel.heads.continuation import ContinuationHead
from worldmodel.heads.head import Head
from worldmodel.interfaces import (
    ActionNoise,
    Batch,
    Belief,
    Carry,
    Decision,
    Dynamics,
    Loss,
    Noise,
    Observation,
    Plan,
    Planner,
    Policy,
)
from worldmodel.latent_rows import LatentRows
from worldmodel.limits import require_one_of, require_whole
from worldmodel.model import Model, Seen
from worldmodel.objectives.objective import Objective
from worldmodel.observations import ObservationDecoder, ObservationEncoder, ObservationNorm
from worldmodel.policies.learner import PolicyLearner
from worldmodel.random_shift import shift_windows
from worldmodel.simulators.latent import LatentSimulator, frozen
from worldmodel.unrolling import open_loop_losses

# of the agent's own terms; parts bring those of theirs, and what nobody names weighs 1
LOSS_WEIGHTS = {
    **{"reward": 500.0, "consistency": 10.0, "unrolled_reward": 500.0},
    **{"continuation": 5.0, "unrolled_continuation": 5.0},
}

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
POLICY = "policy."  # with which names of weights begin that are not the model's


class LatentMPC(Model):
    """Encoder, decoder, latent dynamics and reward model, planned through by MPC.

    Args:
        norm: makes observations numbers of unit scale.
        encoder: normalised observations [B T ...] to embeddings [B T E].
        dynamics: filter and prior over latents [B T D].
        reward: reads rewards off latents.
        planner: acts through the learned world.
        action_dim: A, action dimensions.
        discount: per decision, in (0, 1].
        objective: what keeps latents informative of the frames.
        decoder: None with one that decodes nothing.
        unroll: rows predicted open-loop from every row, whose latents and rewards must match; 0 leaves that to the
            KL.
        continuation: whether an episode goes on after a latent; None where episodes never end by termination.
        policy: actor, value, and how they learn; None is the chapter's version, which plans on rewards alone.
        act_with: "planner", or "actor" to act without looking ahead.
        replan: actions of a plan that are executed before the next one; the planner's horizon is open loop.
        plan_precision: "float32", or "bfloat16" for the products of what planners roll out.
        weights: of loss terms by name, before the parts' own.
        random_shift: pixels by which windows' frames are moved at random while learning.

    Raises:
        BadValue: for another `act_with` or `plan_precision`, a `replan` beyond the horizon or a `random_shift` below 0.
    """

    def __init__(
        self,
        *,
        norm: ObservationNorm,
        encoder: ObservationEncoder,
        decoder: ObservationDecoder | None,
        objective: Objective,
        dynamics: nn.Module,
        reward: Head,
        policy: PolicyLearner | None,
        planner: Planner,
        action_dim: int,
        discount: float,
        unroll: int = 0,
        act_with: str = "planner",
        replan: int = 1,
        plan_precision: str = "float32",
        weights: Mapping[str, float] = MappingProxyType({}),
        continuation: ContinuationHead | None = None,
        random_shift: int = 0,
    ) -> None:
        super().__init__()
        if act_with not in ("planner", "actor") or (act_with == "actor" and policy is None):
            raise BadValue(f"agent.act_with: expected 'planner', or 'actor' with a policy, got {act_with!r}")
        if not 1 <= replan <= planner.horizon:
            raise BadValue(f"agent.replan: expected 1 to planner.horizon={planner.horizon}, got {replan}")
        require_whole(random_shift=random_shift, least=0)
        assert objective.decodes == (decoder is not None), objective
        self.norm, self.encoder, self.decoder, self.reward = norm, encoder, decoder, reward
        self.dynamics: Dynamics = dynamics  # type: ignore[assignment]
        self.continuation, self.policy, self.planner = continuation, policy, planner
        self.action_dim, self.discount, self.replan = action_dim, discount, replan
        self.objective, self.unroll, self.act_with = objective, unroll, act_with
        self.random_shift = random_shift
        parts = [part.loss_weights for part in (dynamics, objective) if isinstance(part, WeightedLosses)]
        self.weights = dict(ChainMap(dict(weights), *map(dict, parts), LOSS_WEIGHTS))
        require_one_of(PRECISIONS, **{"agent.plan_precision": plan_precision})
        self.plan_precision = PRECISIONS[plan_precision]
        self.world: WhileUnchanged[LatentSimulator] | GraphedWorld = WhileUnchanged()  # that planners see

    def simulator(self) -> LatentSimulator:
        """The learned world, as planners and policies see it."""
        return LatentSimulator(
            dynamics=self.dynamics,
            reward=self.reward,
            value=None if self.policy is None else self.policy.planning_value,
            actor=self.actor,
            action_dim=self.action_dim,
            discount=self.discount,
            continuation=self.continuation,
            precision=self.plan_precision,
        )

    @property
    def actor(self) -> Policy | None:
        """The policy that was learned, if one was."""
        return None if self.policy is None else self.policy.actor

    @property
    def predicted_decisions(self) -> int | None:
        """Decisions that a predicted return is about: the planner's horizon, None where a value continues it."""
        return self.planner.horizon if self.policy is None or self.policy.planning_value is None else None

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Weights by the loss that trains them: "model", and with a policy "actor" and "value"."""
        parts: list[Any] = [self.encoder, self.decoder, self.reward, self.dynamics, self.objective, self.continuation]
        model = [weight for part in parts if part is not None for weight in part.parameters()]
        groups = {"model": [weight for weight in model if weight.requires_grad]}
        return groups if self.policy is None else groups | self.policy.parameter_groups()

    # --- learning -------------------------------------------------------------------------------------------------

    def losses(self, batch: Batch) -> Loss:
        """Algorithm 26, line 3, and what the policy learns: one sum whose parts train disjoint weights."""
        if self.random_shift and self.training:
            batch = shift_windows(batch, pixels=self.random_shift)
        seen = self._see(batch)
        model = self._model_loss(seen)
        if self.policy is None:
            return model
        policy = self.policy_losses(batch, seen.belief)
        return Loss(model.total + policy.total, {**model.metrics, **policy.metrics}, model.error)

    def policy_losses(self, batch: Batch, belief: Belief) -> Loss:
        """Of actor and value alone, from a batch and what was inferred from it: the model is not moved."""
        assert self.policy is not None
        world: list[Any] = [self.dynamics, self.reward, self.continuation]
        with frozen(*(part for part in world if part is not None)):
            return self.policy.losses(self.simulator(), LatentRows.of(batch, belief))

    def fit_at_once(self, batch: Batch) -> None:
        """Let the dynamics take what they need from windows that hold every recorded transition once, where they do.

        Before a round of updates.
        """
        if isinstance(self.dynamics, FitsAtOnce):
            self.dynamics.fit_at_once(self.embed(batch), batch)

    def embed(self, batch: Batch) -> Float[Tensor, "B T E"]:
        """The embedding of every row."""
        return self.encoder(self.norm.as_product(batch.observation))

    def observe(self, batch: Batch, *, sample: bool = True) -> Belief:
        """Filter whole windows, each from a blank carry."""
        return self._see(batch, sample=sample).belief

    def _see(self, batch: Batch, *, sample: bool = True) -> Seen:
        embed = self.embed(batch)
        carry = torch.zeros(embed.shape[0], self.dynamics.carry_dim, device=embed.device)  # float32 under autocast too
        return Seen(batch, embed, self.dynamics.observe(embed, batch.action, batch.is_first, carry, sample=sample))

    def _model_loss(self, seen: Seen) -> Loss:
        batch, belief = seen.batch, seen.belief
        B, T = batch.reward.shape
        arrived = (~batch.is_first).float()  # a reset brings no reward
        reward = self.reward.loss(belief.latent, batch.reward) * arrived
        terms = {"reward": reward, **self.dynamics.losses(belief, batch)}
        if self.continuation is not None:
            counted = belief.counted(T)
            terms["continuation"] = self.continuation.rows_loss(belief.latent, batch.is_terminal, rows=counted)
        if isinstance(self.reward, FitsPosterior) and self.training:
            counts = arrived if belief.valid is None else arrived * belief.valid
            self.reward.condition(belief.latent, batch.reward, counts)
        shapes = {name: tuple(term.shape) for name, term in terms.items()}
        assert set(shapes.values()) == {(B, T)}, shapes
        means = {**self.objective.losses(self, seen), **{name: belief.mean(term) for name, term in terms.items()}}
        if self.unroll and not self.objective.looks_ahead:
            means |= open_loop_losses(self, seen, target=belief.latent, steps=self.unroll)
        total = torch.stack([self.weights.get(name, 1.0) * mean for name, mean in means.items()]).sum()
        metrics = {f"loss/{name}": mean.detach() for name, mean in means.items()}
        if isinstance(self.dynamics, ReportsBelief):
            metrics |= self.dynamics.report(belief, batch)
        if isinstance(self.reward, ReportsLatent):
            metrics |= {f"reward/{name}": number for name, number in self.reward.report(belief.latent).items()}
        # of the reward alone: most of a window's KL is what its frames show anew, which more learning does not lower
        error = self.weights["reward"] * belief.window_means(reward.detach())
        return Loss(total, metrics, error)

    def after_step(self) -> None:
        """Bring slow copies along; call after every optimiser step."""
        self.objective.follow(self)
        if self.policy is not None:
            self.policy.follow()

    # --- acting ---------------------------------------------------------------------------------------------------

    def initial_carry(self, batch: int) -> Carry:
        like = next(self.parameters())
        return Carry(
            belief=like.new_zeros(batch, self.dynamics.carry_dim),
            action=like.new_zeros(batch, self.action_dim),
            plan=like.new_full((batch, self.planner.horizon, self.action_dim), torch.nan),
            executed=torch.full((batch,), self.replan, device=like.device),
        )

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
        """Algorithm 26, lines 5 and 6: filter the observation, plan from its latent, decide.

        observation: by name, images uint8 [B c h w] and vectors float32 [B d].
        Rows with is_first start blank.
        """
        belief, warm = self.perceive(observation, is_first, carry)
        latent = belief.latent[:, 0]
        if self.replan == 1:
            action, plan, value = self._decide(latent, warm, generator)
            executed = carry.executed
        else:
            fresh = is_first | (carry.executed >= self.replan)
            action, plan, value = self._continue(latent, warm, fresh, generator)
            executed = torch.where(fresh, 1, carry.executed + 1)
        if exploration is not None:
            action = exploration.disturb(action)
        return Decision(action, Carry(belief.carry, action, shifted(plan), executed), value)

    def perceive(
        self, observation: Observation, is_first: Bool[Tensor, "B"], carry: Carry
    ) -> tuple[Belief, Float[Tensor, "B H A"]]:
        """Algorithm 26, line 5, before the plan: a belief of one row, and the last plan, NaN in rows with is_first."""
        blank = is_first[:, None]
        last = torch.where(blank, 0.0, carry.action)
        embed = self.encoder(self.norm({name: rows[:, None] for name, rows in observation.items()}))
        belief = self.dynamics.observe(embed, last[:, None], blank, carry.belief, sample=False)
        return belief, torch.where(blank[..., None], torch.nan, carry.plan)

    def plan(self, latent: Float[Tensor, "B D"], warm: Float[Tensor, "B H A"], generator: Noise) -> Plan:
        """The planner's plan in the learned world, as `interfaces.Planner` has it.

        Between rounds of learning weights stand still, and so does the world: packing them anew would be 6% of a plan.
        """
        world = self.world.get(self._weights(), self.simulator)
        return self.planner.plan(world, latent, warm=warm, generator=generator)

    def _continue(self, latent: Tensor, warm: Tensor, fresh: Tensor, generator: Noise) -> tuple[Tensor, Tensor, Tensor]:
        """New plans for the rows that are due one; the others execute what is left of theirs."""
        value = latent.new_full((len(latent),), torch.nan)
        if not fresh.any():
            return warm[:, 0], warm, value
        if isinstance(generator, Sequence):  # a row's noise depends on its own plans alone
            bystander = torch.Generator(generator[0].device)
            generator = [g if due else bystander for g, due in zip(generator, fresh.tolist(), strict=True)]
        action, plan, predicted = self._decide(latent, warm, generator)
        action = torch.where(fresh[:, None], action, warm[:, 0])
        return action, torch.where(fresh[:, None, None], plan, warm), torch.where(fresh, predicted, value)

    def _decide(self, latent: Tensor, warm: Tensor, generator: Noise) -> tuple[Tensor, Tensor, Tensor]:
        if self.act_with == "actor" and self.policy is not None:
            judge = self.policy.planning_value
            value = latent.new_full((len(latent),), torch.nan) if judge is None else judge(latent)
            return self.policy.actor.mode(latent), warm, value
        plan = self.plan(latent, warm, generator)
        return plan.action, plan.mean, plan.value

    def _weights(self) -> Iterator[Tensor]:
        """All that the learned world is read from."""
        parts: list[Any] = [self.dynamics, self.reward, self.continuation, self.policy]
        for part in parts:
            if part is not None:
                yield from part.parameters()
                yield from part.buffers()


def shifted(plan: Float[Tensor, "B H A"]) -> Float[Tensor, "B H A"]:
    """A plan as it is one decision later, its last action twice."""
    return torch.cat([plan[:, 1:], plan[:, -1:]], 1)
