"""A learned world as planners and policies see it: step, reward, value, propose, and the returns of candidates."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from worldmodel.capabilities import Epistemic, HasRollout, ScoresSequences
from worldmodel.heads.head import Head
from worldmodel.interfaces import Noise, Policy, Predictor
from worldmodel.interfaces import Simulator as SimulatorProtocol
from worldmodel.simulators._packed_scorer import Scorer
from worldmodel.simulators.survival import continuation, survival


class LatentSimulator:
    """Dynamics and heads composed into a simulator in latent space.

    discount is per decision. Without a value head, value is zero (the chapter's planner, rewards alone); without an
    actor, nothing is proposed; without a continuation head, episodes never end.

    Args:
        precision: of the products in `returns`, whose weights are those of its first call.
    """

    def __init__(
        self,
        *,
        dynamics: Predictor,
        reward: Head,
        value: nn.Module | None,
        actor: Policy | None,
        action_dim: int,
        discount: float,
        continuation: Head | None = None,
        precision: torch.dtype = torch.float32,
    ) -> None:
        self.terminates, self._continuation = continuation is not None, continuation
        self.valued = value is not None
        self.dynamics, self._reward, self._value, self._actor = dynamics, reward, value, actor
        self.action_dim, self.discount, self.precision = action_dim, discount, precision
        self._scorer: Callable[[Tensor, Tensor], Tensor] | None = None

    def step(self, latent: Float[Tensor, "R D"], action: Float[Tensor, "R A"]) -> Float[Tensor, "R D"]:
        """The mean of the next latent."""
        return self.dynamics.predict(latent, action)

    def reward(self, latent: Float[Tensor, "*R D"]) -> Float[Tensor, "*R"]:
        return self._reward(latent)

    def reward_std(self, latent: Float[Tensor, "*R D"]) -> Float[Tensor, "*R"]:
        """What the reward head does not know of its mean, as a std; TypeError for a head without a posterior."""
        if not isinstance(self._reward, Epistemic):
            kind = type(self._reward).__name__
            raise TypeError(f"reward_std: expected a reward head with a posterior, got {kind}")
        return self._reward.epistemic(latent)

    def value(self, latent: Float[Tensor, "*R D"]) -> Float[Tensor, "*R"]:
        return latent.new_zeros(latent.shape[:-1]) if self._value is None else self._value(latent)

    def continues(self, latent: Float[Tensor, "*R D"]) -> Float[Tensor, "*R"]:
        head = self._continuation
        return latent.new_ones(latent.shape[:-1]) if head is None else head(latent)

    def propose(self, latent: Float[Tensor, "R D"], generator: Noise) -> Float[Tensor, "R A"] | None:
        return None if self._actor is None else self._actor.sample(latent, generator=generator)

    def propose_mode(self, latent: Float[Tensor, "R D"]) -> Float[Tensor, "R A"] | None:
        return None if self._actor is None else self._actor.mode(latent)

    def returns(self, latent: Float[Tensor, "B D"], actions: Float[Tensor, "B N H A"]) -> Float[Tensor, "B N"]:
        """What `score` computes step by step, without gradients: by the dynamics' own rollout where it has one."""
        if self._scorer is None:
            if not isinstance(self.dynamics, HasRollout):
                with torch.autocast(latent.device.type, self.precision, enabled=self.precision != torch.float32):
                    return score_by_steps(self, latent, actions).float()
            self._scorer = Scorer(
                rollout=self.dynamics.rollout(self.precision),
                reward=self._reward,
                value=self._value,
                continuation=self._continuation,
                discount=self.discount,
                precision=self.precision,
            )
        return self._scorer(latent, actions)

    def score_with(self, scorer: Callable[[Tensor, Tensor], Tensor]) -> None:
        """Have `returns` computed by `scorer`, a function of its arguments."""
        self._scorer = scorer


def score(
    simulator: SimulatorProtocol, latent: Float[Tensor, "B D"], actions: Float[Tensor, "B N H A"]
) -> Float[Tensor, "B N"]:
    """Discounted return of every candidate: Σ γ^k r_k + γ^H v(s_H)  (equation 5.2.5's J).

    Where episodes can end, r_k counts times the probability to be under way when it arrives, v times that to go on.

    Where no gradients are wanted and the simulator has a way of its own, `returns`, that is taken.
    """
    if isinstance(simulator, ScoresSequences) and not torch.is_grad_enabled():
        return simulator.returns(latent, actions)
    return score_by_steps(simulator, latent, actions)


def score_by_steps(
    simulator: SimulatorProtocol, latent: Float[Tensor, "B D"], actions: Float[Tensor, "B N H A"]
) -> Float[Tensor, "B N"]:
    """`score` by the simulator's `step`, with gradients.

    Rewards of all steps are read in one call after the rollout: one large product instead of H small ones.
    """
    B, N, H, _ = actions.shape
    state = repeat(latent, "B D -> (B N) D", N=N)
    by_time = rearrange(actions, "B N H A -> H (B N) A")
    states = []
    for k in range(H):
        state = simulator.step(state, by_time[k])
        states.append(state)
    arrivals = torch.stack(states)
    rewards, value = simulator.reward(arrivals), simulator.value(state)
    continues = continuation(simulator, arrivals)
    if continues is not None:
        before, after = survival(continues)
        rewards, value = before * rewards, after * value
    weights = simulator.discount ** torch.arange(H, device=latent.device, dtype=rewards.dtype)
    # no product: those have fewer bits under autocast
    total = (weights[:, None] * rewards).sum(0) + simulator.discount**H * value
    return rearrange(total, "(B N) -> B N", B=B)


def follow(
    simulator: SimulatorProtocol,
    state: Float[Tensor, "R D"],
    choose: Callable[[Tensor], Tensor | None],
    *,
    horizon: int,
) -> Float[Tensor, "R H A"] | None:
    """The actions that `choose` takes as it is rolled through the model; None where it has none."""
    actions = []
    for _ in range(horizon):
        action = choose(state)
        if action is None:
            return None
        actions.append(action)
        state = simulator.step(state, action)
    return torch.stack(actions).transpose(0, 1)


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Within it, gradients flow through the modules but never into their weights."""
    weights = [w for module in modules for w in module.parameters() if w.requires_grad]
    for w in weights:
        w.requires_grad_(False)
    try:
        yield
    finally:
        for w in weights:
            w.requires_grad_(True)
