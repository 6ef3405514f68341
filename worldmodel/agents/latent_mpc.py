"""Model-based reinforcement learning with latent states and MPC (Algorithm 26), with learned values and a policy.

The encoder and the filter serve learning and acting alike: acting is `observe` with one row.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from worldmodel.distributions import standard_normal
from worldmodel.heads import Head
from worldmodel.interfaces import Batch, Belief, Carry, Dynamics, Loss, Noise, Planner
from worldmodel.objectives import latent_consistency, later_rows, unroll
from worldmodel.pixels import PixelNorm
from worldmodel.policies.actor import Actor
from worldmodel.policies.backprop import BackpropImagination
from worldmodel.simulator import LatentSimulator, frozen


class Decision(NamedTuple):
    """What `act` returns: actions to execute, what to remember, and the return the planner expects."""

    action: Float[Tensor, "B A"]
    carry: Carry
    predicted_return: Float[Tensor, "B"]


@dataclass(frozen=True, slots=True)
class LossWeights:
    """The weight of every term; the names are those of `LatentMPC.losses`."""

    image: float = 20.0
    reward: float = 500.0
    kl: float = 1.0
    members: float = 1.0
    filter: float = 1.0
    consistency: float = 10.0
    unrolled_reward: float = 500.0


class LatentMPC(nn.Module):
    """Encoder, decoder, latent dynamics and reward model, planned through by MPC.

    unroll: rows predicted open-loop from every row, whose latents and rewards must match; 0 leaves that to the KL.
    decode_fraction: share of a batch's frames that is decoded, a random subset: the decoder is the costliest part.
    imagination: trains the value and the actor; None is the chapter's version, which plans on rewards alone.
    act_with: "planner", or "actor" to act without looking ahead. plan_precision: "float32", or "bfloat16" for the
    products of what planners roll out.
    """

    def __init__(
        self,
        *,
        pixels: PixelNorm,
        encoder: nn.Module,
        decoder: nn.Module,
        dynamics: nn.Module,
        reward: Head,
        imagination: BackpropImagination | None,
        actor: Actor | None,
        planner: Planner,
        action_dim: int,
        discount: float,
        unroll: int = 0,
        decode_fraction: float = 0.25,
        act_with: str = "planner",
        plan_precision: str = "float32",
        weights: LossWeights = LossWeights(),
    ) -> None:
        super().__init__()
        if act_with not in ("planner", "actor") or (act_with == "actor" and actor is None):
            raise ValueError(f"act_with: expected 'planner', or 'actor' with an actor, got {act_with!r}")
        if not 0 < decode_fraction <= 1:
            raise ValueError(f"decode_fraction: expected a number in (0, 1], got {decode_fraction}")
        self.pixels, self.encoder, self.decoder, self.reward = pixels, encoder, decoder, reward
        self.dynamics: Dynamics = dynamics  # type: ignore[assignment]
        self.imagination, self.actor, self.planner = imagination, actor, planner
        self.action_dim, self.discount = action_dim, discount
        self.unroll, self.decode_fraction = unroll, decode_fraction
        self.act_with, self.weights = act_with, weights
        self.plan_precision = _precision(plan_precision)

    def simulator(self) -> LatentSimulator:
        """The learned world, as planners and policies see it."""
        value = None if self.imagination is None else self.imagination.slow_value.module
        return LatentSimulator(
            dynamics=self.dynamics,
            reward=self.reward,
            value=value,
            actor=self.actor,
            action_dim=self.action_dim,
            discount=self.discount,
            precision=self.plan_precision,
        )

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Weights by the loss that trains them: "model", and with imagination "actor" and "value"."""
        groups = {"model": [*self.encoder.parameters(), *self.decoder.parameters(), *self.reward.parameters()]}
        groups["model"] += self.dynamics.parameters()  # type: ignore[attr-defined]
        if self.imagination is not None and self.actor is not None:
            groups |= {"actor": [*self.actor.parameters()], "value": [*self.imagination.value.parameters()]}
        return groups

    # --- learning -------------------------------------------------------------------------------------------------

    def losses(self, batch: Batch) -> Loss:
        """Algorithm 26, line 3, and Algorithm 27 in imagination: one sum whose parts train disjoint weights."""
        belief = self.observe(batch)
        model = self._model_loss(batch, belief)
        if self.imagination is None or self.actor is None:
            return model
        imagined = self.imagined_losses(belief)
        return Loss(model.total + imagined.total, {**model.metrics, **imagined.metrics}, model.error)

    def imagined_losses(self, belief: Belief) -> Loss:
        """Algorithm 27 from every row of a belief: of value and actor alone, the model is not moved."""
        assert self.imagination is not None and self.actor is not None
        with frozen(self.dynamics, self.reward):  # type: ignore[arg-type]
            start = belief.latent.detach().flatten(0, 1)
            policy, value = self.imagination.losses(self.simulator(), self.actor, start)
        return Loss(total=policy + value.total, metrics=value.metrics)

    def observe(self, batch: Batch, *, sample: bool = True) -> Belief:
        """Filter whole windows, each from a blank carry."""
        embed = self.encoder(self.pixels(batch.pixels))
        carry = torch.zeros(embed.shape[0], self.dynamics.carry_dim, device=embed.device)  # float32 under autocast too
        return self.dynamics.observe(embed, batch.action, batch.is_first, carry, sample=sample)

    def _model_loss(self, batch: Batch, belief: Belief) -> Loss:
        B, T = batch.reward.shape
        arrived = (~batch.is_first).float()  # a reset brings no reward
        reward = self.reward.loss(belief.latent, batch.reward) * arrived
        terms = {"reward": reward, **self.dynamics.losses(belief, batch.action, batch.is_first)}
        shapes = {name: tuple(term.shape) for name, term in terms.items()}
        assert set(shapes.values()) == {(B, T)}, shapes
        # what a window lacks in the model's eyes; images are left out, of which only a random few are decoded
        errors = [getattr(self.weights, name) * term.detach().mean(1) for name, term in terms.items()]
        means = {"image": self._image_loss(batch, belief), **{name: term.mean() for name, term in terms.items()}}
        if self.unroll:
            means |= self._unrolled_losses(batch, belief)
        total = torch.stack([getattr(self.weights, name) * mean for name, mean in means.items()]).sum()
        metrics = {f"loss/{name}": mean.detach() for name, mean in means.items()}
        if hasattr(self.dynamics, "report"):  # what a model says of itself beside its losses
            metrics |= self.dynamics.report(belief, batch.action)
        return Loss(total, metrics, torch.stack(errors).sum(0))

    def _unrolled_losses(self, batch: Batch, belief: Belief) -> dict[str, Tensor]:
        predicted = unroll(self.dynamics, belief.latent, batch.action, steps=self.unroll)
        target = later_rows(batch.reward, steps=self.unroll)
        return {
            "consistency": latent_consistency(predicted, belief.latent).mean(),
            "unrolled_reward": self.reward.loss(predicted, target).mean(),
        }

    def _image_loss(self, batch: Batch, belief: Belief) -> Tensor:
        """Share of the frames' variance left unexplained, -log p(o | s) of a Gaussian, on a random subset of them."""
        latent, pixels = belief.latent.flatten(0, 1), batch.pixels.flatten(0, 1)
        count = max(1, round(self.decode_fraction * len(latent)))
        if count < len(latent):
            chosen = torch.randperm(len(latent), device=latent.device)[:count]
            latent, pixels = latent[chosen], pixels[chosen]
        error = self.decoder(latent).float() - self.pixels(pixels)
        return error.square().mean()

    def after_step(self) -> None:
        """Bring slow copies along; call after every optimiser step."""
        if self.imagination is not None:
            self.imagination.follow()

    # --- acting ---------------------------------------------------------------------------------------------------

    def initial_carry(self, batch: int) -> Carry:
        """What to remember before the first decision of `batch` environments."""
        like = next(self.parameters())
        return Carry(
            belief=like.new_zeros(batch, self.dynamics.carry_dim),
            action=like.new_zeros(batch, self.action_dim),
            plan=like.new_full((batch, self.planner.horizon, self.action_dim), torch.nan),
        )

    @torch.no_grad()
    def act(
        self,
        pixels: UInt8[Tensor, "B c h w"],
        is_first: Bool[Tensor, "B"],
        carry: Carry,
        *,
        noise_std: float = 0.0,
        generator: Noise = None,
    ) -> Decision:
        """Algorithm 26, lines 5 and 6: filter the frame, plan from its latent, decide.

        Rows with is_first start blank. noise_std is the exploration noise added to the action, then clipped.
        """
        blank = is_first[:, None]
        last = torch.where(blank, 0.0, carry.action)
        embed = self.encoder(self.pixels(pixels[:, None]))
        belief = self.dynamics.observe(embed, last[:, None], blank, carry.belief, sample=False)
        latent = belief.latent[:, 0]
        action, plan, value = self._decide(latent, torch.where(blank[..., None], torch.nan, carry.plan), generator)
        if noise_std:
            noise = standard_normal(*action.shape, generator=generator, device=action.device)
            action = (action + noise_std * noise).clamp(-1, 1)
        shifted = torch.cat([plan[:, 1:], plan[:, -1:]], 1)
        return Decision(action, Carry(belief=belief.carry, action=action, plan=shifted), value)

    def _decide(self, latent: Tensor, warm: Tensor, generator: Noise) -> tuple[Tensor, Tensor, Tensor]:
        simulator = self.simulator()
        if self.act_with == "actor" and self.actor is not None:
            return self.actor.mode(latent), warm, simulator.value(latent)
        plan = self.planner.plan(simulator, latent, warm=warm, generator=generator)
        return plan.action, plan.mean, plan.value


def _precision(name: str) -> torch.dtype:
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if name not in known:
        raise ValueError(f"agent.plan_precision: expected one of {', '.join(known)}, got {name!r}")
    return known[name]
