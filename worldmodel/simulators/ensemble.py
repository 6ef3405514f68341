"""Expected return over the members of an ensemble, as a simulator for any planner (5.3.3).

A planner picks what its model overrates. Members overrate different things, so their mean is exploited less; a
negative `kappa` removes the rest, a positive one explores. Chua et al. (2018), section 5, names the two propagations.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.capabilities import Members
from worldmodel.errors import BadValue
from worldmodel.interfaces import Noise, Readout
from worldmodel.simulators.survival import continuation, may_end, may_value
from worldmodel.transfer import send
from worldmodel.uncertainty.members import disagreement

_STEPS = 64  # of common random numbers, after which they repeat


class EnsembleSimulator:
    """Particles of every latent, each stepped by a member: J = mean over particles + kappa · std of their returns.

    All candidates meet the same members and noise. A state [R S] is made by `start`; it holds the particles, their
    returns so far, the number of steps and the last reward; where episodes can end, also the probability that each
    particle's is under way, by which what it earns counts.

    Args:
        simulator: reads rewards, values and proposals off latents; its own step is not used.
        particles: a multiple of the members.
        resample: a new member for every particle and step (TS1), else a particle keeps its own (TS-infinity).
        noisy: particles also sample their member's Gaussian, else follow its mean.
        kappa: optimism above 0, pessimism below.
        bonus: what a unit of disagreement between members adds to a step's reward.
    """

    def __init__(
        self,
        *,
        simulator: Readout,
        ensemble: Members,
        particles: int,
        resample: bool = False,
        noisy: bool = False,
        kappa: float = 0.0,
        bonus: float = 0.0,
        seed: int = 0,
    ) -> None:
        if particles < 1 or particles % ensemble.members:
            raise BadValue(f"particles: expected a multiple of {ensemble.members} members, got {particles}")
        self.simulator, self.ensemble, self.particles = simulator, ensemble, particles
        self.resample, self.kappa, self.bonus = resample, kappa, bonus
        self.action_dim, self.discount, self._ends = simulator.action_dim, simulator.discount, may_end(simulator)
        self.valued = may_value(simulator)
        self._last_reward = -1 - (particles if self._ends else 0)
        generator = torch.Generator().manual_seed(seed)
        self._order = torch.rand(_STEPS, particles, generator=generator).argsort(1)
        size = (_STEPS, particles, ensemble.latent_dim)
        self._noise = torch.randn(size, generator=generator) if noisy else None

    def start(self, latent: Float[Tensor, "B D"]) -> Float[Tensor, "B S"]:
        """All particles at a latent, nothing earned yet."""
        self._order = send(self._order, latent.device)
        self._noise = None if self._noise is None else send(self._noise, latent.device)
        B, P = len(latent), self.particles
        nothing = latent.new_zeros(B, P + 2)
        alive = [latent.new_ones(B, P)] if self._ends else []
        return torch.cat([latent.repeat(1, P), nothing, *alive], -1)

    def step(self, state: Float[Tensor, "R S"], action: Float[Tensor, "R A"]) -> Float[Tensor, "R S"]:
        """Every particle by its member; the reward is the mean over particles, and the bonus."""
        latent, earned, count, _, alive = self._parts(state)
        after = self._advance(latent, action, count)
        rewards = self.simulator.reward(after)
        if alive is not None:
            rewards = alive * rewards
        earned = earned + self.discount**count * rewards
        reward = rewards.mean(-1, keepdim=True)
        if self.bonus:
            bonus = self.bonus * self._disagreement(latent.mean(-2), action)[:, None]
            reward = reward + (bonus if alive is None else alive.mean(-1, keepdim=True) * bonus)
        continues = continuation(self.simulator, after)
        still = [] if alive is None or continues is None else [alive * continues]
        return torch.cat([after.flatten(1), earned, count + 1, reward, *still], -1)

    def reward(self, state: Float[Tensor, "*R S"]) -> Float[Tensor, "*R"]:
        """What arrived with the last step."""
        return state[..., self._last_reward]

    def value(self, state: Float[Tensor, "*R S"]) -> Float[Tensor, "*R"]:
        """The mean of the particles' values, and kappa times the spread of their whole returns, which are over here."""
        latent, earned, count, _, alive = self._parts(state)
        values, weight = self.simulator.value(latent), self.discount**count
        if alive is not None:
            values = alive * values
        returns = earned + weight * values
        if not self.resample:  # the spread of what members expect, without the noise within a member
            returns = returns.unflatten(-1, (self.ensemble.members, -1)).mean(-1)
        spread = returns.std(-1, correction=0) if self.kappa else torch.zeros_like(values[..., 0])
        return values.mean(-1) + self.kappa * spread / weight[..., 0]

    def propose(self, state: Float[Tensor, "R S"], generator: Noise) -> Float[Tensor, "R A"] | None:
        """The policy's action in the mean of the particles."""
        return self.simulator.propose(self._parts(state)[0].mean(-2), generator)

    def _parts(self, state: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
        """Particles [*R P D], their returns [*R P], steps done and the last reward [*R 1], probabilities [*R P]."""
        P, D = self.particles, self.ensemble.latent_dim
        latent, earned, count, reward, *alive = state.split([P * D, P, 1, 1, *([P] if self._ends else [])], -1)
        return latent.unflatten(-1, (P, D)), earned, count, reward, alive[0] if alive else None

    def _advance(self, latent: Tensor, action: Tensor, count: Tensor) -> Tensor:
        R, P, D = latent.shape
        now = count[:, 0].detach().nan_to_num(0.0).long() % _STEPS
        order = self._order[now] if self.resample else None
        if order is not None:
            latent = latent.gather(1, order[..., None].expand(-1, -1, D))
        M = self.ensemble.members
        of_member = latent.unflatten(1, (M, -1)).transpose(0, 1).reshape(M, -1, D)
        control = action.repeat_interleave(P // M, 0).expand(M, -1, -1)
        moments = self.ensemble.moments(of_member, control)
        mean, std = (x.view(M, R, -1, D).transpose(0, 1).reshape(R, P, D) for x in moments)
        if order is not None:
            back = order.argsort(1)[..., None].expand(-1, -1, D)
            mean, std = mean.gather(1, back), std.gather(1, back)
        return mean if self._noise is None else mean + std * self._noise.to(latent)[now]

    def _disagreement(self, latent: Tensor, action: Tensor) -> Tensor:
        M = self.ensemble.members
        mean, _ = self.ensemble.moments(latent.expand(M, -1, -1), action.expand(M, -1, -1))
        return disagreement(mean, self.ensemble.noisy_dims)
